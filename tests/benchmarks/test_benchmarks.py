"""All benchmarks end to end, as small as they go: that they run, not what they find."""

import json
from pathlib import Path

import pytest

from benchmarks import kernels, recipe_quality, retrieval, training_throughput

pytest.importorskip("pandas", reason="open_clip's own trainer reads its CSV with pandas")
pytestmark = pytest.mark.slow


def test_throughput_of_both_trainers_is_measured(tiny_model: Path, attune_home: Path, tmp_path: Path) -> None:
    sizes = ["--pictures-per-step", "2", "--steps", "12", "--repeats", "1", "--workers", "1", "--device", "cpu"]
    training_throughput.main(["--models", str(tiny_model), *sizes, "--results", str(tmp_path)])

    text = (tmp_path / "training_throughput.json").read_text()
    (found,) = json.loads(text)["models"]
    assert str(tmp_path.parent) not in text
    assert found["captions_per_step"] == 10
    for side in ("attune", "open_clip"):
        (turn,) = found[side]["turns"]
        assert turn["captions_per_second"] > 0
        assert turn["peak_memory_mib"] > 100
    assert found["ratio"] == pytest.approx(
        found["attune"]["captions_per_second"] / found["open_clip"]["captions_per_second"], abs=0.01
    )
    assert 0 < found["ratio_with_decoding"] < found["ratio"]


def test_recipes_are_compared_on_the_same_pairs(tiny_model: Path, attune_home: Path, tmp_path: Path) -> None:
    sizes = ["--pictures", "80", "--test-pictures", "20", "--epochs", "1", "--plain-rates", "1e-4", "--device", "cpu"]
    kept = ["--folder", str(tmp_path / "kept"), "--results", str(tmp_path)]
    first = recipe_quality.main(["--sets", "emoji", "--start", str(tiny_model), *sizes, *kept])
    again = recipe_quality.main(["--sets", "emoji", "--start", str(tiny_model), *sizes, *kept])
    first, again = (result["sets"]["emoji"]["arms"] for result in (first, again))
    assert first == again  # seconds and all: nothing was trained twice

    text = (tmp_path / "recipe_quality.json").read_text()
    found = json.loads(text)["sets"]["emoji"]
    assert str(tmp_path.parent) not in text
    assert list(found["arms"]) == ["start", "open_clip_defaults", "finetuner", "plain", "attune"]
    assert (found["train_pictures"], found["test_pictures"]) == (80, 20)
    for arm in list(found["arms"].values())[1:]:
        (run,) = arm["runs"]
        assert run["steps"] > 0
        # No one saw a caption more often than another did, but for what a batch or a validation part leaves out.
        assert 0.5 * found["train_captions"] < run["captions_seen"] <= 1.1 * found["train_captions"]
        for direction, (low, high) in arm["interval"].items():
            assert 0 <= low <= arm["recall"][direction] <= high <= 1
    assert len(found["table"]) == 4 + len(found["arms"])


def test_evaluations_find_the_same(tmp_path: Path) -> None:
    retrieval.main(["--pictures", "200", "--captions", "3", "--dim", "16", "--repeats", "1", "--results", str(tmp_path)])

    found = json.loads((tmp_path / "retrieval_200.json").read_text())
    assert found["largest_difference"] < 1e-6
    assert 0.01 < found["figures"]["attune"]["text_to_image_recall@1"] < 0.99
    assert set(found["seconds"]) == set(retrieval.SIDES)
    assert all(seconds > 0 for seconds in found["seconds"].values())
    assert found["ratio"] > 0


def test_kernels_are_timed_beside_those_of_torch(tmp_path: Path) -> None:
    kernels.main(["--repeats", "1", "--results", str(tmp_path)])

    found = json.loads((tmp_path / "kernels.json").read_text())
    assert all(
        case["ratio"] == pytest.approx(case["torch_ms"] / case["attune_ms"], rel=0.05) for case in found["cases"].values()
    )
