"""Losses that errors offer are such that the data at hand can use."""

from dataclasses import replace

import pytest

from attune.config import check_settings
from attune.data.loss_data import check_labels, check_loss, learns_from_labels, usable_losses
from attune.data.pairs import Pairs
from attune.errors import AttuneError
from attune.kinds import EMBEDDING, MATCH, SINGLE_EMBEDDING, SINGLE_IMAGE, SINGLE_TEXT, TEXT
from attune.losses.make import Scope, make_loss
from attune.losses.table import LOSSES, NEED_OPTIONS, needs_classes
from attune.settings import FinetuningSettings

KEYS = [f"{number:064x}" for number in range(4)]
PLAIN = Pairs("0" * 64, KEYS, [["a"], ["b"], ["c"], ["d"]], KEYS)
TEXTS = replace(PLAIN, kind=TEXT, queries=["e", "f", "g", "h"])
SINGLE = replace(TEXTS, kind=SINGLE_TEXT, captions=[[]] * 4)
CLASSES = ["x", "x", "y", "y"]
WRONG = {"negatives": [["n"], ["m"], ["n"], ["m"]]}

DATA = {
    "pictures": PLAIN,
    "pictures-of-classes": replace(PLAIN, labels=CLASSES),
    "pictures-partly-of-classes": replace(PLAIN, labels=["x", "", "y", ""]),
    "pictures-of-one-class": replace(PLAIN, labels=["x"] * 4),
    "matches": replace(PLAIN, kind=MATCH),
    "embeddings": replace(PLAIN, kind=EMBEDDING, dimension=3),
    "texts": TEXTS,
    "cosines": replace(TEXTS, scores=[[0.0], [0.5], [1.0], [-1.0]]),
    "scores": replace(TEXTS, labels=CLASSES, scores=[[0.0], [2.5], [5.0], [1.0]]),
    "negatives": replace(TEXTS, **WRONG),
    "negatives-of-classes": replace(TEXTS, labels=CLASSES, **WRONG),
    "margins": replace(TEXTS, **WRONG, margins=[[0.5]] * 4),
    "some-margins": replace(TEXTS, negatives=[["n"], [], ["n"], ["m"]], margins=[[0.5], [], [0.1], [0.2]]),
    "single-texts": SINGLE,
    "single-texts-of-classes": replace(SINGLE, labels=CLASSES),
    "single-texts-partly-of-classes": replace(SINGLE, labels=["x", "", "y", ""]),
    "single-pictures": replace(SINGLE, kind=SINGLE_IMAGE, queries=[], labels=CLASSES),
    "single-pictures-of-one-class": replace(SINGLE, kind=SINGLE_IMAGE, queries=[], labels=["x"] * 4),
    "single-embeddings": replace(SINGLE, kind=SINGLE_EMBEDDING, queries=[], labels=CLASSES, dimension=3),
}


def settings_of(loss: str) -> FinetuningSettings:
    return check_settings({"model": "starter", "train_data": "some", "loss": loss})


def check(pairs: Pairs, loss: str) -> None:
    """As validation does."""
    settings = settings_of(loss)
    check_loss(pairs, settings)
    if needs_classes(loss, {}) or learns_from_labels(pairs, settings):
        check_labels(pairs, settings)


def offered(error: AttuneError) -> list[str]:
    said = str(error).replace("Use one of: ", "use one of: ")
    return said.partition("use one of: ")[2].split(", ") if "use one of: " in said else []


@pytest.mark.parametrize("data", DATA)
def test_what_is_usable_is_what_the_checks_accept(data: str) -> None:
    accepted = []
    for loss in LOSSES.keys() - {*NEED_OPTIONS}:
        try:
            check(DATA[data], loss)
        except AttuneError:
            continue
        accepted.append(loss)

    assert sorted(accepted) == sorted(usable_losses(DATA[data]))


@pytest.mark.parametrize("data", DATA)
def test_a_refused_loss_is_answered_with_those_that_are_not(data: str) -> None:
    refused = set(LOSSES) - {*NEED_OPTIONS} - {*usable_losses(DATA[data])}

    for loss in refused:
        with pytest.raises(AttuneError) as error:
            check(DATA[data], loss)
        others = offered(error.value)
        assert others == usable_losses(DATA[data]) or "CoSENTLoss, which takes them as they are" in str(error.value)
        assert others or "label" in str(error.value) or "CoSENTLoss" in str(error.value)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_that_can_be_offered_is_made_without_options(loss: str) -> None:
    if loss not in NEED_OPTIONS:
        make_loss(loss, {}, scope=Scope(3, 8))
        return
    with pytest.raises(AttuneError):
        make_loss(loss, {}, scope=Scope(3, 8))


def test_pairs_of_texts_with_nothing_else_have_no_use_for_scores_margins_and_classes() -> None:
    able = usable_losses(TEXTS)

    assert {"CLIPLoss", "MultipleNegativesRankingLoss", "TripletMarginLoss", "VICRegLoss"} <= {*able}
    assert not {"SimCSELoss", "CoSENTLoss", "CosineSimilarityLoss", "MarginMSELoss", "ArcFaceLoss"} & {*able}
    assert usable_losses(SINGLE) == ["SimCSELoss"]
    assert usable_losses(DATA["cosines"]) == ["CoSENTLoss", "CosineSimilarityLoss"]
    assert usable_losses(DATA["scores"]) == ["CoSENTLoss"]
