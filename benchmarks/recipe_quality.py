"""Which recipe makes the better model: Attune's defaults beside three others, from the same weights and the same pairs.

open_clip_defaults   open_clip's trainer with nothing set but model, data and epochs
finetuner            Jina Finetuner's recipe: Adam, 1e-6, batch 64, pictures squashed to the model's square
plain                the best plain recipe known: AdamW, batch 256, 10 % warm-up, cosine, the learning rate tried by hand
attune               Attune with nothing set but model, data and epochs

The first three are run by open_clip's trainer and train on all training pairs. Attune sets some of the pictures
aside to choose its weights. The plain recipe's learning rate is the one that is best on the held-out pairs
themselves, an advantage that the others do not have. Every arm sees each caption as often as it has epochs, and all
are measured by one evaluator on the same held-out pairs.

    python -m benchmarks.recipe_quality --sets emoji
    python -m benchmarks.recipe_quality --sets flickr8k --flickr8k FOLDER --pretrain-pictures 3000 --folder KEPT
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip_train.params import get_default_params  # type: ignore[import-untyped]

from attune import __version__
from attune.config import check_settings
from attune.data.pairs import Pairs, load_pairs
from attune.data.parts import load_parts
from attune.data.pixels import open_pixels
from attune.data.read import read_examples
from attune.device import choose_precision
from attune.errors import RunNotFound
from attune.evaluation.bootstrap import interval
from attune.evaluation.measure import image_of_text, measure, split_fingerprint
from attune.metrics import DIRECTIONS
from attune.models.clip import Clip, load_clip, load_folder
from attune.names import DEFAULT_EXPERIMENT
from attune.runs.folder import RunFolder, runs_folder
from attune.schemas import TrainingExample
from benchmarks import attune_trainer, open_clip_trainer
from benchmarks.arms import Arm, kept_file
from benchmarks.machine import RESULTS, command_line, describe_machine, without_path, write_result
from examples.emoji.data import load, split

K = 5
EPOCHS = 5
HELD_OUT = 1000  # pictures, where the folder of photographs does not say which

FINETUNER = {
    "--lr": "1e-6",
    "--opt": "adamw",
    "--wd": "0",  # AdamW without decay is Adam
    "--beta1": "0.9",
    "--beta2": "0.999",
    "--eps": "1e-8",
    "--lr-scheduler": "const",
    "--warmup": "0",
    "--aug-cfg": "scale=(1.0,1.0)",  # the whole picture
}
PLAIN = {
    "--opt": "adamw",
    "--wd": "0.1",
    "--beta1": "0.9",
    "--beta2": "0.98",
    "--eps": "1e-6",
    "--lr-scheduler": "cosine",
    "--grad-clip-norm": "1.0",
}
START = {
    "batch_size": 256,
    "learning_rate": 3e-4,
    "layer_wise_lr_decay": 0.9,
    "logit_scale": "slow",
    "augmentation": "light",
    "horizontal_flip": 0,
    "val_split": 0.1,
    "callbacks": [{"kind": "best_model_checkpoint", "monitor": "mean_recall"}],
}
"""Attune's settings where it makes the start: it is to be the same one whatever the defaults become."""
PLAIN_BATCH_SIZE = 256
PLAIN_RATES = {"large": ["1e-5"], "small": ["1e-4", "3e-4", "6e-4", "1e-3", "2e-3"]}
"""1e-5 is the best known for a ViT-B-32 with 256 pairs a step. Models of less than `SMALL_PARAMETERS` need more, and those
that know little of a set much more."""
SMALL_PARAMETERS = 50_000_000


@dataclass(frozen=True)
class DataSet:
    """Pairs to train on and pairs that are held out, both pushed.

    Attributes:
        name: of the set.
        train: pairs to train on.
        test: pairs that are held out.
        start: folder of the model all arms start from.
        model: what that model is, in words.
        peer_defaults: what open_clip's trainer takes for a model of that name.
    """

    name: str
    train: Pairs
    test: Pairs
    start: Path
    model: str
    peer_defaults: dict[str, str]

    @cached_property
    def asked(self) -> tuple[str, ...]:
        """What arms on this set are told apart by: the start's weights and the data."""
        with (self.start / "open_clip_model.safetensors").open("rb") as file:
            weights = hashlib.file_digest(file, "sha256").hexdigest()
        return weights, self.train.fingerprint, self.test.fingerprint

    @property
    def captions(self) -> int:
        """Captions to train on."""
        return sum(map(len, self.train.captions))


def main(arguments: list[str]) -> dict[str, Any]:
    """Compares the recipes on every set asked for, writes the result, and returns it."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if "flickr8k" in options.sets and not options.flickr8k:
        parser.error("--sets flickr8k needs --flickr8k FOLDER")
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    machine = describe_machine()
    path = options.results / "recipe_quality.json"
    # A set takes an hour: those of earlier runs stay, each with what it was measured on.
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["sets"] if path.exists() else {}
    result: dict[str, Any] = {
        "benchmark": "recipe_quality",
        "metric": f"recall@{K}: share of queries with a right answer among the first {K}; 95 % intervals by bootstrap "
        "over pictures of the mean over seeds",
        "sets": found,
    }
    with nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory(prefix="attune-benchmark-") as name:
        folder = Path(name).resolve()
        attune_trainer.use_home(folder / "home")
        for set_name in options.sets:
            compared = compare(prepare(set_name, folder, device, options), folder / set_name, device, options)
            # From another start it is another comparison.
            first = options.pretrain_pictures if set_name == "flickr8k" else 0
            key = f"{set_name}_pretrained_on_{first}" if first else set_name
            found[key] = {"command": command_line("recipe_quality", arguments), "machine": machine, **compared}
            print("\n".join(compared["table"]), flush=True)
            write_result(path, result)
    return result


def prepare(name: str, folder: Path, device: str, options: argparse.Namespace) -> DataSet:
    """Reads and pushes a set, and makes the folder of the model to start from."""
    train, test = split(load("noto")) if name == "emoji" else _photographs(options.flickr8k)
    train, test = _some(train, options.pictures), _some(test, options.test_pictures)
    start, model = options.start, options.start
    if name == "flickr8k" and options.pretrain_pictures:
        first, train = train[: options.pretrain_pictures], train[options.pretrain_pictures :]
        start = str(_pretrain(first, options, device))
        model = f"{model}, trained by Attune on {len(first)} other pictures of the set"
    train_print, test_print = (
        attune_trainer.push(f"{name}-{part}", examples) for part, examples in (("train", train), ("test", test))
    )
    place = folder / f"{name}-start"
    load_clip(start).save_folder(place)
    # It takes its defaults by the model's name, and would read them out of the folder's.
    defaults = get_default_params(without_path(options.start))
    return DataSet(
        name,
        load_pairs(train_print),
        load_pairs(test_print),
        place,
        without_path(model),
        {f"--{option}": str(value) for option, value in defaults.items()},
    )


def compare(data: DataSet, folder: Path, device: str, options: argparse.Namespace) -> dict[str, Any]:
    """Runs all arms on one set, seed by seed.

    Returns:
        What was compared, each arm's figures, the gain of Attune over each with its interval, and a table.
    """
    clip = load_clip(str(data.start), device)
    start = Arm("nobody", {})
    start.hits = [_hits(clip, data)] * len(options.seeds)
    arms = {"start": start}
    small = sum(parameter.numel() for parameter in clip.model.parameters()) < SMALL_PARAMETERS
    rates = options.plain_rates or PLAIN_RATES["small" if small else "large"]
    peers = _Peers(data, folder, clip, device, options.epochs)
    for number, seed in enumerate(options.seeds):
        peers.run(arms, "open_clip_defaults", seed, data.peer_defaults, 64)
        peers.run(arms, "finetuner", seed, FINETUNER, 64, squash=True)
        if number == 0:
            tried = {rate: peers.plain({}, rate, seed) for rate in rates}
            best = max(rates, key=lambda rate: _mean(tried[rate].hits[0]))
            arms["plain"] = tried[best]
        else:
            peers.plain(arms, best, seed)
        _run_attune(arms, data, folder, clip, device, seed, options.epochs)

    owner = image_of_text(data.test)
    figures = {name: _figures(arm, owner, arms["attune"]) for name, arm in arms.items()}
    others = [name for name in arms if name != "attune"]
    return {
        "start": data.model,
        "device": device,
        "train_pictures": len(data.train),
        "train_captions": data.captions,
        "test_pictures": len(data.test),
        "test_captions": len(owner),
        "test_fingerprint": split_fingerprint(data.test),
        "epochs": options.epochs,
        "seeds": options.seeds,
        "plain_rates_tried": {
            rate: {d: round(float(arm.hits[0][d].mean()), 4) for d in DIRECTIONS} for rate, arm in tried.items()
        },
        "arms": figures,
        "attune_first": {
            direction: all(figures["attune"]["recall"][direction] > figures[name]["recall"][direction] for name in others)
            for direction in DIRECTIONS
        },
        "table": table(data, figures, options.epochs),
    }


class _Peers:
    """The recipes that open_clip's trainer runs."""

    def __init__(self, data: DataSet, folder: Path, clip: Clip, device: str, epochs: int) -> None:
        self.data, self.folder, self.clip, self.device, self.epochs = data, folder, clip, device, epochs
        self.csv = open_clip_trainer.write_csv(data.train, folder / "pairs")
        size = clip.preprocess["size"]
        self.squashed = open_clip_trainer.write_csv(
            data.train, folder / "squashed", size if isinstance(size, int) else size[0]
        )
        arithmetic = {"bf16": "amp_bf16", "fp32": "fp32"}[choose_precision("auto", device)]
        # Half precision, its default, is for GPUs.
        self.precision = {} if device == "cuda" else {"--precision": arithmetic}

    def run(
        self, arms: dict[str, Arm], name: str, seed: int, options: dict[str, str], batch_size: int, squash: bool = False
    ) -> None:
        """Trains by a recipe, measures, and adds what was found to its arm."""
        chosen = {**self.precision, "--workers": str(os.cpu_count() or 1), **options}
        arm = arms.setdefault(name, Arm("open_clip_train", {"--batch-size": batch_size, **chosen}))
        kept = kept_file(self.folder, *self.data.asked, name, arm.settings, squash, self.epochs, seed)
        if arm.take(kept):
            _report(self.data, name, arm)
            return
        start = time.monotonic()
        peer = open_clip_trainer.train(
            self.folder / "peer",
            f"{name}-{options.get('--lr', '')}-{seed}",
            self.squashed if squash else self.csv,
            [
                "--model",
                f"local-dir:{self.data.start}",
                "--seed",
                str(seed),
                *(word for pair in chosen.items() for word in pair),
            ],
            self.device,
            epochs=self.epochs,
            batch_size=batch_size,
        )
        seconds = time.monotonic() - start
        steps = self.data.captions // batch_size * self.epochs
        assert peer.weights is not None
        open_clip_trainer.load_weights(self.clip.model, peer.weights)
        peer.weights.unlink()  # checkpoints are large
        arm.hits.append(_hits(self.clip, self.data))
        arm.records.append({"seed": seed, "steps": steps, "captions_seen": steps * batch_size, "seconds": round(seconds, 1)})
        arm.keep(kept)
        _report(self.data, name, arm)

    def plain(self, arms: dict[str, Arm], rate: str, seed: int) -> Arm:
        """The plain recipe at one learning rate."""
        batch_size = min(PLAIN_BATCH_SIZE, self.data.captions)
        steps = self.data.captions // batch_size * self.epochs
        self.run(arms, "plain", seed, {"--lr": rate, "--warmup": str(steps // 10), **PLAIN}, batch_size)
        return arms["plain"]


def _run_attune(arms: dict[str, Arm], data: DataSet, place: Path, clip: Clip, device: str, seed: int, epochs: int) -> None:
    """Attune at its defaults, with as many epochs as show each caption `epochs` times."""
    settings: dict[str, Any] = {
        "model": str(data.start),
        "train_data": f"{data.name}-train",
        "eval_data": f"{data.name}-test",
    }
    at_once = getattr(check_settings(settings), "multi_positive", False)
    # By default an epoch shows one caption of each picture; open_clip's shows all of them.
    asked = epochs if at_once else round(epochs * data.captions / len(data.train))
    arm = arms.setdefault("attune", Arm("attune", {"epochs": asked}))
    kept = kept_file(place, *data.asked, "attune", __version__, arm.settings, seed)
    if arm.take(kept):
        _report(data, "attune", arm)
        return
    start = time.monotonic()
    name = f"{data.name}-{seed}"
    shutil.rmtree(runs_folder() / DEFAULT_EXPERIMENT / name, ignore_errors=True)  # broken off
    folder, _ = attune_trainer.run(
        name, {**settings, "epochs": asked, "seed": seed}, ["validate", "train", "evaluate", "export"], device
    )
    seconds = time.monotonic() - start
    training = folder.load().training
    clip.model.load_state_dict(load_folder(folder.artifact, device).model.state_dict())
    arm.hits.append(_hits(clip, data))
    used = load_parts(check_settings(folder.load().settings), data.train.fingerprint, data.test.fingerprint).train
    seen = training.epochs * (sum(map(len, used.captions)) if at_once else len(used))
    record = {"seed": seed, "steps": training.steps, "captions_seen": seen, "seconds": round(seconds, 1)}
    arm.records.append({**record, "training": training.model_dump(exclude={"id", "seconds", "pairs_per_second"})})
    arm.keep(kept)
    shutil.rmtree(folder.path)  # checkpoints are large
    _report(data, "attune", arm)


def _hits(clip: Clip, data: DataSet) -> dict[str, np.ndarray]:
    cache = open_pixels(data.test.fingerprint, clip.preprocess, clip.resize)
    return {direction: ranks <= K for direction, ranks in measure(clip, data.test, cache).ranks.items()}


def _mean(hits: dict[str, np.ndarray]) -> float:
    return float(np.mean([hits[direction].mean() for direction in DIRECTIONS]))


def _report(data: DataSet, name: str, arm: Arm) -> None:
    found = " ".join(f"{arm.hits[-1][direction].mean():.4f}" for direction in DIRECTIONS)
    record = arm.records[-1]
    rate = arm.settings.get("--lr", "")
    print(
        f"{data.name} {name} {rate} seed {record['seed']}, {record['steps']} steps, {record['seconds']} s: {found}",
        flush=True,
    )


def _figures(arm: Arm, owner: np.ndarray, attune: Arm) -> dict[str, Any]:
    """An arm's recall with its interval, by seed, and what Attune has over it."""
    owners = {"text_to_image": owner, "image_to_text": np.arange(owner.max() + 1)}
    mine, theirs = ({d: np.mean([hits[d] for hits in one.hits], axis=0) for d in DIRECTIONS} for one in (attune, arm))
    return {
        "by": arm.by,
        "settings": arm.settings,
        "runs": arm.records,
        "recall": {d: round(float(theirs[d].mean()), 4) for d in DIRECTIONS},
        "interval": {d: mean_interval(theirs[d], owners[d]) for d in DIRECTIONS},
        "by_seed": {d: [round(float(hits[d].mean()), 4) for hits in arm.hits] for d in DIRECTIONS},
        "attune_minus_this": {d: round(float((mine[d] - theirs[d]).mean()), 4) for d in DIRECTIONS},
        "attune_minus_this_interval": {d: mean_interval(mine[d] - theirs[d], owners[d]) for d in DIRECTIONS},
    }


def mean_interval(values: np.ndarray, owner: np.ndarray) -> list[float]:
    """The 2.5 % and the 97.5 % point of `attune.evaluation.bootstrap.interval`, for values that are means over seeds."""
    return [round(end, 4) for end in interval({"mean": values}, owner)["mean"]]


def table(data: DataSet, figures: dict[str, Any], epochs: int) -> list[str]:
    """One set's figures as the lines of a Markdown table."""
    lines = [f"{data.name}, {epochs} epochs from {data.model}", ""]
    lines += [
        "| recipe | text to image | image to text | Attune's lead, text to image | image to text |",
        "|---|---|---|---|---|",
    ]
    for name, found in figures.items():
        cells = [_cell(found["recall"][d], found["interval"][d]) for d in DIRECTIONS]
        if name == "attune":
            cells += ["", ""]
        else:
            cells += [_cell(found["attune_minus_this"][d], found["attune_minus_this_interval"][d], "+") for d in DIRECTIONS]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return lines


def _cell(value: float, interval: list[float], sign: str = "") -> str:
    return f"{value:{sign}.3f} ({interval[0]:{sign}.3f} to {interval[1]:{sign}.3f})"


def _photographs(folder: Path) -> tuple[list[TrainingExample], list[TrainingExample]]:
    """Folders `train` and `dev` in Kaggle's layout, or one such folder, of which `HELD_OUT` pictures are held out."""
    if (folder / "train").is_dir() and (folder / "dev").is_dir():
        train, test = (list(read_examples(folder / part)) for part in ("train", "dev"))
        random.Random(0).shuffle(train)
        return train, test
    examples = list(read_examples(folder))
    random.Random(0).shuffle(examples)
    return examples[HELD_OUT:], examples[:HELD_OUT]


def _some(examples: list[TrainingExample], count: int | None) -> list[TrainingExample]:
    return examples if count is None else random.Random(0).sample(examples, min(count, len(examples)))


def _pretrain(examples: Sequence[TrainingExample], options: argparse.Namespace, device: str) -> Path:
    """A model that knows photographs: the start, trained on them by Attune."""
    name = f"pretrain-{len(examples)}-{options.pretrain_epochs}"
    with suppress(RunNotFound):
        folder = RunFolder.open(name)
        if folder.load().state == "FINISHED":
            return folder.artifact
        shutil.rmtree(folder.path)  # broken off
    attune_trainer.push("pretrain", examples)
    settings = {"model": options.start, "train_data": "pretrain", "epochs": options.pretrain_epochs, **START}
    folder, _ = attune_trainer.run(name, settings, ["validate", "train", "evaluate", "export"], device)
    return folder.artifact


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recipe_quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", choices=["emoji", "flickr8k"], default=["emoji"])
    parser.add_argument("--flickr8k", type=Path, help="folder with train/ and dev/, or with Images/ and captions.txt")
    parser.add_argument("--start", default="starter", help="model all arms start from")
    parser.add_argument("--pretrain-pictures", type=int, default=0, help="of flickr8k: on these the start is trained")
    parser.add_argument("--pretrain-epochs", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="how often each caption is seen")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--plain-rates", nargs="+", help="learning rates of the plain recipe, of which the best counts")
    parser.add_argument("--pictures", type=int, help="the most training pictures of a set, drawn at random")
    parser.add_argument("--test-pictures", type=int, help="the most held-out pictures of a set, drawn at random")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    parser.add_argument("--folder", type=Path, help="kept, with what each arm came to: one broken off goes on there")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder the result is written to")
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
