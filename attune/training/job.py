"""A run ready to train: everything that is loaded or decided before the first step."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from attune.data.captions import Captions, Change
from attune.data.duplicates import Duplicates, mean_colours, picture_hashes, thumbnails
from attune.data.pairs import Pairs
from attune.data.parts import Parts, load_parts
from attune.data.pixels import PixelCache
from attune.data.words import change_captions
from attune.device import choose_device, choose_precision
from attune.evaluation.measure import embed_items, pixels_of
from attune.figures import chosen_by
from attune.kinds import TOWERS, Tower
from attune.losses.batch import EmbeddedBatch, Loss, Taught
from attune.losses.make import Scope, make_loss
from attune.losses.matryoshka import MatryoshkaLoss
from attune.models.checkpointing import checkpoint_gradients
from attune.models.clip import Clip
from attune.models.lora import add_lora, merged_state
from attune.models.trainable import choose_trainable, tower_is_frozen
from attune.runs.folder import RunFolder
from attune.runs.models import load_named
from attune.settings import FinetuningSettings
from attune.training.average import WeightAverage
from attune.training.checkpoints import Checkpoints
from attune.training.decide import decide
from attune.training.distributed import World, broadcast, current_world, gather
from attune.training.feed import Batch, Feed
from attune.training.guards import Guards
from attune.training.history import History
from attune.training.loggers.check import check_loggers
from attune.training.memory import free_caches
from attune.training.optimizer import make_loss_optimizer, make_optimizer
from attune.training.position import Position
from attune.training.progress import Progress
from attune.training.recipe import Recipe
from attune.training.towers import Towers
from attune.training.watches import Watch, load_watches


@dataclass
class Job:
    """One process's view of a run that trains.

    Attributes:
        cache: pixels of the training data, or the embeddings in their place; None of texts.
        validation_cache: those of the validation part.
        retention_cache: those of the retention data, if there is any.
        watches: what callbacks look at; only the main process does.
        history: the run's, to which only the main process writes.
        stop: tells whether training was asked to stop.
    """

    folder: RunFolder
    settings: FinetuningSettings
    recipe: Recipe
    clip: Clip
    parts: Parts
    cache: PixelCache | None
    validation_cache: PixelCache | None
    retention_cache: PixelCache | None
    feed: Feed
    towers: Towers
    criterion: Loss
    optimizer: torch.optim.Optimizer
    loss_optimizer: torch.optim.Optimizer | None
    average: WeightAverage | None
    guards: Guards
    checkpoints: Checkpoints
    watches: list[Watch]
    history: History
    progress: Progress
    world: World
    device: str
    precision: str
    stop: Callable[[], bool]
    position: Position = field(default_factory=Position)

    @property
    def log(self) -> Callable[..., None]:
        """Adds an event to the run's history."""
        return self.history.log

    @property
    def step(self) -> int:
        """Number of the step at work, from 0 for the first of the run."""
        return (self.position.epoch - 1) * self.recipe.steps_per_epoch + self.position.step

    @property
    def chosen_by(self) -> str:
        """The figure of the validation part that weights are chosen by, one of `attune.figures.CHOSEN_BY`."""
        validation = self.parts.validation
        return chosen_by(validation.kind.is_single, validation.is_graded)

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """That of the model, and that of the loss's own weights if it has any."""
        return [self.optimizer, *([self.loss_optimizer] if self.loss_optimizer is not None else [])]

    @property
    def loss_weights(self) -> list[torch.nn.Parameter]:
        """What the loss learns besides the model; empty for most losses."""
        return list(self.criterion.parameters()) if isinstance(self.criterion, torch.nn.Module) else []

    @property
    def loss_memory(self) -> list[Tensor]:
        """What the loss keeps of batches before; empty for most losses."""
        return list(self.criterion.buffers()) if isinstance(self.criterion, torch.nn.Module) else []

    def weights(self) -> dict[str, Tensor]:
        """The model's weights under the names of the plain architecture: low-rank changes are merged in."""
        return merged_state(self.clip.model) if self.settings.lora_rank else self.clip.model.state_dict()

    def clear_gradients(self) -> None:
        """Drops the gradients of the last step, and their memory."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def free_state(self) -> None:
        """Drops what only training needs: weights that are tried take as much memory."""
        for optimizer in self.optimizers:
            optimizer.state.clear()
        self.average = None
        free_caches()

    def loss(self, images: Tensor, texts: Tensor, batch: Batch, taught: Taught | None = None) -> Tensor:
        """The loss of a batch, a scalar.

        Args:
            images: embeddings of this process's pictures, (share of n, dim).
            texts: embeddings of their captions, (share of m, dim).
            batch: which of them belong together, over all processes.
            taught: what a teacher finds in it, if there is one.
        """
        model = self.clip.model
        return self.criterion(
            EmbeddedBatch(
                images=gather(images, batch.image_counts),
                texts=gather(texts, batch.text_counts),
                logit_scale=model.logit_scale.exp(),
                logit_bias=getattr(model, "logit_bias", None),
                positives=batch.positives,
                ignored=batch.ignored,
                classes=batch.classes,
                scores=batch.scores,
                rows=torch.from_numpy(batch.rows).to(images.device),
                taught=taught,
            )
        )


def prepare(
    folder: RunFolder,
    settings: FinetuningSettings,
    stop: Callable[[], bool] = lambda: False,
    micro_batch_size: int | None = None,
) -> Job:
    """Loads model and data and decides the recipe.

    Args:
        folder: of the run.
        settings: of the run.
        stop: tells whether training was asked to stop.
        micro_batch_size: pictures in memory at once, where those of the settings or of a checkpoint did not fit.

    Raises:
        ModelError, DataError, SettingsError: what cannot be used, and what to do.
    """
    run, world = folder.load(), current_world()
    check_loggers(settings)  # once more: it may be another machine
    history = History(folder, world.is_main)
    log = history.log
    device = choose_device(settings.devices, world.rank)
    precision = choose_precision(settings.precision, device)
    log(f"loading model {settings.model} on {device}, {precision}")
    clip = load_named(settings.model, device, settings.seed, settings.model_options)
    if "image" in clip.towers:
        clip.model.visual.to(memory_format=torch.channels_last)
    choose_trainable(clip.model, settings.lock_image, settings.lock_text, settings.train_last_blocks)
    parts = load_parts(settings, run.train_fingerprint, run.eval_fingerprint, run.retention_fingerprint, run.val_fingerprint)
    cache = pixels_of(clip, parts.train)

    recipe = decide(folder, settings, clip, parts.train, cache, world, history)
    towers: list[Tower] = [tower for tower in TOWERS if not tower_is_frozen(clip.model, tower)]
    if settings.model_options.gradient_checkpointing:
        checkpoint_gradients(clip.model, towers)
    if settings.lora_rank:
        add_lora(clip.model, settings.lora_rank, towers=towers)
    captions = Captions(clip.tokenizer, parts.train)
    masked = settings.mask_duplicates and not parts.train.kind.is_single
    duplicates = _duplicates(parts.train, cache) if masked else None
    feed = Feed(parts.train, cache, captions, duplicates, _change(settings), settings, recipe, world, clip)
    _embed_once(clip, feed, settings, recipe)

    classes = 0 if feed.classes is None else int(feed.classes.max()) + 1
    criterion = _criterion(recipe, settings, clip, world, classes, alone=feed.alone)

    retention = parts.retention
    return Job(
        folder=folder,
        settings=settings,
        recipe=recipe,
        clip=clip,
        parts=parts,
        cache=cache,
        validation_cache=pixels_of(clip, parts.validation),
        retention_cache=pixels_of(clip, retention) if retention else None,
        feed=feed,
        towers=Towers(clip, precision, settings.compile),
        criterion=criterion,
        optimizer=make_optimizer(clip.model, recipe, settings.optimizer_options),
        loss_optimizer=make_loss_optimizer(criterion, settings),
        average=WeightAverage(clip.model, recipe.ema_decay) if recipe.ema_decay else None,
        guards=Guards(
            log, recipe.warmup_steps, clip.model.logit_scale.exp().item(), settings.from_scratch, parts.validation.kind
        ),
        checkpoints=Checkpoints(folder),
        watches=load_watches(settings, run.callback_fingerprints, clip) if world.is_main else [],
        history=history,
        progress=Progress(log, clip.device, recipe.total_steps, recipe.epochs),
        world=world,
        device=device,
        precision=precision,
        stop=stop,
        position=Position(micro_batch_size=micro_batch_size or settings.micro_batch_size),
    )


def _duplicates(train: Pairs, cache: PixelCache | None) -> Duplicates:
    if cache is None:
        return Duplicates(train.captions, None, train.groups, queries=train.queries, negatives=train.negatives)
    if train.dimension:
        return Duplicates(train.captions, None, train.groups, queries=train.images)
    small = thumbnails(cache.pixels)
    hashes, colours = picture_hashes(small), mean_colours(small)
    rows = cache.rows(train.images)
    if not train.kind.has_matches:
        return Duplicates(train.captions, hashes[rows], train.groups, colours[rows], negatives=train.negatives)
    matches = cache.rows(train.texts)
    looks = hashes[matches], colours[matches]
    return Duplicates(train.captions, hashes[rows], train.groups, colours[rows], train.images, looks)


def _criterion(recipe: Recipe, settings: FinetuningSettings, clip: Clip, world: World, classes: int, alone: bool) -> Loss:
    """The loss; where it has weights of its own, they are the same in all processes."""
    torch.manual_seed(settings.seed)
    width = clip.config["embed_dim"]
    criterion, *shorter = (
        make_loss(recipe.loss, recipe.loss_options, settings.miner, settings.miner_options, Scope(classes, dim, alone))
        for dim in (width, *settings.model_options.matryoshka_dims)
    )
    if shorter:
        criterion = MatryoshkaLoss([criterion, *shorter], (width, *settings.model_options.matryoshka_dims))
    if isinstance(criterion, torch.nn.Module):
        criterion.to(clip.device)
        broadcast(criterion.parameters(), world)
    return criterion


def _change(settings: FinetuningSettings) -> Change | None:
    if not settings.word_dropout and not settings.caption_mixing:
        return None
    return partial(change_captions, word_dropout=settings.word_dropout, caption_mixing=settings.caption_mixing)


def _embed_once(clip: Clip, feed: Feed, settings: FinetuningSettings, recipe: Recipe) -> None:
    """Computes what does not change: a locked tower's embeddings of unchanged inputs, and which pictures look alike."""
    changed = recipe.augmentation != "none" or recipe.horizontal_flip > 0
    locked = tower_is_frozen(clip.model, feed.pairs.kind.tower) and not changed
    if locked or settings.hard_share:
        images = embed_items(clip, feed.pairs, feed.cache)
        broadcast([torch.from_numpy(images)], feed.world)  # a rounding apart, processes would draw different batches
        feed.image_table = torch.from_numpy(images).to(clip.device) if locked else None
        feed.look_alikes = images if settings.hard_share else None
    of_texts = feed.pairs.kind.has_texts
    if of_texts and tower_is_frozen(clip.model, "text") and feed.change is None:
        texts = [*feed.pairs.texts, *feed.pairs.wrong_texts]
        feed.text_table = torch.from_numpy(clip.encode_texts(texts)).to(clip.device)
