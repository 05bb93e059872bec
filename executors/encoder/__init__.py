"""The Encoder: documents to embeddings, with a tuned model."""
