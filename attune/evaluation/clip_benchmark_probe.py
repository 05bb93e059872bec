"""The linear probe of CLIP_benchmark, on any device, for figures that can stand beside published ones."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from attune.errors import DataError, SettingsError
from attune.evaluation.classification import check_targets, mean_per_class_recall
from attune.evaluation.linear_probe import Features

Part = tuple[Tensor, Tensor]
"""Features (pictures, dim) and targets (pictures,)."""

DECAYS = np.logspace(-6, 2, num=97)


def clip_benchmark_probe(
    train: Features,
    test: Features,
    validation: Features | None = None,
    *,
    shots: int = -1,
    batch_size: int = 64,
    learning_rate: float = 0.1,
    epochs: int = 10,
    seed: int = 0,
    amp: bool = True,
    device: str = "cpu",
) -> dict[str, float]:
    """The figures that CLIP_benchmark 1.6.2 (https://github.com/LAION-AI/CLIP_benchmark) gives for a linear probe.

    A linear layer on the features as they are, AdamW, a cosine rate without warm-up, cross-entropy; weight decay is sought
    on the validation part, and without one it is 0. Its rough edges are kept, because the figures hang on them:

    - acc5 is NaN unless a test picture has class number 5 or higher, so with exactly five classes too;
    - weight decays are compared by accuracy alone, with one seed; of equal ones the first that is tried wins, and if none
      recognises anything it is the smallest;
    - with few shots the validation part chooses the weight decay and is not trained on; else it is trained on too;
    - ties are broken as torch happens to, not against the model;
    - the few shots and the order of the training part are drawn from torch's generator as the code before left it. Here it
      is seeded first: these are that package's figures after `torch.manual_seed(seed)`.

    That package runs on CUDA alone and splits batches over several GPUs; this runs on one device of any kind.

    Args:
        train: the training part; that package's features are of unit length unless it is told otherwise.
        test: the part the figures are of.
        validation: the part that chooses the weight decay.
        shots: training pictures of each class; -1 for all.
        batch_size: of training and of inference.
        learning_rate: at the first step.
        epochs: passes over the training part.
        seed: of weights and order. Random numbers of the process are left as they were.
        amp: half precision, as is that package's default: fp16 on a GPU, bf16 on a CPU.
        device: torch device.

    Returns:
        ``acc1``, ``acc5`` and ``mean_per_class_recall``, 0 to 1, and ``weight_decay``.

    Raises:
        DataError: if a class has fewer training pictures than shots, where that package gives no figures; or targets are
            not one of the classes of the training part for each row.
        SettingsError: if shots are 0.
    """
    if shots == 0:
        raise SettingsError("shots = 0: give how many training pictures of each class, or -1 for all")
    classes = int(train.targets.max(initial=0)) + 1
    for part in filter(None, (train, test, validation)):
        check_targets(part.targets, len(part.vectors), classes)
    probe = _Probe(classes, batch_size, learning_rate, epochs, seed, amp, device)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        trained_on, weight_decay = probe.part(_draw(train, shots)), 0.0
        if validation is not None:
            held_out = probe.part(validation)
            weight_decay = _best_decay(probe, trained_on, held_out)
            if shots < 0:
                trained_on = (torch.cat([trained_on[0], held_out[0]]), torch.cat([trained_on[1], held_out[1]]))
        logits, targets = probe.infer(probe.fit(trained_on, weight_decay), probe.part(test))
    top = 5 if targets.max() >= 5 else 1
    predicted = logits.argmax(dim=1).numpy()
    return {
        "acc1": _accuracy(logits, targets, top)[0],
        "acc5": _accuracy(logits, targets, top)[-1] if top == 5 else float("nan"),
        "mean_per_class_recall": mean_per_class_recall(predicted, targets.numpy()),
        "weight_decay": weight_decay,
    }


@dataclass(frozen=True)
class _Probe:
    """How that package trains and asks a linear layer; see `clip_benchmark_probe` for the settings."""

    classes: int
    batch_size: int
    learning_rate: float
    epochs: int
    seed: int
    amp: bool
    device: str

    def part(self, labelled: Features) -> Part:
        return torch.from_numpy(labelled.vectors).to(self.device), torch.from_numpy(labelled.targets).to(self.device)

    def fit(self, part: Part, weight_decay: float) -> nn.Linear:
        torch.default_generator.manual_seed(self.seed)
        layer = nn.Linear(part[0].shape[1], self.classes).to(self.device)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=self.learning_rate, weight_decay=weight_decay)
        steps = self.epochs * -(-len(part[0]) // self.batch_size)
        batches = (batch for _ in range(self.epochs) for batch in self._batches(part))
        for step, (x, y) in enumerate(batches):
            optimizer.param_groups[0]["lr"] = 0.5 * (1 + np.cos(np.pi * step / steps)) * self.learning_rate
            optimizer.zero_grad()
            with self._autocast():
                loss = F.cross_entropy(layer(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return layer

    def infer(self, layer: nn.Linear, part: Part) -> Part:
        """Logits (pictures, classes) and targets, float32 and int64 on the CPU, in any order."""
        with torch.no_grad(), self._autocast():
            answers = [(layer(x).float().cpu(), y.cpu()) for x, y in self._batches(part)]
        return torch.cat([logits for logits, _ in answers]), torch.cat([targets for _, targets in answers])

    def _batches(self, part: Part) -> Iterator[Part]:
        # torch's own loader, of row numbers: it takes the same random numbers as a loader of the features would.
        for rows in DataLoader(range(len(part[0])), self.batch_size, shuffle=True):  # type: ignore[arg-type]
            yield part[0][rows], part[1][rows]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(torch.device(self.device).type, enabled=self.amp)


def _draw(train: Features, shots: int) -> Features:
    """The training part in random order, with so many pictures of each class."""
    counts: Counter[int] = Counter()
    rows = []
    for row in torch.randperm(len(train.targets)).tolist():
        target = int(train.targets[row])
        if shots < 0 or counts[target] < shots:
            counts[target] += 1
            rows.append(row)
    fewest = min(counts, key=lambda target: counts[target])
    if counts[fewest] < shots:
        raise DataError(f"shots = {shots}, but class {fewest} has {counts[fewest]} training pictures. Ask for fewer shots")
    return Features(train.vectors[rows], train.targets[rows])


def _best_decay(probe: _Probe, train: Part, validation: Part) -> float:
    """The weight decay that recognises most of the validation part: seven first, then ever nearer to the best."""

    @cache  # each is trained with the same seed, so a second time would bring nothing new
    def recognised(place: int) -> float:
        return _accuracy(*probe.infer(probe.fit(train, float(DECAYS[place])), validation), 1)[0]

    def peak(places: Iterable[int]) -> int:
        best, most = 0, 0.0
        for place in places:
            if recognised(place) > most:
                best, most = place, recognised(place)
        return best

    best = peak(range(0, len(DECAYS), 16))
    for span in (8, 4, 2, 1):
        best = peak((max(best - span, 0), best, min(best + span, len(DECAYS) - 1)))
    return float(DECAYS[best])


def _accuracy(logits: Tensor, targets: Tensor, k: int) -> list[float]:
    """Share of pictures whose class is among the first 1, 2 ... k."""
    hits = logits.topk(k).indices == targets[:, None]
    return (hits.double().cumsum(dim=1).sum(dim=0) / len(targets)).tolist()
