"""What one model makes of a run's data: every embedding that the Evaluator's figures come from."""

from dataclasses import dataclass

import numpy as np

from attune.data.parts import Parts
from attune.errors import EvaluationError
from attune.evaluation.classes import Classes
from attune.evaluation.measure import Measurement, embed_items, measure, pixels_of
from attune.evaluation.provenance import preprocessing_fingerprint, weights_fingerprint
from attune.evaluation.zero_shot import classifier, zero_shot
from attune.kinds import IMAGE, Kind
from attune.models.clip import Clip


@dataclass(frozen=True)
class Look:
    """A model's embeddings of a run's data.

    Attributes:
        test: of the held-out pictures and captions, ranked.
        retention: of the retention data, if there is any.
        scores: of the labelled held-out pictures with each class, float32 (pictures, classes), if there are classes; None
            of pairs of texts or of pictures.
        train: of the pictures a probe learns from, float32 (images, dim); None if there is nothing to learn from.
        validation: of those that choose its strength.
        weights: SHA-256 of the model's weights.
        preprocessing: SHA-256 of what it does to pictures.
    """

    test: Measurement
    retention: Measurement | None
    scores: np.ndarray | None
    train: np.ndarray | None
    validation: np.ndarray | None
    weights: str
    preprocessing: str


def look(clip: Clip, parts: Parts, classes: Classes | None, prompts: list[str]) -> Look:
    """Embeds all there is to measure.

    Args:
        clip: the model.
        parts: the run's data.
        classes: see `attune.evaluation.classes.find_classes`.
        prompts: see `attune.evaluation.zero_shot.templates`.

    Raises:
        EvaluationError: if an embedding is no number.
    """
    test = measure(clip, parts.test, pixels_of(clip, parts.test))
    _refuse_nan(clip, test, parts.test.kind)
    scores = train = validation = None
    if classes is not None and parts.test.kind is IMAGE:
        scores = zero_shot(classifier(clip, classes.names, prompts), test.images[classes.rows])
    if classes is not None and len(classes.train) and len(classes.validation):
        train, validation = (
            embed_items(clip, pairs, pixels_of(clip, pairs)) for pairs in (classes.train, classes.validation)
        )
    return Look(
        test=test,
        retention=measure(clip, parts.retention, pixels_of(clip, parts.retention)) if parts.retention else None,
        scores=scores,
        train=train,
        validation=validation,
        weights=weights_fingerprint(clip.model.state_dict()),
        preprocessing=preprocessing_fingerprint(clip.preprocess),
    )


def _refuse_nan(clip: Clip, found: Measurement, kind: Kind) -> None:
    for what, embeddings in ((kind.items, found.images), (kind.captions, found.texts)):
        bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
        if len(bad):
            raise EvaluationError(
                f"The model {clip.name!r} embeds {len(bad)} of {len(embeddings)} {what} as something that is no number (the "
                f"first is number {bad[0]}), so there is nothing to rank. Its weights are damaged: take others"
            )
