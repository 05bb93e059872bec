"""The training loop of contrastive fine-tuning, top to bottom."""

import time

import numpy as np
import torch
from torch import Tensor

from attune.config import FinetuningSettings, check_settings
from attune.data.augment import augment
from attune.data.batches import epoch_batches
from attune.data.pairs import Pairs
from attune.data.parts import load_parts
from attune.data.pixels import PixelCache, open_pixels
from attune.device import choose_device, choose_precision
from attune.errors import TrainingError
from attune.evaluation import measure
from attune.losses import LOSSES
from attune.metrics import mean_recall
from attune.models.clip import Clip, load_clip
from attune.runs import RunFolder
from attune.schemas import TrainingResult
from attune.training.checkpoints import Checkpoints, Epoch
from attune.training.optimizer import learning_rate_at, make_optimizer
from attune.training.progress import Progress

MAX_LOGIT_SCALE = 100.0  # CLIP's own bound: above it training becomes unstable (Radford et al. 2021, section 2.5)


def train(folder: RunFolder) -> TrainingResult:
    """Trains a run's model from where its last checkpoint left off, and chooses its best epoch.

    Leaves `checkpoints/best.safetensors`: the weights of the epoch with the highest mean validation recall. The
    starting weights are a candidate too: if no epoch beats them, they are the result.

    Raises:
        TrainingError: if the loss is no longer a number.
    """
    run = folder.load()
    settings = check_settings(run.settings)
    device = choose_device(settings.device)
    precision = choose_precision(settings.precision, device)
    weights_dtype = {"fp32": torch.float32, "fp16": torch.float16}[settings.artifact_precision]

    folder.log(f"loading model {settings.model} on {device}, {precision}")
    clip = load_clip(settings.model, device, settings.seed)
    parts = load_parts(settings, run.train_fingerprint, run.eval_fingerprint)
    cache = open_pixels(run.train_fingerprint, clip.preprocess, clip.resize)
    captions = Captions(clip, parts.train)
    clip.model.visual.to(memory_format=torch.channels_last)  # convolutions are up to twice as fast in this order
    rows = cache.rows(parts.train.images)

    optimizer = make_optimizer(clip.model, settings)
    steps_per_epoch = len(epoch_batches(parts.train.groups, settings.batch_size, np.random.default_rng(0)))
    total_steps = steps_per_epoch * settings.epochs
    checkpoints = Checkpoints(folder.checkpoints)
    progress = Progress(folder, total_steps, settings.epochs)

    if not checkpoints.resume(clip, optimizer):
        folder.log(
            f"training on {len(parts.train)} pictures, {len(parts.validation)} for validation, "
            f"{len(parts.test)} held out; {steps_per_epoch} steps an epoch"
        )
        checkpoints.save(clip, optimizer, validate(clip, parts.validation, cache, folder, 0, 0.0), weights_dtype)

    for epoch in range(checkpoints.history[-1]["epoch"] + 1, settings.epochs + 1):
        # All randomness of an epoch follows from the seed and its number: a resumed run repeats an unbroken one.
        rng = np.random.default_rng((settings.seed, epoch))
        torch.manual_seed(settings.seed * 1_000_003 + epoch)
        clip.model.train()
        losses = []
        progress.begin_epoch()

        for number, batch in enumerate(epoch_batches(parts.train.groups, settings.batch_size, rng)):
            step = (epoch - 1) * steps_per_epoch + number
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step, total_steps, settings)

            pixels = torch.from_numpy(cache.pixels[rows[batch]]).to(device)
            tokens = captions.sample(batch, rng).to(device)
            with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=precision == "bf16"):
                loss = batch_loss(clip, pixels, tokens, settings)
            value = loss.item()
            if not np.isfinite(value):
                raise TrainingError(
                    f"The loss is {value} at step {step + 1} of {total_steps}. Lower learning_rate "
                    f"(now {settings.learning_rate:g}), or use precision fp32"
                )

            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(clip.model.parameters(), settings.max_grad_norm)
            optimizer.step()
            with torch.no_grad():
                clip.model.logit_scale.clamp_(0, np.log(MAX_LOGIT_SCALE))

            losses.append(value)
            progress.step(step + 1, epoch, value, optimizer.param_groups[0]["lr"], len(batch))

        done = validate(clip, parts.validation, cache, folder, epoch, float(np.mean(losses)))
        checkpoints.save(clip, optimizer, done, weights_dtype)

    best = checkpoints.best_epoch()
    folder.log(f"best epoch {best['epoch']} of {settings.epochs}, mean validation recall {best['mean_recall']:.4f}")
    return TrainingResult(
        steps=total_steps,
        epochs=settings.epochs,
        seconds=round(progress.seconds(), 3),
        pairs_per_second=round(progress.pairs_per_second(), 1),
        final_loss=checkpoints.history[-1]["loss"],
        best_epoch=best["epoch"],
        start_recall=checkpoints.history[0]["mean_recall"],
        best_recall=best["mean_recall"],
        device=device,
        precision=precision,
    )


def batch_loss(clip: Clip, pixels: Tensor, tokens: Tensor, settings: FinetuningSettings) -> Tensor:
    """Loss of one batch: pixels uint8 (batch, 3, height, width), tokens int64 (batch, context_length)."""
    inputs = clip.normalise(augment(pixels, settings.augmentation)).contiguous(memory_format=torch.channels_last)
    images = clip.model.encode_image(inputs, normalize=True)
    texts = clip.model.encode_text(tokens, normalize=True)
    return LOSSES[settings.loss](images, texts, clip.model.logit_scale.exp())


def validate(clip: Clip, pairs: Pairs, cache: PixelCache, folder: RunFolder, epoch: int, loss: float) -> Epoch:
    """Measures the model on the validation part and reports it."""
    start = time.monotonic()
    metrics = measure(clip, pairs, cache).metrics
    recall = mean_recall(metrics)
    folder.log(
        f"epoch {epoch}: validation mean recall {recall:.4f}, text->image recall@5 "
        f"{metrics['text_to_image_recall@5']:.4f}, image->text {metrics['image_to_text_recall@5']:.4f}",
        kind="validation",
        epoch=epoch,
        mean_recall=recall,
        loss=loss,
        seconds=time.monotonic() - start,
        **metrics,
    )
    return Epoch(epoch=epoch, loss=loss, mean_recall=recall)


class Captions:
    """The training captions, tokenised once."""

    def __init__(self, clip: Clip, pairs: Pairs) -> None:
        texts = [text for captions in pairs.captions for text in captions]
        self.counts = np.asarray([len(captions) for captions in pairs.captions])
        self.first = np.cumsum(self.counts) - self.counts
        chunks = [clip.tokenizer(texts[start : start + 4096]).int() for start in range(0, len(texts), 4096)]
        self.tokens = torch.cat(chunks)

    def sample(self, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        """One random caption of each picture: int64 (rows, context_length)."""
        chosen = self.first[rows] + rng.integers(self.counts[rows])
        return self.tokens[torch.from_numpy(chosen)].long()
