"""Captions a second: Attune's training beside open_clip's own trainer, on one machine, in one run.

Both train all of the same model from the same pictures, in the same arithmetic, with the same captions a step, and see
every caption once an epoch. They take turns, each time in a process of its own. Starting up is not counted: see
`benchmarks.pace`.

    python -m benchmarks.training_throughput
    python -m benchmarks.training_throughput --device cuda --models ViT-B-32 --pictures-per-step 64 --steps 100
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from attune.config import check_settings
from attune.data.pairs import Pairs
from attune.data.parts import load_parts
from attune.device import choose_precision
from attune.models.source import find_model
from benchmarks import attune_trainer, open_clip_trainer
from benchmarks.machine import RESULTS, command_line, describe_machine, without_path, write_result
from benchmarks.pace import Mark, steady_pace
from benchmarks.processes import Watched
from benchmarks.synthetic import CAPTIONS, HEIGHT, QUALITY, WIDTH, make_examples

HELD_OUT = 16  # pictures each for validation and for the test part: Attune's runs need both

ATTUNE = {
    # All five captions of a picture in one step, the picture encoded once.
    "multi_positive": True,
    # What is not a matter of speed: no step of a run this short could tell one rate from another.
    "learning_rate": 1e-5,
    # Random weights would get the recipe for training from scratch, which is not what is compared.
    "augmentation": "light",
    "layer_wise_lr_decay": 0.9,
}
"""Attune's settings besides model, data, epochs, precision, batch_size and val_split; all others are at their defaults."""

OPEN_CLIP = {"--lr": "1e-5", "--wd": "0.1", "--warmup": "0", "--grad-clip-norm": "1.0"}
"""open_clip's options besides model, data, epochs, precision, batch size and workers; all others are at their defaults: a
random crop of 90 to 100 % of the picture, no gradient checkpointing."""


@dataclass(frozen=True)
class Case:
    """One model and how much of it is measured.

    Attributes:
        model: open_clip model name, or `starter`; with random weights.
        pictures_per_step: pictures in a step, each with all its captions.
        steps: optimizer steps of an epoch.
        epochs: of a run: how often each caption is seen.
        tries_workers: whether the peer's number of workers matters; where the model is slow it does not.
    """

    model: str
    pictures_per_step: int
    steps: int
    epochs: int = 1
    tries_workers: bool = True


CPU = {"ViT-B-32": Case("ViT-B-32", 8, 5, tries_workers=False), "starter": Case("starter", 32, 24)}
GPU = {"ViT-B-32": Case("ViT-B-32", 64, 60, epochs=5), "starter": Case("starter", 64, 60, epochs=5)}
SMALL = {"ViT-B-32": Case("ViT-B-32", 2, 4, tries_workers=False), "starter": Case("starter", 4, 16, tries_workers=False)}


@dataclass(frozen=True)
class Turn:
    """What one run of one trainer showed.

    Attributes:
        captions_per_second: in the middle of its epoch.
        measured_captions: seen in the measured time.
        measured_seconds: the measured time.
        whole_seconds: of the training process, from start to end, checkpoints and validation included.
        peak_memory_mib: resident, workers included, shared pages once.
        peak_gpu_memory_mib: 0 on a CPU.
        gpu_use: mean utilisation (0 to 1) in the measured time; None on a CPU.
    """

    captions_per_second: float
    measured_captions: int
    measured_seconds: float
    whole_seconds: float
    peak_memory_mib: int
    peak_gpu_memory_mib: int
    gpu_use: float | None


def main(arguments: list[str]) -> dict[str, Any]:
    """Measures every model asked for, writes the result, and returns it."""
    options = _parser().parse_args(arguments)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    machine = describe_machine()
    known = SMALL if options.small else GPU if device == "cuda" else CPU
    found = []
    for model in options.models:
        asked = {name: getattr(options, name) for name in ("pictures_per_step", "steps", "epochs") if getattr(options, name)}
        case = replace(known.get(model, known["starter"]), model=model, **asked)
        with tempfile.TemporaryDirectory(prefix="attune-benchmark-") as folder:
            found.append(compare(case, Path(folder), device, options))
        print(summary(found[-1]), flush=True)
    result: dict[str, object] = {
        "benchmark": "training_throughput",
        "command": command_line("training_throughput", arguments),
        "machine": machine,
        "data": {
            "pictures": f"JPEG, {WIDTH} x {HEIGHT}, quality {QUALITY}, 1/f noise",
            "captions_per_picture": CAPTIONS,
            "caption_lengths": "as in Flickr8k's training captions",
        },
        "models": found,
    }
    if options.results:
        write_result(options.results / "training_throughput.json", result)
    return result


def compare(case: Case, folder: Path, device: str, options: argparse.Namespace) -> dict[str, Any]:
    """Both trainers in turns on one model.

    Returns:
        The settings of both, every turn of both, and the ratios of the medians. `ratio` leaves out what Attune does
        once before the first step, decoding all pictures; `ratio_with_decoding` adds those seconds to each of its runs.
    """
    both = _Pair(case, folder, device, options)
    deadline = time.monotonic() + 60 * options.minutes
    tried = {}
    if len(both.workers) > 1:
        tried = {count: both.open_clip(count) for count in both.workers}
    best = max(tried, key=lambda count: tried[count].captions_per_second) if tried else both.workers[0]

    attune: list[Turn] = []
    peer: list[Turn] = []
    longest = 0.0
    while len(attune) < options.repeats and (not attune or time.monotonic() + longest < deadline):
        start = time.monotonic()
        attune.append(both.attune())
        peer.append(both.open_clip(best))
        longest = max(longest, time.monotonic() - start)
        print(
            f"{case.model}: {attune[-1].captions_per_second:.1f} and {peer[-1].captions_per_second:.1f} captions/s",
            flush=True,
        )

    rates = [turn.captions_per_second for turn in attune]
    peer_rates = [turn.captions_per_second for turn in peer]
    captions = both.captions * case.epochs
    decoded = captions / (captions / median(rates) + both.decode_seconds)
    return {
        "model": without_path(case.model),
        "weights": "random; those of starter on open_clip's side, which makes no difference to speed",
        "trained": "both towers, all weights",
        "device": device,
        "precision": both.precision,
        "pictures": both.pictures,
        "mean_jpeg_kib": both.jpeg_kib,
        "captions_per_step": case.pictures_per_step * CAPTIONS,
        "steps": case.steps,
        "epochs": case.epochs,
        "attune": {
            "settings": {**both.settings, "model": without_path(both.settings["model"])},
            "captions_per_second": round(median(rates), 2),
            "decode_once_seconds": round(both.decode_seconds, 2),
            "peak_memory_mib": max(turn.peak_memory_mib for turn in attune),
            "turns": [asdict(turn) for turn in attune],
        },
        "open_clip": {
            "options": {name: without_path(value) for name, value in both.peer_options(best).items()},
            "captions_per_second": round(median(peer_rates), 2),
            "peak_memory_mib": max(turn.peak_memory_mib for turn in peer),
            "turns": [asdict(turn) for turn in peer],
            "captions_per_second_by_workers": {str(count): turn.captions_per_second for count, turn in tried.items()},
        },
        "ratio": round(median(rates) / median(peer_rates), 2),
        "ratio_with_decoding": round(decoded / median(peer_rates), 2),
        "ratio_by_turn": [round(mine / theirs, 2) for mine, theirs in zip(rates, peer_rates, strict=True)],
        "memory_ratio": _ratio([turn.peak_memory_mib for turn in attune], [turn.peak_memory_mib for turn in peer]),
    }


class _Pair:
    """The two trainers on one model and the same pictures, ready to take turns.

    Attributes:
        workers: numbers of data workers the peer may have.
    """

    def __init__(self, case: Case, folder: Path, device: str, options: argparse.Namespace) -> None:
        self.case, self.folder, self.device = case, folder, device
        self.precision = choose_precision("auto", device) if options.precision == "auto" else options.precision
        self.compile = options.compile
        cores = os.cpu_count() or 1
        self.workers = options.workers or (sorted({0, cores, 2 * cores}) if case.tries_workers else [cores])
        attune_trainer.use_home(folder / "home")

        self.pictures = case.pictures_per_step * case.steps
        examples = make_examples(self.pictures + 2 * HELD_OUT)
        self.jpeg_kib = round(sum(len(example.image) for example in examples) / len(examples) / 1024, 1)
        train = attune_trainer.push("train", examples[HELD_OUT:])
        test = attune_trainer.push("test", examples[:HELD_OUT])
        self.settings: dict[str, Any] = {
            "model": f"{case.model}#scratch",
            "train_data": "train",
            "eval_data": "test",
            "val_split": HELD_OUT / (self.pictures + HELD_OUT),
            "batch_size": case.pictures_per_step,
            "epochs": case.epochs,
            "precision": self.precision,
            **ATTUNE,
        }
        pairs: Pairs = load_parts(check_settings(self.settings), train, test).train
        self.captions = sum(map(len, pairs.captions))
        if (len(pairs), self.captions) != (self.pictures, self.pictures * CAPTIONS):
            raise ValueError(
                f"{len(pairs)} pictures with {self.captions} captions are left to train on, not {self.pictures}"
            )
        self.csv = open_clip_trainer.write_csv(pairs, folder / "pairs")
        self.decode_seconds = attune_trainer.decode_seconds(self.settings["model"], train)
        self.turns = 0

    def attune(self) -> Turn:
        """One run of Attune."""
        self.turns += 1
        name = f"turn-{self.turns}"
        run, watched = attune_trainer.run(name, self.settings, ["validate", "train"], self.device)
        marks = attune_trainer.read_marks(run, self.case.steps)
        shutil.rmtree(run.path)  # checkpoints are large
        return self._turn(marks, watched["train"], edge=0)  # it prepares two steps ahead, from memory

    def open_clip(self, workers: int) -> Turn:
        """One run of open_clip's trainer."""
        self.turns += 1
        peer = open_clip_trainer.train(
            self.folder / "peer",
            f"turn-{self.turns}",
            self.csv,
            [word for option in self.peer_options(workers).items() for word in option if word],
            self.device,
            epochs=self.case.epochs,
            batch_size=self.case.pictures_per_step * CAPTIONS,
            # To write a line it waits for the GPU, so there not after every step.
            log_every=max(1, self.case.steps // 20) if self.device == "cuda" else 1,
            keep_weights=False,
        )
        # Each worker is up to two steps ahead; where there are few steps they are slow, and little is to be prepared.
        return self._turn(peer.marks, peer.watched, edge=min(2 * workers, self.case.steps // 4))

    def peer_options(self, workers: int) -> dict[str, str]:
        """The peer's command line as a table; an option without a value has an empty one."""
        arithmetic = {"bf16": "amp_bf16", "fp32": "fp32"}[self.precision]
        compiled = {"--torchcompile": ""} if self.compile else {}
        model = find_model(self.settings["model"]).open_clip_name
        return {"--model": model, "--precision": arithmetic, "--workers": str(workers), **OPEN_CLIP, **compiled}

    def _turn(self, marks: list[Mark], watched: Watched, edge: int) -> Turn:
        pace = steady_pace(marks, self.case.steps, self.captions, edge)
        use = watched.gpu_use(pace.start, pace.end)
        return Turn(
            captions_per_second=round(pace.captions_per_second, 2),
            measured_captions=round(pace.captions),
            measured_seconds=round(pace.seconds, 2),
            whole_seconds=round(watched.seconds, 1),
            peak_memory_mib=round(watched.peak_memory_mib),
            peak_gpu_memory_mib=round(watched.peak_gpu_memory_mib),
            gpu_use=None if use is None else round(use, 3),
        )


def summary(found: dict[str, Any]) -> str:
    """One model's figures in a few lines."""
    lines = [f"{found['model']} on {found['device']}, {found['precision']}, {found['captions_per_step']} captions a step:"]
    for name in ("attune", "open_clip"):
        lines.append(f"  {name:<9} {found[name]['captions_per_second']:>8} captions/s  {found[name]['peak_memory_mib']} MiB")
    lines.append(f"  ratio {found['ratio']}, with decoding {found['ratio_with_decoding']}, by turn {found['ratio_by_turn']}")
    return "\n".join(lines)


def _ratio(mine: list[int], theirs: list[int]) -> float | None:
    return round(max(mine) / max(theirs), 2) if max(theirs) else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_throughput", description=__doc__)
    parser.add_argument("--models", nargs="+", default=["ViT-B-32", "starter"], help="open_clip models; random weights")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto", help="of both; auto as Attune's")
    parser.add_argument("--pictures-per-step", type=int, help="each with all its captions; default by model")
    parser.add_argument("--steps", type=int, help="of an epoch; default by model")
    parser.add_argument("--epochs", type=int, help="of a run; default by model")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each trainer, at most")
    parser.add_argument("--minutes", type=float, default=7, help="by model; no turn begins that would not fit")
    parser.add_argument("--workers", type=int, nargs="+", help="of the peer; of several the fastest is taken")
    parser.add_argument("--compile", action="store_true", help="the peer compiles its model")
    parser.add_argument("--small", action="store_true", help="a few steps, to see whether everything works")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder the result is written to")
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
