"""What `EvaluationCallback`s find while a run trains: how well queries find what belongs to them, epoch by epoch.

It is only looked at. Nothing is chosen by it, so its data may overlap with the training data, and nothing here draws a
random number or changes the model: a run trains to the same weights with it and without.
"""

import json

from attune.files import write_text
from attune.training.job import Job


def watch(job: Job, epoch: int) -> None:
    """Writes what the callbacks find of the model as it is to the run's history; only the main process has any."""
    for number, one in enumerate(job.watches, start=1):
        callback = one.callback
        with job.progress.clock("validation"):
            queries, index = (items.embed(job.clip, callback.batch_size) for items in (one.queries, one.index))
            values = one.figures(queries, index)
        name = callback.caption or f"{callback.query_data} in {callback.searched}"
        said = ", ".join(f"{key.replace('_', ' ')} {value:.4f}" for key, value in values.items())
        job.log(
            f"{name}, epoch {epoch}, first {one.limit}: {said}",
            kind="callback",
            number=number,
            epoch=epoch,
            limit=one.limit,
            **values,
        )
        if callback.gather_examples:
            found = {"name": name, "epoch": epoch, "examples": one.examples(queries, index)}
            write_text(job.folder.report / f"callback-{number}.json", json.dumps(found, indent=2, ensure_ascii=False) + "\n")
