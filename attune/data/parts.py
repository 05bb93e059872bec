"""The three parts of a run's data: what it trains on, what chooses the checkpoint, what before and after are measured on."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from attune.callback_settings import Monitoring
from attune.data.overlap import refuse_overlap
from attune.data.pairs import Pairs, load_pairs
from attune.data.split import split_by_group
from attune.errors import DataError, SettingsError
from attune.kinds import IMAGE, KINDS, SINGLE_TEXT, Kind
from attune.losses.cost import Sizes
from attune.losses.table import ALONE, LOSSES, kinds_of, names_of, needs_meeting
from attune.settings import FinetuningSettings


@dataclass(frozen=True)
class Parts:
    """Disjoint by group.

    Attributes:
        train: pairs to learn from; empty if nothing is trained.
        validation: pairs that choose the best checkpoint; empty if nothing is trained.
        test: pairs that no decision depends on: before and after are measured here.
        retention: other pairs that the model must stay good at, if any were given.
    """

    train: Pairs
    validation: Pairs
    test: Pairs
    retention: Pairs | None = None


def load_parts(
    settings: FinetuningSettings,
    train_fingerprint: str,
    eval_fingerprint: str = "",
    retention_fingerprint: str = "",
    val_fingerprint: str = "",
) -> Parts:
    """Splits a run's data, the same way every time.

    Args:
        settings: of the run.
        train_fingerprint: content of `train_data`, or empty: then all of `eval_data` is the test part.
        eval_fingerprint: content of `eval_data`, or empty.
        retention_fingerprint: content of `retention_data`, or empty.
        val_fingerprint: content of `val_data`, or empty.

    Raises:
        DataError: if a part would be too small, or pictures or groups of one are in another.
    """
    if not settings.trains:
        whole = _load_measured("eval_data", eval_fingerprint, settings)
        return Parts(whole.take([]), whole.take([]), whole)
    pairs = load_pairs(train_fingerprint)
    given = {"train_data": pairs}
    for name, fingerprint in (("eval_data", eval_fingerprint), ("val_data", val_fingerprint)):
        if fingerprint:
            given[name] = _load_measured(name, fingerprint, settings)
    refuse_overlap(given, {name: getattr(settings, name) for name in given})
    test, validation = given.get("eval_data"), given.get("val_data")
    if test is None:
        rest, held_out = _split(pairs, settings.eval_split, settings, seed=settings.seed)
        pairs, test = pairs.take(rest), pairs.take(held_out)
    if validation is None:
        rest, held_out = _split(pairs, settings.val_split, settings, seed=settings.seed + 1)
        pairs, validation = pairs.take(rest), pairs.take(held_out)
    retention = load_pairs(retention_fingerprint) if retention_fingerprint else None
    return Parts(pairs, validation, test, retention)


def check_labels(train: Pairs, settings: FinetuningSettings) -> None:
    """Passes if every training picture has a label, and there are two at least.

    Raises:
        DataError: with what is missing.
    """
    item, items = train.kind.item, train.kind.items
    what = f"sampler = {settings.sampler!r}" if settings.sampler == "class" else f"loss = {settings.loss!r}"
    without = sum(not label for label in train.labels)
    if without:
        raise DataError(
            f"{what} takes a label for every {item}, and {without} of the {len(train)} training {items} of "
            f"{settings.train_data!r} have none. Push them with a column `label`, or choose another"
        )
    if len(set(train.labels)) < 2:
        raise DataError(f"{what}: all {items} of {settings.train_data!r} have the label {train.labels[0]!r}. Two are needed")


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
    lengths = 1 + len(settings.model_options.matryoshka_dims)
    return Sizes(batch_size, math.ceil(batch_size * each), max(1, len(set(train.labels))), lengths)


def check_lists(parts: Parts, settings: FinetuningSettings, watched: Mapping[str, Pairs]) -> None:
    """Passes if what the data has besides pairs, scores, negatives or margins, is what the loss takes and figures come from.

    What is trained on may have scores and what is measured on none, or the other way round.

    Args:
        parts: of the run's data.
        settings: of the run.
        watched: by name, each dataset that callbacks look at.

    Raises:
        DataError: if some of what is measured on has scores and some has none, or the loss takes what the data has not.
        SettingsError: if the loss, or a figure that is monitored, is not for the data that there is.
    """
    _check_grades(parts, settings, watched)
    if settings.trains:
        _check_loss(parts.train, settings)


def _check_grades(parts: Parts, settings: FinetuningSettings, watched: Mapping[str, Pairs]) -> None:
    graded = parts.test.is_graded
    data = _measured(parts, settings)
    with_scores, without = ([repr(name) for name, pairs in data.items() if pairs.is_graded is has] for has in (True, False))
    if with_scores and without:
        raise DataError(
            f"The captions of {', '.join(with_scores)} have scores and those of {', '.join(without)} have none: the ones "
            "are judged by correlation with the scores, the others by retrieval. Give data of one kind, and a run to each"
            f"{_or_both({name: pairs.is_graded for name, pairs in data.items()}, settings)}"
        )
    scored = ", ".join(repr(name) for name, pairs in watched.items() if pairs.is_graded)
    if scored:
        raise SettingsError(
            f"callbacks: the captions of {scored} have scores and are no right answers, so queries have none to find. Leave "
            "the evaluation callback out"
        )
    of_scores = ("spearman", "pearson")
    for callback in settings.callbacks_of(Monitoring):
        if graded and callback.monitor not in (*of_scores, "train_loss"):
            raise SettingsError(
                f"callbacks: monitor = {callback.monitor!r} is no figure of data whose captions have scores. Its figures "
                f"are {' and '.join(of_scores)}, and train_loss to stop by"
            )
        if not graded and callback.monitor in of_scores:
            raise SettingsError(
                f"callbacks: monitor = {callback.monitor!r} is a figure of captions with scores, and these have none"
            )
    for pairs, what in ((parts.test, "held-out"), (parts.validation, "validation"), (parts.train, "training")):
        if pairs.is_graded and len(pairs) and len({score for scores in pairs.scores for score in scores}) < 2:
            raise DataError(
                f"All {what} captions have the score {pairs.scores[0][0]:g}: there is no order to learn, or to compare "
                "with. Push data with different scores"
            )


def _check_loss(train: Pairs, settings: FinetuningSettings) -> None:
    kinds, item, items = kinds_of(settings.loss, settings.loss_options), train.kind.item, train.kind.items
    what, data = f"loss = {settings.loss!r}", repr(settings.train_data)
    wanted = {kind.data for kind in kinds}
    _check_single(train, settings)
    losses = {of: ", ".join(name for name, kind in LOSSES.items() if kind.data == of) for of in ("score", "margin", "")}
    if train.is_graded and wanted - {"score"}:
        raise SettingsError(
            f"{what} takes captions for right answers, and those of {data} have scores: one with a low score is none. Use "
            f"one of: {losses['score']}; or push the right ones alone, without scores"
        )
    if not train.is_graded and "score" in wanted:
        raise DataError(
            f"{what} takes a score for every caption, and {data} has none. Push it with a column `score`, or use one of: "
            f"{losses['']}"
        )
    if "margin" in wanted and not (train.margins and all(train.margins)):
        with_margins = sum(map(bool, train.margins))
        raise DataError(
            f"{what} takes a negative with a margin for every {item}, and {with_margins} of the {len(train)} training "
            f"{items} of {data} have one. Push it with columns `negative` and `margin`, or use one of: {losses['']}"
        )
    if train.negatives and not all(kind.negatives for kind in kinds):
        able = ", ".join(name for name, kind in LOSSES.items() if kind.negatives)
        raise SettingsError(f"{what} has no use for the negatives of {data}. Push it without them, or use one of: {able}")
    outside = [score for scores in train.scores for score in scores if not -1 <= score <= 1]
    if outside and "CosineSimilarityLoss" in names_of(settings.loss, settings.loss_options):
        raise DataError(
            f"{what}: {len(outside)} scores of {data} are not from -1 to 1 (such as {outside[0]:g}), as cosines are. "
            "Push them divided by the highest one there can be, or use CoSENTLoss, which takes them as they are"
        )


def _check_single(train: Pairs, settings: FinetuningSettings) -> None:
    """Refuses losses over items and captions where there are no captions, and those over single texts where there are."""
    kinds, what = kinds_of(settings.loss, settings.loss_options), f"loss = {settings.loss!r}"
    twice = [name for name, kind in LOSSES.items() if kind.twice]
    paired = [name for name, kind in LOSSES.items() if not kind.twice]
    named = f"{settings.train_data!r} holds {train.kind.data}"
    if any(kind.twice for kind in kinds) and (train.kind is not SINGLE_TEXT or len(kinds) > 1):
        by_itself = ", and is no part of another loss" if len(kinds) > 1 else ""
        raise SettingsError(
            f"{what} takes single texts, whose other embedding is all that belongs to them{by_itself}; {named}. Use one of: "
            f"{', '.join(ALONE if train.kind.is_single else paired)}"
        )
    if train.kind.is_single and not all(kind.alone or kind.twice for kind in kinds):
        able = ", ".join(ALONE)
        of_texts = f", or {', '.join(twice)}, which takes no labels" if train.kind.of_texts else ""
        raise SettingsError(f"{what} compares items with what belongs to them, and {named}. Use one of: {able}{of_texts}")
    meet = settings.loss == "auto" or needs_meeting(settings.loss, settings.loss_options, alone=True)
    if learns_from_labels(train, settings) and meet and settings.sampler == "auto" and settings.hard_negatives:
        raise SettingsError(
            f"hard_negatives = {settings.hard_negatives:g} makes batches of look-alikes, and {named}, of which those of a "
            "label have to meet. Leave it out, or set sampler to random"
        )
    if train.kind.is_single and settings.multi_positive:
        raise SettingsError(f"multi_positive takes all captions of a {train.kind.item}, and {named}. Leave it out")


def check_kinds(parts: Parts, settings: FinetuningSettings, watched: Mapping[str, Kind]) -> None:
    """Passes if figures come from data of one kind, and no setting asks for what there is not with it.

    What is trained on may be of another kind if the same tower embeds its items.

    Args:
        parts: of the run's data.
        settings: of the run.
        watched: by name, the kind of each dataset that callbacks look at.

    Raises:
        DataError: if there are several kinds, or another tower would be trained than is measured.
        SettingsError: with every setting that is for pictures or for captions alone, of a run without them.
    """
    kind, learnt = parts.test.kind, parts.train.kind
    data = {name: pairs.kind for name, pairs in _measured(parts, settings).items()} | dict(watched)
    names = {one: ", ".join(repr(name) for name, other in data.items() if other is one) for one in KINDS}
    first, *others = [f"{named} holds {one.data}" for one, named in names.items() if named]
    if others:
        one_tower = all(other.goes_with(kind) for other in data.values())
        raise DataError(
            f"All data that a run is measured on is of one kind, but {', '.join([first, *others[:-1]])} and {others[-1]}. "
            f"Give data of one kind, and a run to each{_or_both(data, settings) if one_tower else ''}"
        )
    if not learnt.goes_with(kind):
        learner, measured = ("an `mlp`" if one.of_embeddings else f"the {one.tower} tower" for one in (learnt, kind))
        raise DataError(
            f"{settings.train_data!r} holds {learnt.data} and {first}: {learner} would learn from {learnt.items} and "
            f"{measured} be measured on {kind.items}. Train on data whose items the same tower embeds"
        )
    for callback in settings.callbacks_of(Monitoring):
        if kind.is_single and callback.monitor in ("val_loss", "mean_recall"):
            raise SettingsError(
                f"callbacks: monitor = {callback.monitor!r} is a figure of items with captions, and this holds {kind.data}. "
                f"Name another one, such as {kind.asked}_map@r"
            )
        for other in KINDS:
            if other is not kind and callback.monitor.startswith(other.directions):
                raise SettingsError(
                    f"callbacks: monitor = {callback.monitor!r} is a figure of data that holds {other.data}, and this "
                    f"holds {kind.data}. Its figures begin with {' and '.join(kind.directions)}"
                )
    names[learnt] = names[learnt] or repr(settings.train_data)
    wrong: dict[Kind, list[str]] = {kind: [], learnt: []}
    for one, found in ((kind, _not_measured(kind, settings)), (learnt, _not_learnt(learnt, settings))):
        wrong[one] += [f"\n- {problem}. Leave it out" for problem, there in found.items() if there]
    said = [
        f"The settings cannot be used with {one.data}, as {names[one]} has them:{''.join(dict.fromkeys(problems))}"
        for one, problems in wrong.items()
        if problems
    ]
    if said:
        raise SettingsError("\n".join(said))


def check_dimensions(parts: Parts, settings: FinetuningSettings, watched: Mapping[str, int]) -> None:
    """Passes if all embeddings of a run are of one length.

    Args:
        parts: of the run's data.
        settings: of the run.
        watched: by name, the length of the embeddings in each dataset that callbacks look at; 0 of others.

    Raises:
        DataError: if there are several lengths.
    """
    data = {name: pairs.dimension for name, pairs in _measured(parts, settings).items()} | dict(watched)
    if settings.train_data is not None:
        data[settings.train_data] = parts.train.dimension
    if len(set(data.values())) > 1:
        said = ", ".join(f"{name!r} of {length} numbers" for name, length in data.items())
        raise DataError(
            f"All embeddings of a run are of one length, and those here are not: {said}. Give embeddings of one model"
        )


def _measured(parts: Parts, settings: FinetuningSettings) -> dict[str, Pairs]:
    """By name, the data that figures come from; a part that is split off the training data has the name of that."""
    parts_by_name = (
        (settings.eval_data or settings.train_data, parts.test),
        (settings.val_data or settings.train_data, parts.validation if settings.trains else None),
        (settings.retention_data, parts.retention),
    )
    return {name: pairs for name, pairs in parts_by_name if name is not None and pairs is not None}


def _or_both(measured: Mapping[str, object], settings: FinetuningSettings) -> str:
    """What else helps if the training data alone is unlike the others of those measured on, as the end of a message."""
    others = {what for name, what in measured.items() if name != settings.train_data}
    if settings.train_data not in measured or len(others) > 1:
        return ""
    return (
        "; or give both eval_data and val_data: what is trained on may be of another kind if no part of it is measured on, "
        f"as one of {settings.train_data!r} would be"
    )


def _not_measured(kind: Kind, settings: FinetuningSettings) -> dict[str, bool]:
    """By what is wrong with it, whether a setting is given that does nothing where data of a kind is measured on."""
    if kind is IMAGE:
        return {}
    return _locked(kind, settings) | {
        f"prompt_templates = {settings.prompt_templates!r} are for pictures with captions": (
            settings.prompt_templates != "openai"
        ),
        f"callbacks name a model or an index_model, and here {kind.items} look among {kind.captions or 'each other'}": any(
            callback.model or callback.index_model for callback in settings.evaluations
        ),
    }


def _not_learnt(kind: Kind, settings: FinetuningSettings) -> dict[str, bool]:
    """The same of a setting that does nothing where data of a kind is trained on."""
    options = settings.model_options
    if kind is IMAGE:
        return {}
    found = _locked(kind, settings)
    if kind.of_texts or kind.of_embeddings:
        found |= {
            f"augmentation = {settings.augmentation!r} changes pictures": settings.augmentation not in ("auto", "none"),
            f"model_options.image_size = {options.image_size}": options.image_size is not None,
        }
    if not kind.of_texts:
        found |= {
            f"word_dropout = {settings.word_dropout:g} changes captions": settings.word_dropout > 0,
            f"caption_mixing = {settings.caption_mixing:g} changes captions": settings.caption_mixing > 0,
            f"model_options.context_length = {options.context_length}": options.context_length is not None,
        }
    return found


def _locked(kind: Kind, settings: FinetuningSettings) -> dict[str, bool]:
    """The same of locking the one tower that embeds data of a kind."""
    what = f"lock_{kind.tower} is true: the {kind.tower} tower embeds all of it, so nothing would be left to train"
    return {what: bool(getattr(settings, f"lock_{kind.tower}"))}


def _load_measured(setting: str, fingerprint: str, settings: FinetuningSettings) -> Pairs:
    pairs = load_pairs(fingerprint)
    if len(pairs) < 2:
        raise DataError(
            f"{setting} {getattr(settings, setting)!r} has {len(pairs)} {pairs.kind.item}; at least 2 are needed to rank any"
        )
    return pairs


def _split(pairs: Pairs, fraction: float, settings: FinetuningSettings, seed: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        return split_by_group(pairs.groups, fraction, seed, pairs.kind.items)
    except DataError as error:
        raise DataError(f"Dataset {settings.train_data!r} is too small. {error}") from error
