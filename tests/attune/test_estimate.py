import pytest
import torch

from attune.models.clip import load_clip
from attune.training.estimate import activation_bytes, estimate, step_seconds


def test_an_estimate_worked_out_by_hand() -> None:
    # Weights of 100 million, and of 40 million trained: gradients, two moments, an average. 4 bytes each:
    # 4 x (100 + 40 x 4) million = 1.04 GB, and 0.86 GB of activations.
    found = estimate(96, 1.9, 100_000_000, 40_000_000, activation_bytes=860_000_000, average=True)
    assert found.memory_bytes == 1_900_000_000
    assert found.seconds == pytest.approx(182.4)
    assert found.advice == ""
    assert found.describe() == "about 96 steps, 3 min, 1.9 GB"


@pytest.mark.parametrize(
    ("seconds", "parameters", "expected"),
    [(0.1, 5_000_000, "about 100 steps, 10 s, 80 MB"), (90.0, 428_000_000, "about 100 steps, 2.5 h, 6.8 GB")],
)
def test_durations_and_sizes_in_words(seconds: float, parameters: int, expected: str) -> None:
    assert estimate(100, seconds, parameters, parameters).describe() == expected


def test_a_step_costs_something_of_itself_and_then_so_much_a_picture() -> None:
    tried = []

    def seconds_of(pictures: int) -> float:
        tried.append(pictures)
        return 0.7 + 0.025 * pictures

    assert step_seconds(seconds_of, 256, at_most=256) == pytest.approx(0.7 + 0.025 * 256)
    assert tried == [4, 16]  # the second is long enough to tell
    assert step_seconds(lambda pictures: 0.001 * pictures, 256, at_most=64) == pytest.approx(0.256)
    assert step_seconds(lambda _: 0.5, 1, at_most=8) == 0.5


def test_an_estimate_says_what_to_change() -> None:
    found = estimate(12, 1.0, 500_000_000, 500_000_000, short_bytes=2_000_000_000)
    assert "That is 2.0 GB more memory than there is: set a smaller micro_batch_size" in found.describe()
    assert "raise epochs" in found.advice
    assert estimate(100, 1.0, 100, 100).advice == ""


def test_bytes_kept_for_the_backward_pass() -> None:
    first, second = torch.nn.Linear(8, 16), torch.nn.Linear(16, 2)
    inputs = torch.ones(4, 8)
    kept = activation_bytes(lambda: second(first(inputs).relu()).sum(), [*first.parameters(), *second.parameters()])
    # The inputs, 4 x 8 floats, and what relu gave, 4 x 16: kept by relu and by the second layer, counted once.
    assert kept == 4 * (4 * 8 + 4 * 16)


def test_twice_the_batch_keeps_twice_the_activations() -> None:
    clip = load_clip("starter")
    clip.model.train()
    size = clip.preprocess["size"]
    side = size if isinstance(size, int) else size[0]

    def kept(count: int) -> int:
        pixels = torch.zeros(count, 3, side, side)
        return activation_bytes(lambda: clip.model.encode_image(pixels).sum(), list(clip.model.parameters()))

    assert kept(4) == pytest.approx(2 * kept(2), rel=0.01)
    assert kept(2) > 2 * 3 * side * side * 4
