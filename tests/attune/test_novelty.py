"""How new data is to a model: 0 where it finds every right answer, 1 where it finds them as by chance."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from attune.data.pairs import Pairs, load_pairs
from attune.evaluation.measure import measure, pixels_of
from attune.kinds import SINGLE_IMAGE
from attune.models.clip import Clip, load_clip
from attune.runs.folder import RunFolder
from attune.training import novelty as module
from attune.training.novelty import novelty


@pytest.fixture
def shapes(knowing: tuple[Path, RunFolder], model: Path) -> Pairs:
    """All 96 in the home of the model that learnt them."""
    train = load_pairs(knowing[1].load().train_fingerprint)
    assert len(train) == 96
    return train


def how_new(clip: Clip, train: Pairs) -> float:
    return novelty(clip, train, pixels_of(clip, train), seed=0)


def test_what_a_model_was_trained_on_is_not_new_and_everything_is_to_random_weights(
    shapes: Pairs, model: Path, tiny_vit: Path
) -> None:
    assert how_new(load_clip(str(model)), shapes) < 0.3
    assert how_new(load_clip(f"{tiny_vit}#scratch"), shapes) > 0.9


def test_it_is_the_mean_log_rank_beside_that_of_ranks_that_are_all_as_likely(shapes: Pairs, tiny_vit: Path) -> None:
    clip = load_clip(f"{tiny_vit}#scratch")
    single = replace(shapes, captions=[captions[:1] for captions in shapes.captions])
    ranks = np.concatenate(list(measure(clip, single, pixels_of(clip, single)).ranks.values()))
    chance = np.log(np.arange(1, 97)).mean()

    assert math.isclose(how_new(clip, single), min(1.0, np.log(ranks).mean() / chance), abs_tol=0.005)


def test_pictures_of_one_caption_are_no_wrong_answers_to_each_other(shapes: Pairs, model: Path) -> None:
    clip = load_clip(str(model))
    colours = [[captions[0].split()[1]] for captions in shapes.captions]

    assert how_new(clip, shapes) < 0.3
    assert how_new(clip, replace(shapes, captions=colours)) == 0.0  # too few that differ to tell


def test_single_items_and_scores_have_no_right_answers_to_rank(shapes: Pairs, tiny_vit: Path) -> None:
    clip = load_clip(f"{tiny_vit}#scratch")
    scores = [[0.5] * len(captions) for captions in shapes.captions]

    assert how_new(clip, replace(shapes, kind=SINGLE_IMAGE, captions=[[] for _ in shapes.images])) == 0.0
    assert how_new(clip, replace(shapes, scores=scores)) == 0.0
    assert how_new(clip, shapes.take(range(module.ENOUGH_ITEMS - 1))) == 0.0
