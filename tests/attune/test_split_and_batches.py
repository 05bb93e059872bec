from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from attune.config import check_settings
from attune.data.batches import epoch_batches
from attune.data.parts import load_parts
from attune.data.split import split_by_group
from attune.errors import DataError
from attune.schemas import DatasetReport, TrainingExample

Make = Callable[..., list[TrainingExample]]
Push = Callable[..., DatasetReport]


def random_groups(rng: np.random.Generator, rows: int, groups: int) -> list[str]:
    return [f"g{number}" for number in rng.integers(groups, size=rows)]


@pytest.mark.parametrize("seed", range(20))
def test_a_group_is_on_one_side_and_every_row_on_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = [*random_groups(rng, int(rng.integers(5, 200)), int(rng.integers(4, 60))), "a", "b", "c", "d"]
    fraction = float(rng.uniform(0.05, 0.95))

    kept, held_out = split_by_group(groups, fraction, seed)

    sides = {groups[row] for row in kept}, {groups[row] for row in held_out}
    assert not sides[0] & sides[1]
    assert sorted([*kept, *held_out]) == list(range(len(groups)))
    assert min(map(len, sides)) >= 2
    assert abs(len(sides[1]) - fraction * len(set(groups))) <= 2


def test_the_split_follows_the_seed_and_not_the_order_of_the_rows() -> None:
    groups = [f"g{number}" for number in range(50)]

    _, held_out = split_by_group(groups, 0.2, seed=1)
    _, of_reversed = split_by_group(groups[::-1], 0.2, seed=1)
    _, of_another = split_by_group(groups, 0.2, seed=2)

    assert len(held_out) == 10
    assert {groups[row] for row in held_out} == {groups[::-1][row] for row in of_reversed}
    assert {groups[row] for row in held_out} != {groups[row] for row in of_another}


def test_groups_added_later_move_few_across() -> None:
    groups = [f"g{number}" for number in range(100)]
    more = [*groups, *(f"new{number}" for number in range(20))]

    _, before = split_by_group(groups, 0.2, seed=0)
    _, after = split_by_group(more, 0.2, seed=0)

    names = {groups[row] for row in before}
    assert len(names & {more[row] for row in after}) >= 12  # all 20 but the few that new ones have pushed out


def test_fewer_than_four_groups_cannot_be_split() -> None:
    with pytest.raises(DataError, match="only 3 distinct pictures"):
        split_by_group(["a", "b", "c", "c", "c"], 0.5, 0)


@pytest.mark.parametrize("seed", range(40))
def test_no_group_meets_itself_in_a_batch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(2, 150))
    groups = random_groups(rng, rows, int(rng.integers(2, rows + 2)))
    batch_size = int(rng.integers(2, 70))

    batches = epoch_batches(groups, batch_size, rng)

    assert len(batches) == -(-rows // batch_size)
    for batch in batches:
        assert len({groups[row] for row in batch}) == len(batch) <= batch_size
    sizes = list(map(len, batches))
    assert max(sizes) - min(sizes) <= 1
    # Every row comes once; of a group with more rows than there are batches, as many rows as there are batches.
    seen = Counter(row for batch in batches for row in batch.tolist())
    assert set(seen.values()) == {1}
    wanted = {group: min(count, len(batches)) for group, count in Counter(groups).items()}
    assert Counter(groups[row] for row in seen) == wanted


def test_a_pass_over_single_rows_sees_each_once_in_another_order_each_time() -> None:
    groups = [str(number) for number in range(64)]
    rng = np.random.default_rng(0)

    first, second = epoch_batches(groups, 10, rng), epoch_batches(groups, 10, rng)

    assert sorted(np.concatenate(first)) == sorted(np.concatenate(second)) == list(range(64))
    assert [set(batch) for batch in first] != [set(batch) for batch in second]


def test_the_rows_of_a_large_group_take_turns() -> None:
    groups = ["large"] * 6 + [str(number) for number in range(6)]
    rng = np.random.default_rng(0)

    seen = {row for _ in range(20) for batch in epoch_batches(groups, 4, rng) for row in batch if row < 6}

    assert seen == set(range(6))


def settings(**changes: object) -> object:
    return check_settings({"model": "starter", "train_data": "shapes", **changes})


def test_the_three_parts_share_no_picture_and_are_the_same_every_time(
    attune_home: Path, make_examples: Make, push: Push
) -> None:
    fingerprint = push("shapes", make_examples(60)).fingerprint

    parts = load_parts(settings(eval_split=0.2, val_split=0.25), fingerprint)

    # 60 groups: 12 held out; of the other 48, 12 to validate
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (36, 12, 12)
    assert len({*parts.train.images, *parts.validation.images, *parts.test.images}) == 60
    assert load_parts(settings(eval_split=0.2, val_split=0.25), fingerprint) == parts
    assert load_parts(settings(eval_split=0.2, val_split=0.25, seed=1), fingerprint).test != parts.test


def test_a_dataset_to_measure_on_is_taken_whole(attune_home: Path, make_examples: Make, push: Push) -> None:
    train = push("shapes", make_examples(40)[:30]).fingerprint
    other = push("other", make_examples(40)[30:]).fingerprint

    parts = load_parts(settings(eval_data="other", val_split=0.1), train, other)

    assert (len(parts.train), len(parts.validation), len(parts.test)) == (27, 3, 10)
    assert parts.test.fingerprint == other


@pytest.mark.parametrize("what", ["picture", "group"])
def test_refuses_to_measure_on_what_was_learnt(attune_home: Path, make_examples: Make, push: Push, what: str) -> None:
    examples = make_examples(20)
    if what == "picture":
        examples[15].image = examples[3].image
    else:
        examples[15].group = examples[3].group = "the same thing"
    train, other = push("shapes", examples[:12]).fingerprint, push("other", examples[12:]).fingerprint

    with pytest.raises(DataError, match="'other' and train_data 'shapes' share 1 pictures or groups"):
        load_parts(settings(eval_data="other"), train, other)


def test_a_dataset_of_one_pair_is_refused(attune_home: Path, make_examples: Make, push: Push) -> None:
    one = push("shapes", make_examples(1)).fingerprint
    with pytest.raises(DataError, match=r"Dataset 'shapes' is too small\. There are only 1 distinct pictures"):
        load_parts(settings(), one)

    ten = push("others", make_examples(11)[1:]).fingerprint
    with pytest.raises(DataError, match="eval_data 'shapes' has 1 picture; at least 2"):
        load_parts(check_settings({"model": "starter", "train_data": "others", "eval_data": "shapes"}), ten, one)
