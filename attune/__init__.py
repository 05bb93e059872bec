"""Fine-tuning of CLIP and other embedding models on your own machines. The domain: nothing here knows of Jina."""

__version__ = "0.1.0"
