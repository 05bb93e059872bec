"""The model card: front matter that the hub's own library reads, and what a reader is told."""

from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard

from attune.metrics import retrieval_metrics
from attune.report.card import model_card
from attune.schemas import EvaluationResult, FinetuningRun, TrainingResult

RANKS = {"text_to_image": [1, 2, 6, 40], "image_to_text": [1, 3]}


def run(trained: bool = True, compared: bool = True, **settings: Any) -> FinetuningRun:
    """A run with figures; recall@1 from text to image is 1/4."""
    figures = retrieval_metrics({name: np.array(ranks) for name, ranks in RANKS.items()})
    result = EvaluationResult(
        images=2, captions=4, after=figures, before=figures if compared else {}, warnings=["Mind this."]
    )
    made = FinetuningRun(
        name="mine", description="Said: by me.", settings={"model": "starter", **settings}, evaluation=result
    )
    if trained:
        made.training = TrainingResult(
            steps=8,
            epochs=2,
            best_epoch=2,
            seconds=3.0,
            device="cpu",
            precision="fp32",
            chosen="weights",
            recipe={"loss": "CLIPLoss"},
        )
    return made


def test_the_front_matter_gives_library_task_tags_and_every_figure() -> None:
    card = ModelCard(model_card(run(train_data="shapes")))

    assert (card.data.library_name, card.data.pipeline_tag) == ("open_clip", "zero-shot-image-classification")
    assert card.data.tags == ["clip", "attune"]
    assert (card.data.license, card.data.base_model) == (None, None)
    figures = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert len(figures) == 10
    assert figures["text_to_image_recall@1"] == 0.25
    assert {result.dataset_name for result in card.data.eval_results} == {"shapes (held out)"}


@pytest.mark.parametrize(
    ("model", "base"),
    [
        ("ViT-B-32#openai", "timm/vit_base_patch32_clip_224.openai"),
        ("ViT-B-32#scratch", None),
        ("ViT-B-32#some/file.pt", None),
        ("some/folder", None),
    ],
)
def test_a_base_model_is_named_where_the_hub_has_it(model: str, base: str | None) -> None:
    assert ModelCard(model_card(run(model=model, train_data="shapes"))).data.base_model == base


def test_a_card_of_a_trained_model_tells_before_and_after_and_how_it_was_made() -> None:
    text = model_card(run(train_data="shapes"))

    assert "starter fine-tuned by Attune on `shapes` with CLIPLoss.\nSaid: by me." in text
    assert "| text to image recall@1 | 0.250 | 0.250 | +0.000 |" in text
    assert "the weights of epoch 2 of 2. 8 steps in 3 s" in text
    assert "> **Note:** Mind this." in text
    assert "Intervals are 95 %,\nof the difference, by paired bootstrap over pictures." in text


def test_a_card_of_a_model_that_was_only_measured_has_no_before_and_no_training() -> None:
    alone, name = run(trained=False, compared=False, eval_data="others", train_data=None), "text_to_image_recall@1"
    alone.evaluation.after_low[name], alone.evaluation.after_high[name] = 0.125, 0.375

    text = model_card(alone)

    assert "starter, evaluated by Attune on `others`." in text
    assert "| metric | value | 95 % interval |" in text
    assert "| text to image recall@1 | 0.250 | 0.125 to 0.375 |\n" in text
    assert "| text to image median rank | 4.000 | – |\n" in text
    assert "Intervals are 95 %,\nby bootstrap over pictures." in text
    assert "before" not in text.lower()
    assert "Made with" not in text
    assert {result.dataset_name for result in ModelCard(text).data.eval_results} == {"others"}
