"""What reports are made of: a real run of a tiny model, measured before and after."""

from pathlib import Path

import pytest

from attune.config import check_settings
from attune.data.parts import load_parts
from attune.data.pixels import open_pixels
from attune.evaluation.measure import image_of_text, measure, split_fingerprint
from attune.models.clip import load_clip
from attune.report.material import Material
from attune.runs.folder import RunFolder, read_json
from attune.schemas import EvaluationResult, FinetuningRun


@pytest.fixture(scope="session")
def material(knowing: tuple[Path, RunFolder]) -> Material:
    """Of the run in which the tiny model learnt the shapes; intervals are made up, other figures are measured."""
    folder = knowing[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTUNE_HOME", str(folder.path.parents[2]))
        run = folder.load()
        settings = check_settings(run.settings)
        clip = load_clip(settings.model)
        test = load_parts(settings, run.train_fingerprint).test
        cache = open_pixels(test.fingerprint, clip.preprocess, clip.resize)
        measured = []
        for weights in (folder.start_weights, folder.chosen_weights):
            clip.load_weights(weights)
            measured.append(measure(clip, test, cache))
    before, after = measured
    recalls = [name for name in after.metrics if "median" not in name]
    difference = {name: after.metrics[name] - before.metrics[name] for name in recalls}
    run.evaluation = EvaluationResult(
        images=len(test),
        captions=len(image_of_text(test)),
        split_fingerprint=split_fingerprint(test),
        before=before.metrics,
        after=after.metrics,
        difference_low={name: value - 0.125 for name, value in difference.items()},
        difference_high={name: value + 0.125 for name, value in difference.items()},
        p_values=dict.fromkeys(recalls, 0.0004),
    )
    facts = {"sections": [], "warnings": [], "environment": read_json(folder.path / "environment.json")}
    return Material(run, facts, list(folder.events()), test, cache, before, after)


@pytest.fixture(scope="session")
def evaluated_only(material: Material) -> Material:
    """The same figures as of a model that was measured as it is, with nothing to compare it with."""
    run = FinetuningRun(name="as-it-is", settings={"model": "starter", "train_data": None, "eval_data": "shapes"})
    result = material.run.evaluation
    run.evaluation = result.model_copy(
        update={
            "before": {},
            "difference_low": {},
            "difference_high": {},
            "p_values": {},
            "after_low": {name: result.after[name] - 0.0625 for name in result.p_values},
            "after_high": {name: result.after[name] + 0.0625 for name in result.p_values},
        }
    )
    return Material(run, {}, [], material.test, material.cache, None, material.after)
