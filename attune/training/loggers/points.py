"""What events of a run's history come to as points of curves."""

from attune.schemas import RunEvent

_OF_A_STEP = ("loss", "learning_rate", "logit_scale", "pairs_per_second", "gpu_use", "gpu_memory_bytes")
_NO_CURVES = frozenset({"epoch", "loss", "number", "limit", "steps"})


def points_of(event: RunEvent, steps_per_epoch: int) -> tuple[int, dict[str, float]]:
    """The step, of the whole run, and the figures by their full names; none of events that have no figures.

    Names are those of the history, after `train/`, `validation/`, `average/` (of the averaged weights), `callback-1/` (of
    the first `EvaluationCallback`) or `result/`.

    Args:
        event: of the history.
        steps_per_epoch: all curves have one axis; what an epoch found stands at its last step.
    """
    values = event.values
    if event.kind == "progress":
        return int(values["step"]), {f"train/{name}": values[name] for name in _OF_A_STEP if name in values}
    figures = {name: value for name, value in values.items() if name not in _NO_CURVES}
    if event.kind == "result":
        return int(values["steps"]), {f"result/{name}": value for name, value in figures.items()}
    prefix = f"callback-{values.get('number', 0):.0f}" if event.kind == "callback" else event.kind
    if prefix not in ("validation", "average") and event.kind != "callback":
        return 0, {}
    found = {f"{prefix}/{name}": value for name, value in figures.items()}
    if event.kind == "validation" and values["epoch"]:  # the start was not trained to
        found |= {"train/epoch": values["epoch"]} | ({"train/epoch_loss": values["loss"]} if "loss" in values else {})
    return int(values["epoch"]) * steps_per_epoch, found
