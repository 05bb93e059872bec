"""What is set and would do nothing with the data it is set for; see `attune.idle`."""

from attune.data.loss_data import takes_class_sampler, usual_loss
from attune.data.pairs import Pairs
from attune.idle import Idle, can_be_taught, learns_scale
from attune.kinds import IMAGE
from attune.losses.table import kinds_of
from attune.settings import FinetuningSettings

LEARNT = (
    Idle(
        ("augmentation", "horizontal_flip"),
        lambda _, train: train.kind.of_texts or train.kind.of_embeddings,
        "changes pictures",
        harmless=("none", 0),
    ),
    Idle(
        ("model_options.image_size",),
        lambda _, train: train.kind.of_texts or train.kind.of_embeddings,
        "is of pictures",
    ),
    Idle(
        ("model_options.context_length",),
        lambda _, train: not (train.kind.of_texts or train.kind.has_texts),
        "is of texts",
    ),
    Idle(("word_dropout", "caption_mixing"), lambda _, train: not train.kind.has_texts, "changes captions"),
    Idle(
        ("multi_positive",),
        lambda _, train: train.kind.is_single,
        "takes all captions of a {data.kind.item}, and {data.kind.items} have none here",
    ),
    Idle(
        ("multi_positive",),
        lambda _, train: _most(train.captions) < 2 and _most(train.negatives) < 2,
        "is for several {data.kind.captions} of a {data.kind.item}, and no {data.kind.item} has more than one",
    ),
    Idle(
        ("caption_mixing",),
        lambda _, train: _most(train.captions) < 2,
        "joins two {data.kind.captions} of a {data.kind.item}, and no {data.kind.item} has more than one",
    ),
    Idle(
        ("mask_duplicates",),
        lambda _, train: train.kind.is_single,
        "is about captions that fit other {data.kind.items} too, and {data.kind.items} have none here: their labels alone "
        "say which belong together",
        always=True,
    ),
    Idle(
        ("mask_duplicates",),
        lambda settings, train: not any(kind.picks or kind.masks for kind in kinds_of(*_loss(train, settings))),
        "is about negatives that are none, and loss = {settings.loss!r} looks at no such pairs",
        always=True,
    ),
    Idle(
        ("check_pairs",),
        lambda _, train: train.kind.is_single,
        "is about captions that do not fit their {data.kind.items}, and {data.kind.items} have none here",
        always=True,
    ),
    Idle(
        ("check_pairs",),
        lambda _, train: train.is_graded,
        "is about {data.kind.captions} that do not fit their {data.kind.items}, and here scores say how well each fits",
        always=True,
    ),
    Idle(
        ("num_items_per_class",),
        lambda settings, train: settings.sampler == "auto" and not takes_class_sampler(train, settings),
        "is for batches in which classes meet, and with loss = {settings.loss!r} the batches do not go by classes",
        "set sampler to class",
    ),
    Idle(
        ("logit_scale",),
        lambda settings, train: not learns_scale(*_loss(train, settings)),
        "is how the model's temperature learns, and the loss of {data.kind.data} like these teaches it nothing",
        "name a loss that does",
        harmless=("frozen",),
    ),
    Idle(
        ("self_distillation",),
        lambda settings, train: not can_be_taught(*_loss(train, settings)),
        "is a share of the target of CLIPLoss, and the loss of {data.kind.data} like these is another one",
        harmless=(0,),
    ),
)
"""Of what is trained on."""

MEASURED = (
    Idle(("prompt_templates",), lambda _, test: test.kind is not IMAGE, "are for pictures with captions"),
    Idle(
        ("prompt_templates",),
        lambda _, test: not any(test.labels),
        "are for the names of classes, and no held-out picture has a label",
    ),
)
"""Of what is measured on."""


def unasked(train: Pairs, settings: FinetuningSettings) -> list[str]:
    """The settings that do nothing and whose default says that they do: they are not written out as if they did.

    Args:
        train: what is trained on.
        settings: of the run.
    """
    return [name for row in LEARNT if row.always and row.where(settings, train) for name in row.names]


def _most(texts: list[list[str]]) -> int:
    """How many of them an item has at most."""
    return max(map(len, texts), default=0)


def _loss(train: Pairs, settings: FinetuningSettings) -> tuple[str, dict[str, object]]:
    """The loss's name, if it is `auto` the one that it stands for, and its options."""
    return (usual_loss(train) if settings.loss == "auto" else settings.loss), settings.loss_options
