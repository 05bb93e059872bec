"""Whether training data is what the loss takes, and how much of it meets in a batch; before anything is loaded."""

import math

from attune.data.pairs import Pairs
from attune.errors import DataError, SettingsError
from attune.kinds import SINGLE_TEXT
from attune.losses.cost import Sizes
from attune.losses.table import LOSSES, NEED_OPTIONS, Kind, kinds_of, needs_meeting, parts_of
from attune.settings import FinetuningSettings

OF_COSINES = "CosineSimilarityLoss"
"""The loss that takes scores for cosines, and none beyond."""


def usable_losses(train: Pairs) -> list[str]:
    """The losses that learn from data like this: all that errors offer in another's place.

    Those that need options are left out: to name them alone would be refused as well.
    """
    return [name for name, kind in LOSSES.items() if name not in NEED_OPTIONS and _is_usable(name, kind, train)]


def _is_usable(name: str, kind: Kind, train: Pairs) -> bool:
    if kind.twice:
        return train.kind is SINGLE_TEXT
    labelled = all(train.labels) and len(set(train.labels)) > 1
    if train.kind.is_single:
        return kind.alone and labelled
    if train.is_graded:
        return kind.data == "score" and (name != OF_COSINES or not _no_cosines(train))
    with_margins = bool(train.margins) and all(train.margins)
    return (
        (kind.data == "" or (kind.data == "margin" and with_margins))
        and (kind.negatives or not train.negatives)
        and (labelled or not kind.classes)
    )


def _use(train: Pairs) -> str:
    """What to do: use one of the losses that the data is for, or give the data that any takes."""
    able = usable_losses(train)
    if able:
        return f"use one of: {', '.join(able)}"
    return f"give all {train.kind.items} labels, two different ones at least, which is what losses learn from here"


def _no_cosines(train: Pairs) -> list[float]:
    """The scores that no cosine can have."""
    return [score for scores in train.scores for score in scores if not -1 <= score <= 1]


def check_labels(train: Pairs, settings: FinetuningSettings) -> None:
    """Passes if every training picture has a label, and there are two at least.

    Raises:
        DataError: with what is missing.
    """
    item, items = train.kind.item, train.kind.items
    of_sampler = settings.sampler == "class"
    what = f"sampler = {settings.sampler!r}" if of_sampler else f"loss = {settings.loss!r}"
    able = usable_losses(train)
    other = "set sampler to random" if of_sampler else f"use one of: {', '.join(able)}"
    instead = f", or {other}" if of_sampler or able else ""
    without = sum(not label for label in train.labels)
    if without:
        raise DataError(
            f"{what} takes a label for every {item}, and {without} of the {len(train)} training {items} of "
            f"{settings.train_data!r} have none. Push them with a column `label`{instead}"
        )
    if len(set(train.labels)) < 2:
        raise DataError(
            f"{what}: all {items} of {settings.train_data!r} have the label {train.labels[0]!r}. Two are needed: push some "
            f"of another class{instead}"
        )


def check_loss(train: Pairs, settings: FinetuningSettings) -> None:
    """Passes if what the data has, captions, scores, negatives or margins, is what the loss takes.

    Raises:
        DataError: if the loss takes what the data has not.
        SettingsError: if the loss is not for such data, with those that are.
    """
    kinds, item, items = kinds_of(settings.loss, settings.loss_options), train.kind.item, train.kind.items
    what, data = f"loss = {settings.loss!r}", repr(settings.train_data)
    wanted = {kind.data for kind in kinds}
    _check_single(train, settings)
    _check_sampler(train, settings)
    if train.is_graded and wanted - {"score"}:
        raise SettingsError(
            f"{what} takes captions for right answers, and those of {data} have scores: one with a low score is none. Push "
            f"the right ones alone, without scores, or {_use(train)}"
        )
    if not train.is_graded and "score" in wanted:
        raise DataError(
            f"{what} takes a score for every caption, and {data} has none. Push it with a column `score`, or {_use(train)}"
        )
    if "margin" in wanted and not (train.margins and all(train.margins)):
        with_margins = sum(map(bool, train.margins))
        raise DataError(
            f"{what} takes a negative with a margin for every {item}, and {with_margins} of the {len(train)} training "
            f"{items} of {data} have one. Push it with columns `negative` and `margin`, or {_use(train)}"
        )
    if train.negatives and not all(kind.negatives for kind in kinds):
        raise SettingsError(f"{what} has no use for the negatives of {data}. Push it without them, or {_use(train)}")
    outside = _no_cosines(train)
    if outside and OF_COSINES in (part.name for part in parts_of(settings.loss, settings.loss_options)):
        raise DataError(
            f"{what}: {len(outside)} scores of {data} are not from -1 to 1 (such as {outside[0]:g}), as cosines are. "
            "Push them divided by the highest one there can be, or use CoSENTLoss, which takes them as they are"
        )


def _check_single(train: Pairs, settings: FinetuningSettings) -> None:
    """Refuses losses over items and captions where there are no captions, and those over single texts where there are."""
    kinds, what = kinds_of(settings.loss, settings.loss_options), f"loss = {settings.loss!r}"
    twice = [name for name, kind in LOSSES.items() if kind.twice]
    named = f"{settings.train_data!r} holds {train.kind.data}"
    part = settings.loss not in ("auto", *twice)
    use = _use(train)
    if any(kind.twice for kind in kinds) and (train.kind is not SINGLE_TEXT or part):
        by_itself = f", and {', '.join(twice)} is no part of another loss" * part
        raise SettingsError(
            f"{what} takes single texts, whose other embedding is all that belongs to them{by_itself}; {named}. "
            f"{use[0].upper()}{use[1:]}"
        )
    if train.kind.is_single and not all(kind.alone or kind.twice for kind in kinds):
        raise SettingsError(f"{what} compares items with what belongs to them, and {named}. {use[0].upper()}{use[1:]}")


def _check_sampler(train: Pairs, settings: FinetuningSettings) -> None:
    """Refuses other ways to make batches where the sampler that `auto` takes is that of classes."""
    for name in ("hard_negatives", "images_per_epoch"):
        if takes_class_sampler(train, settings) and (value := getattr(settings, name)):
            raise SettingsError(
                f"{name} = {value:g}: loss = {settings.loss!r} learns where {train.kind.items} of a label meet, in batches "
                "that pass over all of them. Leave it out, or set sampler to random"
            )


def takes_class_sampler(train: Pairs, settings: FinetuningSettings) -> bool:
    """Whether the sampler is that of classes by itself."""
    alone = learns_from_labels(train, settings)
    meet = (alone and settings.loss == "auto") or needs_meeting(settings.loss, settings.loss_options, alone)
    return settings.sampler == "auto" and meet


def usual_loss(train: Pairs) -> str:
    """What `auto` is for data; `CLIPLoss` stands for `SigLIPLoss` too, which is for models that were trained with it."""
    if train.kind.is_single:
        return "TripletMarginLoss" if any(train.labels) else "SimCSELoss"
    return "CoSENTLoss" if train.is_graded else "CLIPLoss"


def learns_from_labels(train: Pairs, settings: FinetuningSettings) -> bool:
    """Whether items are single ones, which labels tell apart."""
    return train.kind.is_single and not learns_twice(train, settings)


def learns_twice(train: Pairs, settings: FinetuningSettings) -> bool:
    """Whether items are single ones, each embedded twice: what belongs to one is its other embedding."""
    if settings.loss == "auto":
        return train.kind.is_single and not any(train.labels)
    return any(kind.twice for kind in kinds_of(settings.loss, settings.loss_options))


def sizes_of(train: Pairs, settings: FinetuningSettings, batch_size: int) -> Sizes:
    """How much of the training data meets in a batch of so many pictures."""
    each = 0.0 if learns_from_labels(train, settings) else 1.0
    if settings.multi_positive:
        each = (len(train.texts) + len(train.wrong_texts)) / len(train)
    elif train.negatives:
        each = 2.0
    lengths, classes = 1 + len(settings.model_options.matryoshka_dims), max(1, len(set(train.labels)))
    if settings.sampler == "class" or takes_class_sampler(train, settings):
        classes = min(classes, math.ceil(batch_size / settings.num_items_per_class))  # the others are in other batches
    return Sizes(batch_size, math.ceil(batch_size * each), classes, lengths)
