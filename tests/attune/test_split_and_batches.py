from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from attune.config import check_settings
from attune.data.batches import bisect, epoch_batches, hard_batches
from attune.data.class_batches import class_batches
from attune.data.pairs import Pairs
from attune.data.parts import load_parts, validation_share
from attune.data.split import split_by_group
from attune.errors import DataError
from attune.kinds import IMAGE, SINGLE_IMAGE, Kind
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


def check_rules(batches: list[np.ndarray], groups: list[str], batch_size: int) -> None:
    assert len(batches) == -(-len(groups) // batch_size)
    for batch in batches:
        assert batch.dtype == np.int64
        assert len({groups[row] for row in batch}) == len(batch) <= batch_size
    sizes = list(map(len, batches))
    assert max(sizes) - min(sizes) <= 1
    # Every row comes once; of a group with more rows than there are batches, as many rows as there are batches.
    seen = Counter(row for batch in batches for row in batch.tolist())
    assert set(seen.values()) == {1}
    wanted = {group: min(count, len(batches)) for group, count in Counter(groups).items()}
    assert Counter(groups[row] for row in seen) == wanted


@pytest.mark.parametrize("seed", range(40))
def test_no_group_meets_itself_in_a_batch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(2, 150))
    groups = random_groups(rng, rows, int(rng.integers(2, rows + 2)))
    batch_size = int(rng.integers(2, 70))

    batches = epoch_batches(groups, batch_size, rng)

    check_rules(batches, groups, batch_size)


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


def test_an_epoch_may_pass_over_some_of_the_rows() -> None:
    groups = random_groups(np.random.default_rng(0), 100, 60)
    rng = np.random.default_rng(0)

    first, second = (epoch_batches(groups, 8, rng, rows_per_epoch=40) for _ in range(2))

    for batches in (first, second):
        assert [len(batch) for batch in batches] == [8] * 5
        assert len(set(np.concatenate(batches))) == 40
        assert all(len({groups[row] for row in batch}) == 8 for batch in batches)
    assert set(np.concatenate(first)) != set(np.concatenate(second))


@pytest.mark.parametrize("more", [100, 1000, None])
def test_an_epoch_over_more_rows_than_there_are_is_one_over_all(more: int | None) -> None:
    groups = [str(number) for number in range(100)]

    limited = epoch_batches(groups, 8, np.random.default_rng(3), rows_per_epoch=more)

    for one, other in zip(limited, epoch_batches(groups, 8, np.random.default_rng(3)), strict=True):
        np.testing.assert_array_equal(one, other)


def directions(rng: np.random.Generator, rows: int, dim: int = 8) -> np.ndarray:
    vectors = rng.standard_normal((rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(40))
def test_hard_batches_keep_the_rules_of_random_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(2, 150))
    groups = random_groups(rng, rows, int(rng.integers(2, rows + 2)))
    batch_size, cluster_size = int(rng.integers(2, 70)), int(rng.integers(1, 20))
    of_group = directions(rng, rows + 2)  # rows of one group are as similar as can be
    embeddings = np.stack([of_group[int(group[1:])] for group in groups])

    batches = hard_batches(embeddings, groups, batch_size, rng, cluster_size)

    check_rules(batches, groups, batch_size)


def test_hard_batches_may_pass_over_some_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    groups = random_groups(rng, 100, 60)

    batches = hard_batches(directions(rng, 100), groups, 8, rng, rows_per_epoch=40)

    assert [len(batch) for batch in batches] == [8] * 5
    assert len(set(np.concatenate(batches))) == 40
    assert all(len({groups[row] for row in batch}) == 8 for batch in batches)


@pytest.mark.parametrize("photographs", [1, 3])
def test_most_rows_of_a_hard_batch_have_their_likes_with_them(photographs: int) -> None:
    rng = np.random.default_rng(0)
    kinds, things = 16, 16  # 16 kinds of 16 things each, of each thing one or more photographs
    kind = np.repeat(np.arange(kinds), things * photographs)
    groups = [str(row // photographs) for row in range(len(kind))]
    centres = directions(rng, kinds, dim=32)
    embeddings = centres[kind] + 0.05 * rng.standard_normal((len(kind), 32)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)

    def of_same_kind(batches: list[np.ndarray]) -> float:
        return float(np.mean([(kind[batch][:, None] == kind[batch]).sum(1).mean() - 1 for batch in batches]))

    # In a random batch of 32, about 2 others are of a row's kind; in one of two whole clusters, 15.
    assert of_same_kind(epoch_batches(groups, 32, rng)) < 3
    assert of_same_kind(hard_batches(embeddings, groups, 32, rng, cluster_size=16)) > 10


def test_hard_batches_differ_from_epoch_to_epoch() -> None:
    rng = np.random.default_rng(0)
    embeddings, groups = directions(rng, 64), [str(number) for number in range(64)]

    first, second = (hard_batches(embeddings, groups, 16, rng, cluster_size=4) for _ in range(2))

    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in second}


@pytest.mark.parametrize("rows", [1, 2, 7, 16, 33, 100])
@pytest.mark.parametrize("cluster_size", [1, 4, 16, 1000])
def test_clusters_are_of_equal_size_and_hold_each_row_once(rows: int, cluster_size: int) -> None:
    rng = np.random.default_rng(rows)
    chosen = rng.permutation(200)[:rows]

    clusters = bisect(directions(rng, 200), chosen, cluster_size, rng)

    assert len(clusters) == -(-rows // cluster_size)
    assert max(map(len, clusters)) - min(map(len, clusters)) <= 1
    assert sorted(np.concatenate(clusters)) == sorted(chosen)


def test_equal_rows_can_be_clustered_too() -> None:
    same = np.ones((10, 4), dtype=np.float32) / 2

    clusters = bisect(same, np.arange(10), 3, np.random.default_rng(0))

    assert sorted(map(len, clusters)) == [2, 2, 3, 3]


def test_clusters_are_what_lies_together() -> None:
    rng = np.random.default_rng(0)
    corners = np.array([[1, 0, 0], [-1, 0, 0], [0, 0.5, 0], [0, -0.5, 0]], dtype=np.float32)
    place = rng.permutation(np.repeat(np.arange(4), 5))
    embeddings = corners[place] + 0.01 * rng.standard_normal((20, 3)).astype(np.float32)

    clusters = bisect(embeddings, np.arange(20), 5, rng)

    # First halved along x, the widest direction, in which two corners tie in the middle; the outer ones stay whole.
    whole = [set(place[cluster].tolist()) for cluster in clusters]
    assert {0} in whole
    assert {1} in whole


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


def of_groups(groups: int, kind: Kind = IMAGE, scores: float | None = None) -> Pairs:
    """An item of each group, with a caption or, if single, with none."""
    keys = [str(number) for number in range(groups)]
    captions = [[] if kind.is_single else ["a text"] for _ in keys]
    return Pairs("", keys, captions, keys, kind=kind, scores=[] if scores is None else [[scores]] * groups)


@pytest.mark.parametrize(("groups", "set_aside"), [(40, 4), (400, 40), (2000, 89), (10_000, 200), (1_000_000, 2000)])
def test_of_small_data_a_tenth_chooses_the_weights_and_of_large_data_less(groups: int, set_aside: int) -> None:
    assert round(groups * validation_share(of_groups(groups))) == set_aside


def test_a_tenth_is_set_aside_where_items_need_each_other_or_have_scores() -> None:
    for pairs in (of_groups(10_000, SINGLE_IMAGE), of_groups(10_000, scores=0.5)):
        assert validation_share(pairs) == 0.1


def test_a_dataset_to_measure_on_is_taken_whole(attune_home: Path, make_examples: Make, push: Push) -> None:
    train = push("shapes", make_examples(40)[:30]).fingerprint
    other = push("other", make_examples(40)[30:]).fingerprint

    parts = load_parts(settings(eval_data="other", val_split=0.1), train, other)

    assert (len(parts.train), len(parts.validation), len(parts.test)) == (27, 3, 10)
    assert parts.test.fingerprint == other


def test_a_dataset_to_choose_by_is_taken_whole_and_leaves_all_but_the_test_part_to_train_on(
    attune_home: Path, make_examples: Make, push: Push
) -> None:
    examples = make_examples(50)
    train, dev, other = (
        push(name, some).fingerprint
        for name, some in (("shapes", examples[:30]), ("dev", examples[30:42]), ("other", examples[42:]))
    )

    split = load_parts(settings(val_data="dev", eval_split=0.2), train, val_fingerprint=dev)
    given = load_parts(settings(val_data="dev", eval_data="other"), train, other, val_fingerprint=dev)

    assert [len(part) for part in (split.train, split.validation, split.test)] == [24, 12, 6]
    assert not {*split.train.images} & {*split.test.images}
    assert [len(part) for part in (given.train, given.validation, given.test)] == [30, 12, 8]
    assert (given.validation.fingerprint, given.test.fingerprint) == (dev, other)


@pytest.mark.parametrize(
    ("shared", "said"),
    [
        ("shapes", "val_data 'dev' and train_data 'shapes' share 1 pictures or groups: .* chosen by what they learnt"),
        ("other", "val_data 'dev' and eval_data 'other' share 1 .* measured on what they were chosen by. Remove them"),
    ],
)
def test_refuses_to_choose_by_what_was_learnt_or_is_measured_on(
    attune_home: Path, make_examples: Make, push: Push, shared: str, said: str
) -> None:
    examples = make_examples(24)
    data = {"shapes": examples[:12], "other": examples[12:18], "dev": examples[18:]}
    data["dev"] = [*data["dev"], data[shared][3]]
    train, other, dev = (push(name, some).fingerprint for name, some in data.items())

    with pytest.raises(DataError, match=said):
        load_parts(settings(val_data="dev", eval_data="other"), train, other, val_fingerprint=dev)


@pytest.mark.parametrize("what", ["picture", "group"])
def test_refuses_to_measure_on_what_was_learnt(attune_home: Path, make_examples: Make, push: Push, what: str) -> None:
    examples = make_examples(20)
    if what == "picture":
        examples[15].image = examples[3].image
    else:
        examples[15].group = examples[3].group = "the same thing"
    train, other = push("shapes", examples[:12]).fingerprint, push("other", examples[12:]).fingerprint

    known = {"picture": rf"picture {sha256(examples[3].image).hexdigest()[:12]} \('", "group": "group 'the same thing'"}[
        what
    ]
    with pytest.raises(DataError, match=f"'other' and train_data 'shapes' share 1 pictures or groups: {known}"):
        load_parts(settings(eval_data="other"), train, other)


def test_of_many_shared_pictures_and_groups_the_first_few_are_named(
    attune_home: Path, make_examples: Make, push: Push
) -> None:
    examples = make_examples(30)
    for example in [examples[0], *examples[20:23]]:
        example.group = "g" * 100
    train, other = push("shapes", examples[:20]).fingerprint, push("other", examples[13:]).fingerprint

    with pytest.raises(DataError, match="share 8 pictures or groups: ") as caught:  # 7 pictures, and 3 in one group
        load_parts(settings(eval_data="other"), train, other)

    named = str(caught.value).split(": ")[1].split(". ")[0]
    assert named.count("picture ") + named.count("group 'ggg") == 5
    assert named.endswith(" and 3 more")


def test_a_dataset_of_one_pair_is_refused(attune_home: Path, make_examples: Make, push: Push) -> None:
    one = push("shapes", make_examples(1)).fingerprint
    with pytest.raises(DataError, match=r"Dataset 'shapes' is too small\. There are only 1 distinct pictures"):
        load_parts(settings(), one)

    ten = push("others", make_examples(11)[1:]).fingerprint
    for setting, fingerprints in (("eval_data", {"eval_fingerprint": one}), ("val_data", {"val_fingerprint": one})):
        with pytest.raises(DataError, match=f"{setting} 'shapes' has 1 picture; at least 2"):
            load_parts(settings(train_data="others", **{setting: "shapes"}), ten, **fingerprints)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("batch_size", "items"), [(12, 4), (8, 2), (16, 4), (4, 8)])
def test_classes_meet_in_batches_and_every_row_comes_once(seed: int, batch_size: int, items: int) -> None:
    rng = np.random.default_rng(seed)
    labels = [f"class {number}" for number in rng.integers(0, 9, 90)] + ["alone"]

    batches = class_batches(labels, batch_size, items, rng)

    assert sorted(row for batch in batches for row in batch) == list(range(91))
    assert len(batches) == len(epoch_batches([str(row) for row in range(91)], batch_size, rng))
    if items < batch_size:
        sizes = [len(batch) for batch in batches]
        assert max(sizes) - min(sizes) <= items
        several = [max(Counter(labels[row] for row in batch).values()) for batch in batches]
        assert all(2 <= most <= 2 * items for most in several)
