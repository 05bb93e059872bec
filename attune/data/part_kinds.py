"""Which kinds of data go together in a run, and which settings and figures with them."""

from collections.abc import Mapping

from attune.callback_settings import Monitoring
from attune.data.idle import LEARNT, MEASURED
from attune.data.pairs import Pairs
from attune.data.parts import Parts
from attune.errors import DataError, SettingsError
from attune.idle import idle
from attune.kinds import IMAGE, KINDS, Kind
from attune.settings import FinetuningSettings


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
    wrong[kind] += [*_locked(kind, settings), *_encoders(kind, settings), *idle(MEASURED, settings, parts.test).values()]
    if settings.trains:
        wrong[learnt] += [*_locked(learnt, settings), *idle(LEARNT, settings, parts.train).values()]
    said = [
        f"The settings cannot be used with {one.data}, as {names[one]} has them:" + "".join(dict.fromkeys(problems))
        for one, lines in wrong.items()
        if (problems := [f"\n- {line}" for line in lines])
    ]
    if said:
        raise SettingsError("\n".join(said))


def check_grades(parts: Parts, settings: FinetuningSettings, watched: Mapping[str, Pairs]) -> None:
    """Passes if all that figures come from has scores, or nothing of it has.

    What is trained on may have scores and what is measured on none, or the other way round.

    Args:
        parts: of the run's data.
        settings: of the run.
        watched: by name, each dataset that callbacks look at.

    Raises:
        DataError: if some of what is measured on has scores and some has none, or all scores are the same.
        SettingsError: if a figure that is monitored is not for the data that there is.
    """
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


def _encoders(kind: Kind, settings: FinetuningSettings) -> list[str]:
    """What is wrong with callbacks that say what looks among what, where that is known."""
    if kind is IMAGE or not any(callback.model or callback.index_model for callback in settings.evaluations):
        return []
    among = kind.captions or "each other"
    return [f"callbacks name a model or an index_model, and here {kind.items} look among {among}. Leave it out"]


def _locked(kind: Kind, settings: FinetuningSettings) -> list[str]:
    """What is wrong with locking the one tower that embeds data of a kind."""
    if kind is IMAGE or not getattr(settings, f"lock_{kind.tower}"):
        return []
    what = f"lock_{kind.tower} is true: the {kind.tower} tower embeds all of it, so nothing would be left to train"
    return [f"{what}. Leave it out"]
