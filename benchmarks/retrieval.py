"""Recall@1, 5 and 10 in both directions: Attune's evaluation beside CLIP_benchmark's, and beside the bare product.

All take the same embeddings, each in a process of its own, in turns. The product of all texts with all pictures in
float32 is what any exact method has to compute.

    python -m benchmarks.retrieval
    python -m benchmarks.retrieval --pictures 200000 --captions 1 --sides product attune --repeats 1
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from clip_benchmark.metrics.zeroshot_retrieval import batchify, recall_at_k  # type: ignore[import-untyped]

from attune.evaluation.bootstrap import paired_difference
from attune.evaluation.ranking import ranks, tiles
from attune.metrics import DIRECTIONS, KS, query_values, retrieval_metrics
from benchmarks.machine import RESULTS, command_line, describe_machine, write_result

NOISE = 6.0
"""Length of what a text has beside its picture's vector, which is 1: many texts are then nearer to other pictures."""

PICTURES = 5000
"""Of COCO's test set; figures of another size go into a file of their own."""

BATCH_SIZE = 64
"""Queries that CLIP_benchmark scores at a time: its own default."""


def main(arguments: list[str]) -> dict[str, Any]:
    """Measures, writes the result, and returns it."""
    options = _parser().parse_args(arguments)
    machine = describe_machine()
    with tempfile.TemporaryDirectory(prefix="attune-benchmark-") as name:
        folder = Path(name)
        make_embeddings(folder, options.pictures, options.captions, options.dim)
        turns: dict[str, list[dict[str, Any]]] = {side: [] for side in options.sides}
        for _ in range(options.repeats):
            for side in options.sides:
                turns[side].append(_apart(side, folder))
                print(side, _without_figures(turns[side][-1]), flush=True)
    seconds = {side: median(turn["seconds"] for turn in found) for side, found in turns.items()}
    figures = {side: found[0]["figures"] for side, found in turns.items() if found[0]["figures"]}
    result: dict[str, Any] = {
        "benchmark": "retrieval",
        "command": command_line("retrieval", arguments),
        "machine": machine,
        "pictures": options.pictures,
        "texts": options.pictures * options.captions,
        "dim": options.dim,
        "figures": figures,
        "largest_difference": largest_difference(figures),
        "seconds": {side: round(value, 3) for side, value in seconds.items()},
        "peak_memory_mib": {side: max(turn["peak_memory_mib"] for turn in found) for side, found in turns.items()},
        "turns": {side: [_without_figures(turn) for turn in found] for side, found in turns.items()},
    }
    if {"attune", "product"} <= seconds.keys():
        result["time_of_the_product"] = round(seconds["attune"] / seconds["product"], 2)
    if {"attune", "clip_benchmark"} <= seconds.keys():
        result["ratio"] = round(seconds["clip_benchmark"] / seconds["attune"], 1)
    print(json.dumps({key: result[key] for key in result.keys() - {"machine", "turns"}}, indent=2))
    size = "" if options.pictures == PICTURES else f"_{options.pictures}"
    write_result(options.results / f"retrieval{size}.json", result)
    return result


def make_embeddings(folder: Path, pictures: int, captions: int, dim: int) -> None:
    """Writes unit vectors of pictures, and of texts near their picture: `images.npy` and `texts.npy`."""
    rng = np.random.default_rng(0)
    images = _unit(rng.standard_normal((pictures, dim), dtype=np.float32))
    noise = rng.standard_normal((pictures * captions, dim), dtype=np.float32) * (NOISE / np.sqrt(dim))
    np.save(folder / "images.npy", images)
    np.save(folder / "texts.npy", _unit(np.repeat(images, captions, axis=0) + noise.astype(np.float32)))


def product(images: np.ndarray, texts: np.ndarray, owner: np.ndarray) -> dict[str, float]:
    """The float32 product alone, in the same tiles as Attune's."""
    del owner
    for _ in tiles(texts, images):
        pass
    return {}


def attune(images: np.ndarray, texts: np.ndarray, owner: np.ndarray) -> dict[str, float]:
    """Attune's ranks and what follows from them."""
    metrics = retrieval_metrics(ranks(images, texts, owner))
    return {f"{direction}_recall@{k}": metrics[f"{direction}_recall@{k}"] for direction in DIRECTIONS for k in KS}


def clip_benchmark(images: np.ndarray, texts: np.ndarray, owner: np.ndarray) -> dict[str, float]:
    """What `clip_benchmark.metrics.zeroshot_retrieval.evaluate` does once it has the embeddings, with its functions."""
    scores = torch.from_numpy(texts) @ torch.from_numpy(images).T
    positive = torch.zeros_like(scores, dtype=torch.bool)
    positive[torch.arange(len(scores)), torch.from_numpy(owner)] = True
    found = {}
    for direction, one, right in zip(DIRECTIONS, (scores, scores.T), (positive, positive.T), strict=True):
        for k in KS:
            recall = batchify(recall_at_k, one, right, BATCH_SIZE, "cpu", k=k)
            found[f"{direction}_recall@{k}"] = float((recall > 0).float().mean())
    return found


def bootstrap(images: np.ndarray, texts: np.ndarray, owner: np.ndarray) -> dict[str, float]:
    """1,000 resamples of whole pictures for interval and p-value of a difference, of ranks that are there already."""
    del texts
    rng = np.random.default_rng(0)
    for clusters in (owner, np.arange(len(images))):
        before, after = (query_values(rng.integers(1, 50, len(clusters))) for _ in range(2))
        paired_difference(before, after, clusters, resamples=1000)
    return {}


SIDES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, float]]] = {
    "product": product,
    "attune": attune,
    "clip_benchmark": clip_benchmark,
    "bootstrap": bootstrap,
}


def largest_difference(figures: dict[str, dict[str, float]]) -> float | None:
    """Of any figure between any two sides; None if there is one side only."""
    if len(figures) < 2:
        return None
    names = next(iter(figures.values()))
    return max(max(one[name] for one in figures.values()) - min(one[name] for one in figures.values()) for name in names)


def one_side(side: str, folder: Path) -> dict[str, Any]:
    """One turn of one side: its figures, seconds, and memory beyond that of the embeddings in MiB."""
    images, texts = (np.load(folder / f"{name}.npy") for name in ("images", "texts"))
    owner = np.repeat(np.arange(len(images)), len(texts) // len(images))
    before = _peak_mib()
    start = time.perf_counter()
    figures = SIDES[side](images, texts, owner)
    return {
        "seconds": time.perf_counter() - start,
        "peak_memory_mib": round(_peak_mib() - before),
        "figures": figures,
    }


def _apart(side: str, folder: Path) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.retrieval", "--one-side", side, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    if done.returncode:
        raise RuntimeError(f"{side} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _peak_mib() -> float:
    """Of this program alone: `getrusage` would begin with what the one that started it held."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _unit(rows: np.ndarray) -> np.ndarray:
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def _without_figures(turn: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in turn.items() if key != "figures"}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.retrieval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=PICTURES, help="default: COCO's test set")
    parser.add_argument("--captions", type=int, default=5, help="of each picture")
    parser.add_argument("--dim", type=int, default=512, help="of the embeddings")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each side")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder the result is written to")
    parser.add_argument("--one-side", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    asked = _parser().parse_args()
    if asked.one_side:
        print(json.dumps(one_side(asked.one_side, asked.folder)))
    else:
        main(sys.argv[1:])
