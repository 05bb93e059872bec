import numpy as np
import pytest

from attune.data.batches import epoch_batches
from attune.errors import DataError
from attune.training.checks import check_feasible


def sizes(groups: list[str], batch_size: int) -> list[int]:
    return [len(batch) for batch in epoch_batches(groups, batch_size, np.random.default_rng(0))]


def test_data_that_can_teach_passes() -> None:
    groups = list("abcdefg")
    check_feasible(groups, [[f"text {group}"] for group in groups], sizes(groups, 4))


def test_one_group_is_refused() -> None:
    with pytest.raises(DataError, match="4 training pictures are of 1 group.*Give different groups"):
        check_feasible(["a"] * 4, [["x"], ["y"], ["z"], ["w"]], sizes(["a"] * 4, 4))


def test_one_caption_for_all_is_refused() -> None:
    with pytest.raises(DataError, match="All 4 training pictures have the same caption, 'a photo'"):
        check_feasible(list("abcd"), [["a photo"]] * 4, sizes(list("abcd"), 4))


def test_a_batch_of_one_is_refused() -> None:
    # Three pictures in batches of at most two are a batch of two and a batch of one.
    with pytest.raises(DataError, match="3 training pictures of 3 groups make 2 batches.* smallest has 1 pair"):
        check_feasible(list("abc"), [["x"], ["y"], ["z"]], sizes(list("abc"), 2))
