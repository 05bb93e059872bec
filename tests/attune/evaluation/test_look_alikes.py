"""Held-out single items that are nearly the same as one of another label."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from attune.data.pairs import Pairs
from attune.data.parts import Parts
from attune.evaluation import look_alikes as module
from attune.evaluation.cautions import cautions
from attune.evaluation.leakage import looks
from attune.evaluation.look_alikes import look_alikes
from attune.kinds import SINGLE_EMBEDDING, SINGLE_IMAGE, SINGLE_TEXT, Kind
from attune.runs.folder import RunFolder
from attune.schemas import DatasetReport, FinetuningRun, TrainingExample
from attune.stages import run_stage
from tests.attune.evaluation.test_leakage import disc, photograph, stored_again
from tests.attune.singles import sentences


def items(kind: Kind, labels: list[str], texts: list[str] | None = None) -> Pairs:
    keys = [f"{number:064}" for number in range(len(labels))]
    return Pairs("f", keys, [[] for _ in keys], keys, labels, kind=kind, queries=texts or [])


@pytest.mark.parametrize("tile", [1, 9, 1_000_000])
def test_pictures_that_look_alike_and_are_labelled_otherwise_are_found(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TILE", tile)
    one, two, three = photograph(1), photograph(2), photograph(3)
    pictures = [one, two, stored_again(one), stored_again(two), three, stored_again(three), disc((200, 0, 0))]
    labels = ["cat", "dog", "cow", "dog", "hen", "", "cat"]

    found = look_alikes(items(SINGLE_IMAGE, labels), looks(np.stack(pictures)))

    assert found == {0: 2, 2: 0}  # the dog is a dog twice, and what has no label contradicts none


def test_of_several_look_alikes_the_first_of_another_label_is_named() -> None:
    pictures = np.stack([photograph(1)] * 4)

    assert look_alikes(items(SINGLE_IMAGE, ["a", "a", "b", "c"]), looks(pictures)) == {0: 2, 1: 2, 2: 0, 3: 0}


def test_texts_that_say_the_same_and_are_labelled_otherwise_are_found() -> None:
    texts = ["Book!", "call", "book", "Call", "BOOK", "read"]

    assert look_alikes(items(SINGLE_TEXT, ["a", "b", "c", "b", "a", "a"], texts)) == {0: 2, 2: 0, 4: 2}


def test_embeddings_of_one_direction_that_are_labelled_otherwise_are_found() -> None:
    vectors = np.asarray([[1, 0, 0], [0, 2, 0], [3, 0, 1e-3], [0, 0, 1]], dtype=np.float32)

    assert look_alikes(items(SINGLE_EMBEDDING, ["a", "b", "c", "a"]), looks(vectors)) == {0: 2, 2: 0}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (SINGLE_TEXT, "texts that say the same as one of another label: 2 of 20, such as 'a' (text 0) and 'b' (text 3)."),
        (SINGLE_IMAGE, "pictures that look nearly like one of another label: 2 of 20, such as 'a' (000000000000) and 'b' ("),
        (SINGLE_EMBEDDING, "embeddings that are nearly one of another label: 2 of 20, such as"),
    ],
    ids=["texts", "pictures", "embeddings"],
)
def test_they_are_warned_of_each_two_once(kind: Kind, said: str) -> None:
    test = items(kind, ["a", "a", "a", "b", "b"] * 4, [f"text {number}" for number in range(20)] if kind.of_texts else None)
    nothing = test.take([])

    [warning] = cautions(Parts(nothing, nothing, test), [], {0: 3, 3: 0})

    assert warning.startswith(f"Held-out {said}")
    assert warning.count(" and ") == 1
    assert cautions(Parts(nothing, nothing, test), [], {}) == []


def test_a_report_warns_of_them(attune_home: Path, tiny_vit: Path, push: Callable[..., DatasetReport]) -> None:
    examples = sentences(30)
    push("wishes", [*examples, TrainingExample(text=examples[0].text.upper(), label=examples[1].label)])
    RunFolder.create(FinetuningRun(name="look", settings={"model": str(tiny_vit), "eval_data": "wishes", "devices": "cpu"}))

    run_stage("validate", "look")
    run = run_stage("evaluate", "look")

    assert any("say the same as one of another label: 2 of 31" in warning for warning in run.evaluation.warnings)
