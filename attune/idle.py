"""What is set and would do nothing, as tables: so nothing that is asked for is passed over in silence.

`IDLE` has what other settings leave nothing to do; what the data leaves nothing to do stands in `attune.data.idle`.
"""

from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any, NamedTuple

from attune.losses.table import has_weights, kinds_of
from attune.settings import FinetuningSettings


class Idle(NamedTuple):
    """Settings that do nothing in some runs.

    Attributes:
        names: theirs; of one within another as `scheduler_options.power`.
        where: takes the run's settings, and the data in a table about data; whether they do nothing there.
        why: goes on from a setting and its value. `{settings.loss!r}` and `{data.kind.items}` are filled in.
        instead: what can be done other than to leave them out.
        harmless: values that ask for what is done anyway. A default is another one: settings are read as they were
            written out, too, with all defaults.
        always: whether the default asks for something as well where somebody gave it; it must not be written out then.
    """

    names: tuple[str, ...]
    where: Callable[..., bool]
    why: str
    instead: str = ""
    harmless: tuple[Any, ...] = ()
    always: bool = False

    def asks(self, settings: FinetuningSettings, name: str) -> bool:
        """Whether a setting asks for something."""
        *outer, field = name.split(".")
        holder = reduce(getattr, outer, settings)
        value, default = getattr(holder, field), type(holder).model_fields[field].get_default(call_default_factory=True)
        given = field in holder.model_fields_set
        return given and value not in self.harmless and (self.always or value != default)

    def describe(self, settings: FinetuningSettings, name: str, data: Any = None) -> str:
        """One line: the setting, its value, why it does nothing, what to do."""
        value = reduce(getattr, name.split("."), settings)
        why = self.why.format(settings=settings, data=data)
        return f"{name} = {repr(value)[:200]} {why}. Leave it out{f', or {self.instead}' if self.instead else ''}"


def idle(table: Iterable[Idle], settings: FinetuningSettings, *data: Any) -> dict[str, str]:
    """By name, what is wrong with each setting that asks for something and would do nothing.

    Args:
        table: of such settings.
        settings: of a run.
        *data: what the table is about besides: the data, in `attune.data.idle`.
    """
    found: dict[str, str] = {}
    for row in table:
        for name in row.names:
            if name not in found and row.asks(settings, name) and row.where(settings, *data):
                found[name] = row.describe(settings, name, *data)
    return found


IDLE = (
    Idle(
        ("retention_max_drop",),
        lambda settings: settings.retention_data is None,
        "is the most that may be lost on retention_data, and there is none",
        "name retention_data",
    ),
    Idle(
        ("num_items_per_class",),
        lambda settings: settings.sampler not in ("auto", "class"),
        "is for batches in which classes meet, and those of sampler = {settings.sampler!r} do not go by classes",
        "set sampler to class",
    ),
    Idle(
        ("sampler",),
        lambda settings: settings.sampler == "image-unique" and settings.multi_positive,
        "takes each picture with one of its captions, and multi_positive with all",
        "set multi_positive to false",
    ),
    Idle(
        ("loss_optimizer", "loss_optimizer_options", "loss_learning_rate"),
        lambda settings: not has_weights(settings.loss, settings.loss_options),
        "is for weights that a loss has of its own, and loss = {settings.loss!r} has none",
        "use a loss that has, such as ArcFaceLoss",
    ),
    Idle(
        ("logit_scale",),
        lambda settings: settings.loss != "auto" and not learns_scale(settings.loss, settings.loss_options),
        "is how the model's temperature learns, and loss = {settings.loss!r} teaches it nothing",
        "use CLIPLoss or SigLIPLoss",
        harmless=("frozen",),
    ),
    Idle(
        ("self_distillation",),
        lambda settings: settings.loss != "auto" and not can_be_taught(settings.loss, settings.loss_options),
        "is a share of the target of CLIPLoss, and loss = {settings.loss!r} has no such target",
        "use CLIPLoss",
        harmless=(0,),
    ),
    Idle(
        ("self_distillation",),
        lambda settings: settings.ema_decay == 0,
        "is learnt from the running average of the weights, and ema_decay = 0 keeps none",
        "raise ema_decay",
        harmless=(0,),
    ),
    Idle(
        ("warmup_ratio",),
        lambda settings: settings.scheduler == "constant",
        "asks for a warm-up, and scheduler = 'constant' has none",
        "use constant_with_warmup",
        harmless=(0,),
    ),
    Idle(
        ("scheduler_options.num_training_steps", "scheduler_options.scheduler_step"),
        lambda settings: settings.scheduler in ("constant", "constant_with_warmup"),
        "is about a rate that changes, and with scheduler = {settings.scheduler!r} it stays",
        "use another scheduler",
    ),
    Idle(
        ("hard_negatives",),
        lambda settings: settings.epochs != "auto" and int(settings.epochs * settings.hard_negatives) == 0,
        "is a share of the epochs, and of {settings.epochs} it is less than one",
        "raise it, or epochs",
    ),
    Idle(
        ("processes",),
        lambda settings: settings.processes != "auto" and settings.processes < len(settings.gpus),
        "is less than the GPUs of devices = {settings.devices!r}, each of which takes a process of its own",
        "name fewer GPUs",
    ),
    Idle(
        ("devices",),
        lambda settings: not settings.trains and len(settings.gpus) > 1,
        "names several GPUs, and a run that only evaluates has work for one",
        "name one",
    ),
)


def learns_scale(loss: str, options: dict[str, Any]) -> bool:
    """Whether a loss teaches the model's temperature anything."""
    return any(kind.scaled for kind in kinds_of(loss, options))


def can_be_taught(loss: str, options: dict[str, Any]) -> bool:
    """Whether what a teacher finds can be a part of a loss's target."""
    return any(kind.taught for kind in kinds_of(loss, options))
