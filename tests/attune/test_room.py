"""What a run needs at least, and what is refused for it before it starts."""

from collections.abc import Callable
from pathlib import Path

import pytest

from attune.config import check_settings
from attune.errors import SettingsError, StorageFull
from attune.room import check_fits, count, memory_of
from attune.runs.folder import RunFolder
from attune.schemas import DatasetReport, FinetuningRun, TrainingExample
from attune.service.settings import service_settings
from attune.stages import run_stage

CROWD = {"model": "ViT-B-32#scratch", "train_data": "shapes", "devices": "cpu", "processes": 1024}  # 2.4 GB each


@pytest.fixture(autouse=True)
def shapes(
    attune_home: Path, make_examples: Callable[..., list[TrainingExample]], push: Callable[..., DatasetReport]
) -> DatasetReport:
    return push("shapes", make_examples(48))


def test_what_needs_more_memory_than_there_is_is_refused_with_both_numbers() -> None:
    with pytest.raises(SettingsError, match=r"needs at least .* TB of memory .* in 1024 processes, and cpu has .* Choose"):
        check_fits(FinetuningRun(name="crowd", settings=CROWD))

    check_fits(FinetuningRun(name="alone", settings={**CROWD, "processes": 1}))


def test_a_run_that_passed_the_queue_by_is_refused_before_it_starts() -> None:
    folder = RunFolder.create(FinetuningRun(name="crowd", settings=CROWD))

    with pytest.raises(SettingsError, match="needs at least"):
        run_stage("validate", "crowd")

    run = folder.load()
    assert run.state == "FAILED"
    assert "in 1024 processes" in run.error
    assert not folder.checkpoints.is_dir() or not any(folder.checkpoints.iterdir())


def test_what_does_not_fit_into_the_quota_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTUNE_DISK_QUOTA", "500 MB")
    service_settings.cache_clear()

    with pytest.raises(StorageFull, match="crowd"):
        check_fits(FinetuningRun(name="crowd", settings={**CROWD, "processes": 1}))


def test_what_is_not_trained_needs_no_gradients() -> None:
    counts = {name: count(check_settings({**CROWD, "processes": 1, name: True})) for name in ("lock_image", "lock_text")}
    whole = count(check_settings({**CROWD, "processes": 1}))

    assert whole is not None
    assert whole.weights == 4 * 151_277_313  # as open_clip tells of it
    assert whole.trainable == 4 * 151_277_313
    assert counts["lock_image"] is not None
    assert counts["lock_text"] is not None
    assert counts["lock_image"].trainable < counts["lock_text"].trainable < whole.trainable
    assert whole.pixels == 3 * 224 * 224


def test_low_rank_changes_are_few() -> None:
    few, whole = (count(check_settings({**CROWD, "processes": 1, **more})) for more in ({"lora_rank": 8}, {}))

    assert few is not None
    assert whole is not None
    assert few.trainable < whole.trainable / 20


def test_a_containers_memory_is_its_limit(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    assert memory_of("cpu", tmp_path) == 1_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_of("cpu", tmp_path) == memory_of("cpu", tmp_path / "none") > 10**8
