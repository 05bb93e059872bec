"""Text to image with each kind of CLIP: tiny models of random weights learn what emoji are called.

A vision transformer, CLIP's ResNet, an image tower of timm's, a text tower of Hugging Face from a local folder, SigLIP with
its sigmoid loss, and CoCa: open_clip's own classes, each described by a configuration in a folder as a user would write it.
They learn English names from the drawings of two artists, Twemoji and OpenMoji; measured are 400 emoji as a third one draws
them, Noto: the words are known then, the drawings are not.
"""

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from docarray import DocList

from attune.schemas import TrainingExample
from client import AttuneClient
from examples.emoji.data import load, split
from examples.recipes.languages import without_groups
from examples.recipes.table import Row, Table, rows_of

SIZE = 48
DIMENSION = 64
VIT = {"image_size": SIZE, "patch_size": 8, "width": 96, "head_width": 24, "layers": 3}
TEXT = {"context_length": 24, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 2}
HUGGING_FACE = {
    "hf_model_name": "local/bert",  # described beside it, and fetched from nowhere
    "hf_tokenizer_name": "local/bert",
    "hf_pooler_type": "mean_pooler",
    "hf_proj_type": "linear",
    "context_length": 24,
}
BERT = {
    "model_type": "bert",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "ViT": {"vision_cfg": VIT, "text_cfg": TEXT},
    "ModifiedResNet": {
        "vision_cfg": {"image_size": SIZE, "width": 16, "head_width": 16, "layers": [1, 1, 1, 1], "patch_size": None},
        "text_cfg": TEXT,
    },
    "timm": {
        "vision_cfg": {"timm_model_name": "test_resnet", "timm_pool": "", "timm_proj": "linear", "image_size": SIZE},
        "text_cfg": TEXT,
    },
    "Hugging Face": {"vision_cfg": VIT, "text_cfg": HUGGING_FACE},
    "SigLIP": {
        "vision_cfg": VIT,
        "text_cfg": {**TEXT, "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
        "custom_text": True,
        "init_logit_bias": -10,
    },
    "CoCa": {
        "vision_cfg": {**VIT, "attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True},
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**TEXT, "attn_pooler_heads": 4},
        "custom_text": True,
    },
}
"""open_clip's `model_cfg` of each."""

PREPROCESS = {"size": SIZE, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
SETTINGS = {"epochs": 12, "batch_size": 128, "precision": "fp32"}


def run(attune: AttuneClient, quick: bool = False) -> Table:
    """Trains and measures each.

    Args:
        attune: client of a fine-tuning service.
        quick: little data and one epoch, to see that everything works.
    """
    settings = SETTINGS | ({"epochs": 1, "batch_size": 32} if quick else {})
    learnt = without_groups([*load("twemoji"), *load("openmoji")])
    data = {"variants-train": learnt[:120] if quick else learnt, "variants-test": without_groups(split(load("noto"))[1])}
    for name, examples in data.items():
        attune.push(name, DocList[TrainingExample](examples))
    words = [caption for example in learnt for caption in example.captions]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (variant, config) in enumerate(VARIANTS.items(), start=1):
            model = configured(Path(folder) / str(number), config, words)
            tuned = attune.fit(
                f"{model}#scratch", "variants-train", eval_data="variants-test", run_name=f"variants-{number}", **settings
            ).wait()
            rows += rows_of(tuned, variant, ["text_to_image_recall@5", "image_to_text_recall@5"])
    return Table(rows, settings)


def configured(folder: Path, model: dict[str, Any], captions: Iterable[str]) -> Path:
    """Writes a model's configuration; of a text tower of Hugging Face, its own and a tokenizer of the captions' words."""
    folder.mkdir()
    config = {"model_cfg": {"embed_dim": DIMENSION, **model}, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    if "hf_model_name" in model["text_cfg"]:
        from transformers import BertTokenizer

        words = sorted({word for caption in captions for word in caption.lower().split() if word.isalnum()})
        vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
        BertTokenizer(vocab={word: number for number, word in enumerate(vocabulary)}).save_pretrained(folder)
        described = json.dumps({**BERT, "vocab_size": len(vocabulary)})
        (folder / "text_tower_config.json").write_text(described, encoding="utf-8")
    return folder
