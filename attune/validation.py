"""Everything about a run that can be known to be wrong before it starts."""

from typing import Any

from torch import nn

from attune.callback_settings import EarlyStopping
from attune.config import check_settings
from attune.data import store
from attune.data.idle import unasked
from attune.data.loss_data import check_labels, check_loss, learns_from_labels, learns_twice, sizes_of
from attune.data.pairs import load_pairs
from attune.data.part_kinds import check_dimensions, check_grades, check_kinds
from attune.data.parts import load_parts
from attune.errors import SettingsError
from attune.evaluation.measure import check_alike
from attune.evaluation.zero_shot import templates
from attune.kinds import Kind
from attune.losses.cost import check_cost
from attune.losses.make import make_loss
from attune.losses.table import needs_classes
from attune.losses.trial import try_loss
from attune.models.checkpointing import checkpoint_gradients
from attune.models.clip import config_of
from attune.models.options import changed_config, check_options, sized
from attune.models.shell import shell
from attune.models.source import find_model
from attune.models.trainable import choose_trainable
from attune.runs.folder import LONGEST_DESCRIPTION, RunFolder
from attune.runs.models import locate
from attune.schemas import FinetuningRun
from attune.service.roots import request_roots
from attune.settings import EVALUATION, FinetuningSettings
from attune.training.continuing import check_continues, origin
from attune.training.loggers.check import check_loggers
from attune.training.optimizer import check_options as check_optimizer_options
from attune.training.recipe import batch_size_of, loss_of
from attune.training.watches import belonging


def validate(run: FinetuningRun) -> dict[str, Any]:
    """Checks a run's settings, data and models.

    Returns:
        The run's fields to set: the settings with every default written out, and the data's fingerprints.

    Raises:
        SettingsError, ModelError, DataError: what is wrong, and what to do.
    """
    settings: FinetuningSettings = check_settings(run.settings)
    if len(run.description) > LONGEST_DESCRIPTION:
        raise SettingsError(f"The description has {len(run.description):,} characters, more than {LONGEST_DESCRIPTION:,}")
    # Those that a run has no use for are refused in it, and so not written out either.
    complete = settings.model_dump(mode="json", include=None if settings.trains else set(EVALUATION))
    if settings.eval_data:
        complete.pop("eval_split", None)
    if settings.val_data:
        complete.pop("val_split", None)
    if settings.scheduler_options.num_warmup_steps is not None:
        complete.pop("warmup_ratio", None)
    if settings.callbacks_of(EarlyStopping):
        complete.pop("early_stopping_patience", None)
    for model in (settings.model, settings.baseline):
        if model is not None:
            locate(model)
    if settings.trains:
        _check_model(settings)
    check_optimizer_options(settings.optimizer, settings.optimizer_options)
    check_optimizer_options(settings.loss_optimizer, settings.loss_optimizer_options, "loss_optimizer_options")
    if settings.loss != "auto":
        make_loss(settings.loss, settings.loss_options, settings.miner, settings.miner_options)
    earlier = origin(settings) if settings.trains else None
    if earlier and locate(settings.model) == str(earlier.artifact):  # not the path of a copy
        complete |= {"model": earlier.reference, "model_artifact": earlier.reference}
    check_loggers(settings)
    templates(settings.prompt_templates, request_roots())
    train, evaluation, retention, validation = map(
        _fingerprint, (settings.train_data, settings.eval_data, settings.retention_data, settings.val_data)
    )
    parts = load_parts(settings, train, evaluation, retention, validation)
    dimension = parts.test.dimension
    named = {name for callback in settings.evaluations for name in (callback.query_data, callback.searched)}
    watched = {name: _fingerprint(name) for name in sorted(named)}
    looked_at = {name: load_pairs(fingerprint) for name, fingerprint in watched.items()}
    check_kinds(parts, settings, {name: pairs.kind for name, pairs in looked_at.items()})
    check_dimensions(parts, settings, {name: pairs.dimension for name, pairs in looked_at.items()})
    for model in filter(None, (settings.model, settings.baseline)):
        for kind in dict.fromkeys((parts.test.kind, parts.train.kind)):
            _check_towers(model, kind, dimension)
    if settings.trains:
        for name in unasked(parts.train, settings):
            complete.pop(name, None)
    check_grades(parts, settings, looked_at)
    bare = _shell(settings, dimension) if settings.trains else None
    if settings.trains:
        check_loss(parts.train, settings)
    if bare is not None:
        loss_of(settings, bare, parts.train)
    for part in filter(None, (parts.test, parts.validation if settings.trains else None, parts.retention)):
        check_alike(part)
    if settings.trains and learns_twice(parts.train, settings):
        _check_dropout(settings, bare)
    labelled = settings.sampler == "class" or needs_classes(settings.loss, settings.loss_options)
    if labelled or learns_from_labels(parts.train, settings):
        check_labels(parts.train, settings)
    if settings.trains and settings.loss != "auto":
        sizes = sizes_of(parts.train, settings, batch_size_of(settings, len(set(parts.train.groups))))
        check_cost(settings.loss, settings.loss_options, settings.miner, sizes)
        try_loss(settings.loss, settings.loss_options, settings.miner, settings.miner_options, sizes)
    for callback in settings.evaluations:
        belonging(callback, looked_at[callback.query_data], looked_at[callback.searched])
    if settings.trains and (tower := parts.train.kind.left_out):
        complete[f"lock_{tower}"] = True  # nothing goes through it
    if earlier and settings.continue_optimizer and bare is not None:
        _check_continues(earlier, settings, bare, parts.train.kind)
    if settings.trains and find_model(locate(settings.model)).library == "mlp":
        complete["model_options"]["input_dim"] = dimension
    return {
        "settings": complete,
        "train_fingerprint": train,
        "eval_fingerprint": evaluation,
        "val_fingerprint": validation,
        "retention_fingerprint": retention,
        "callback_fingerprints": watched,
    }


def _check_model(settings: FinetuningSettings) -> None:
    source, options = find_model(locate(settings.model)), settings.model_options
    if source.library == "mlp" and settings.train_data:
        dimension = store.describe(settings.train_data).dimension
        if dimension and options.input_dim not in (None, dimension):
            raise SettingsError(
                f"model_options.input_dim = {options.input_dim}: the embeddings of {settings.train_data!r} have {dimension} "
                "numbers. Leave it out"
            )
        if not config_of(source)["input_dim"]:  # else it takes what it was trained on, and that is compared with the data
            options = sized(options, source.library, dimension)
    config = config_of(source)
    check_options(config, options)
    model = shell(changed_config(config, options)) if options.gradient_checkpointing else None
    if model is not None:
        locked = {"image": settings.lock_image, "text": settings.lock_text}
        checkpoint_gradients(model, [tower for tower in source.towers if not locked[tower]])


def _shell(settings: FinetuningSettings, dimension: int) -> Any:
    """The model without its weights, see `attune.models.shell.shell`; None where a hub's text tower is not known yet."""
    source = find_model(locate(settings.model))
    return shell(changed_config(config_of(source), sized(settings.model_options, source.library, dimension)))


def _check_continues(earlier: RunFolder, settings: FinetuningSettings, model: nn.Module, kind: Kind) -> None:
    """Raises if the earlier run's optimizer's state is one of other weights."""
    locked = (settings.lock_image or kind.left_out == "image", settings.lock_text or kind.left_out == "text")
    choose_trainable(model, *locked, settings.train_last_blocks)
    check_continues(earlier, model, settings.optimizer)


def _check_dropout(settings: FinetuningSettings, model: nn.Module | None) -> None:
    """Raises if a model's text tower embeds a text alike each time, so that there is nothing to learn from."""
    # A hub's text tower of a CLIP is known once it is fetched; those that there are have dropout.
    tower = getattr(model, "text", model)  # a CLIP's own parts, where it has no tower of that name, drop out nothing
    if tower is not None and not any(isinstance(part, nn.Dropout) and part.p > 0 for part in tower.modules()):
        raise SettingsError(
            f"loss = {settings.loss!r} embeds each text of {settings.train_data!r} twice, and what differs is what a model "
            f"drops out, but {settings.model!r} drops out nothing. Choose a text encoder such as BERT "
            "(`client models --task text-to-text`), or give labels or captions to learn from"
        )


def _check_towers(model: str, kind: Kind, dimension: int) -> None:
    """Raises if a model has no tower for the data's items, or for their captions, or takes no embeddings where these are."""
    source = find_model(locate(model))
    towers = source.towers
    takes = config_of(source)["input_dim"] if source.library == "mlp" else None
    if takes is None and dimension:
        raise SettingsError(
            f"model = {model!r} embeds {'s and '.join(towers)}s, and the data holds embeddings that another model made. "
            "Train an `mlp` on them, or push the pictures or texts themselves"
        )
    if takes is not None and not dimension:
        raise SettingsError(
            f"model = {model!r} takes embeddings that another model made, and the data holds {kind.items}. Push their "
            "embeddings, or choose a model of the catalogue (`client models`)"
        )
    if takes and takes != dimension:
        raise SettingsError(
            f"model = {model!r} takes embeddings of {takes} numbers, and those of the data have {dimension}. Give "
            "embeddings of the model that it was trained on, or begin with `mlp`"
        )
    if {kind.tower, kind.caption_tower} - {*towers}:
        raise SettingsError(
            f"model = {model!r} embeds {' and '.join(towers)}s alone, and the data holds {kind.data}. Choose a CLIP for "
            "pictures with captions (`client models --task text-to-image`), or push data of what it embeds"
        )


def _fingerprint(dataset: str | None) -> str:
    return store.describe(dataset).fingerprint if dataset else ""
