"""Runs of timm's models on pairs of pictures: all stages, a run that goes on from another, and one that only evaluates."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from attune.data.images import decode
from attune.data.pixels import to_pixels
from attune.models.clip import load_clip
from attune.runs.models import ancestors
from attune.schemas import DatasetReport, SearchDocument
from attune.search.encoder import embed, load_encoder
from attune.settings import ModelOptions
from attune.stages import STAGES, run_stage
from tests.attune.matches import drawings
from tests.attune.trained import start
from tests.conftest import picture

RUNS: list[tuple[str, dict[str, Any]]] = [
    ("test_resnet", {}),
    ("test_efficientnet", {"lora_rank": 2, "micro_batch_size": 6}),
    ("test_convnext", {"artifact_precision": "fp16", "train_last_blocks": 2}),
    ("test_vit", {"model_options": {"image_size": 48, "pooler": "gem", "output_dim": 16, "matryoshka_dims": [8]}}),
    ("test_vit", {"model_options": {"gradient_checkpointing": True, "pooler": "mean"}, "hard_negatives": 0.5}),
    ("test_vit", {"loss": "TripletMarginLoss", "sampler": "class", "learning_rate": 1e-5}),
]


@pytest.mark.parametrize(("kind", "settings"), RUNS)
def test_a_model_of_timms_goes_through_all_stages(
    attune_home: Path, push: Callable[..., DatasetReport], tmp_path: Path, kind: str, settings: dict[str, Any]
) -> None:
    push("drawings", drawings(60, matches=2))
    load_clip(f"timm/{kind}#scratch", seed=1, options=ModelOptions(image_size=32)).save_folder(tmp_path / "model")

    common = {"train_data": "drawings", "check_pairs": False, "learning_rate": 3e-4}
    run = start("tuned", tmp_path / "model", epochs=4, **{**common, **settings})
    for stage in STAGES:
        run_stage(stage, "tuned")
    further = start("further", "tuned", **common, epochs=1)
    for stage in STAGES:
        run_stage(stage, "further")

    assert run.load().state == further.load().state == "FINISHED"
    assert run.load().artifact.max_difference < 1e-5
    assert {"config.json", "model.safetensors", "README.md", "manifest.json"} <= run.load().artifact.files.keys()
    shutil.copytree(run.artifact, tmp_path / "copy")
    assert ancestors(str(tmp_path / "copy"))[-1].reference == run.reference

    document = SearchDocument(image=picture("red"))
    embed(load_encoder("tuned", "cpu"), [document])
    if settings.get("model_options", {}).get("pooler") != "gem":
        model = timm.create_model(f"local-dir:{run.artifact}", pretrained=True).eval()
        preprocess = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
        with torch.no_grad():
            alone = torch.nn.functional.normalize(model(preprocess(decode(picture("red")))[None]), dim=-1)[0]
        torch.testing.assert_close(torch.tensor(document.embedding), alone, rtol=0, atol=1e-5)
    else:
        clip = load_clip(str(run.artifact))
        assert clip.encode_images(to_pixels(decode(picture("red")), clip.resize)[None]).shape == (1, 16)
