"""Several processes that train one model, with the gradients of one.

Every process draws the same global batch, encodes its share of the rows, gathers the embeddings of all, computes the
whole loss, and afterwards averages gradients with the others. Why that is exact: let L be the loss, a function of all
embeddings, and P the number of processes. All compute the same L, so each holds the same gradient of L at every
embedding. The backward pass of `gather` adds these up over the processes and hands each one its own rows: P times the
true gradient there. A process's weights thus get P times the part of the gradient that its rows contribute; the average
over processes is the sum of all parts. A parameter of the loss itself, such as `logit_scale`, gets the true gradient in
every process, and an average of equal numbers changes nothing. Nothing here depends on when gradients are computed, so
micro-batches (`attune.training.step`) work as well. With one process every function does nothing, and
`torch.distributed` is not touched.
"""

import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from attune.errors import TrainingError
from attune.training.memory import is_out_of_memory

LOOPBACK = "127.0.0.1"
BUCKET_BYTES = 32 * 2**20  # one message for many small gradients; larger ones save no more time and cost memory
TIMEOUT_SECONDS = 1800.0  # the others wait while the main process validates


@dataclass(frozen=True)
class World:
    """The processes of a training.

    Attributes:
        rank: this process's number, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and logs for all."""
        return self.rank == 0


def current_world() -> World:
    """The world this process is in: that of the initialised group, or the one torchrun's variables announce."""
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return World(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def launch_command(processes: int, arguments: list[str]) -> list[str]:
    """The command that starts `python -m attune ARGUMENTS` in several processes of this machine.

    Nothing of it listens on other addresses than 127.0.0.1: torchrun, which would, keeps its notes in a file. When one
    process fails the others are ended, and the command fails. Unless OMP_NUM_THREADS is set, torchrun sets it to 1.
    """
    notes = ["--rdzv-backend", "c10d", "--rdzv-conf", "store_type=file,is_host=1", "--rdzv-id", secrets.token_hex(8)]
    where = [*notes, "--local-addr", LOOPBACK, "--nproc-per-node", str(processes)]
    alone = ["env", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"]  # torchrun opens no store for its processes to share
    return [*alone, sys.executable, "-m", "torch.distributed.run", *where, "-m", "attune", *arguments]


def initialise(device: str, timeout_seconds: float = TIMEOUT_SECONDS) -> World:
    """Connects this process with the others of its world: by gloo on processors, by NCCL on GPUs.

    Args:
        device: this process's own, `cpu` or `cuda:N`; no two processes share a GPU.
        timeout_seconds: how long one process may wait for another, here and in every exchange.

    Raises:
        TrainingError: if they do not find each other.
    """
    world = current_world()
    if world.size == 1 or dist.is_initialized():
        return world
    target = torch.device(device)
    if os.environ.get("MASTER_ADDR") == LOOPBACK:  # else gloo and NCCL listen on the address of the host's name
        loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", loopback)
    if target.type == "cuda":
        torch.cuda.set_device(target)
    try:
        dist.init_process_group(
            "nccl" if target.type == "cuda" else "gloo",
            store=_store(world, timedelta(seconds=timeout_seconds)),
            rank=world.rank,
            world_size=world.size,
            timeout=timedelta(seconds=timeout_seconds),
            device_id=target if target.type == "cuda" else None,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise TrainingError(
            f"Process {world.rank} of {world.size} did not find the others on {device} within {timeout_seconds:g} s: "
            f"{error}. Look for an earlier error of another one; on GPUs, name as many in `devices` as there are processes"
        ) from error
    return world


def _store(world: World, timeout: timedelta) -> Any:
    """Where the processes find each other; torch's own would listen on all addresses."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    listening = socket.create_server((address, port)).detach() if world.is_main else None
    store = dist.TCPStore  # type: ignore[attr-defined]
    return store(address, port, world.size, world.is_main, timeout, master_listen_fd=listening)


def shut_down() -> None:
    """Leaves the world that `initialise` joined, if it did."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def share_sizes(count: int, world: World) -> list[int]:
    """How many of `count` rows each process takes, in rank order; they differ by at most one."""
    return [count // world.size + (rank < count % world.size) for rank in range(world.size)]


def share(count: int, world: World) -> slice:
    """This process's part of `count` rows; the parts of all processes in rank order are all rows in order.

    Example:
        Of 5 rows the first of two processes takes `slice(0, 3)`, the second `slice(3, 5)`.
    """
    sizes = share_sizes(count, world)
    start = sum(sizes[: world.rank])
    return slice(start, start + sizes[world.rank])


def gather(embeddings: Tensor, counts: list[int]) -> Tensor:
    """The embeddings of all processes, in rank order; gradients find their way back, added up over the processes.

    All processes must call this the same number of times and in the same order, and so must their backward passes.

    Args:
        embeddings: this process's, (n_local, dim). Half precision comes out as float32, so that sums are exact enough.
        counts: rows of each process, in rank order; see `share_sizes`.

    Returns:
        (sum of counts, dim).

    Raises:
        ValueError: if `counts` does not fit the world or these embeddings.
        TrainingError: if another process has gone.
    """
    world = current_world()
    if len(counts) != world.size or counts[world.rank] != len(embeddings):
        raise ValueError(
            f"counts = {counts} does not fit {len(embeddings)} rows in process {world.rank} of {world.size}: give the "
            "number of rows of every process"
        )
    if world.size == 1 or not sum(counts):
        return embeddings
    if embeddings.dtype in (torch.float16, torch.bfloat16):
        embeddings = embeddings.float()
    gathered: Tensor = _Gather.apply(embeddings, counts, world.rank)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, counts: list[int], rank: int) -> Tensor:
        ctx.start, ctx.count = sum(counts[:rank]), counts[rank]
        padded = embeddings.new_zeros(max(counts), embeddings.shape[1])  # an exchange takes equal shapes
        padded[: len(embeddings)] = embeddings
        parts = [torch.empty_like(padded) for _ in counts]
        with _exchange("embeddings"):
            dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        with _exchange("gradients of embeddings"):
            dist.all_reduce(total)
        return total[ctx.start : ctx.start + ctx.count], None, None


def average_gradients(parameters: Iterable[nn.Parameter], world: World) -> None:
    """Replaces each gradient by its mean over the processes; afterwards all hold the same to the last bit.

    A parameter without a gradient counts as zero where others have one, and is left without where none has. The mean
    is formed in fixed order and messages, so that a training can be repeated.

    Args:
        parameters: the same in every process, in the same order, all on one device.
        world: of `initialise`.

    Raises:
        TrainingError: if another process has gone.
    """
    everything = list(parameters)
    if world.size == 1 or not everything:
        return
    present = torch.tensor([p.grad is not None for p in everything], dtype=torch.int32, device=everything[0].device)
    with _exchange("gradients"):
        dist.all_reduce(present, op=dist.ReduceOp.MAX)
    chosen = [parameter for parameter, found in zip(everything, present.tolist(), strict=True) if found]
    for bucket in _buckets(chosen):
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        with _exchange("gradients"):
            dist.all_reduce(flat)
        flat /= world.size
        sizes = [parameter.numel() for parameter in bucket]
        for parameter, gradient, mean in zip(bucket, gradients, torch.split(flat, sizes), strict=True):
            parameter.grad = gradient.copy_(mean.view_as(gradient))


def _buckets(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Neighbours of one data type, together no larger than a message should be."""
    bucket: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        if bucket and (size + parameter.nbytes > BUCKET_BYTES or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(parameter)
        size += parameter.nbytes
    if bucket:
        yield bucket


def broadcast(tensors: Iterable[Tensor], world: World) -> None:
    """Gives every process the main process's values, in place and bit by bit.

    Of a model's parameters and buffers: BatchNorm's running statistics are of each process's own rows and drift apart.

    Raises:
        TrainingError: if another process has gone.
    """
    if world.size == 1:
        return
    with torch.no_grad():
        for tensor in tensors:
            # As bytes: any data type and memory order will do.
            values = tensor.detach().reshape(-1).clone().to(_device())
            with _exchange("weights"):
                dist.broadcast(values.view(torch.uint8), src=0)
            tensor.copy_(values.view(tensor.shape))


def agree(value: float, world: World) -> float:
    """The main process's value, in every process: for what only it knows and all must act on, such as a metric.

    Raises:
        TrainingError: if another process has gone.
    """
    return _of_all(value, world, lambda held: dist.broadcast(held, src=0))


def least(value: float, world: World) -> float:
    """The smallest value of all processes, in every process: for what has to fit in each of them, such as memory.

    Raises:
        TrainingError: if another process has gone.
    """
    return _of_all(value, world, lambda held: dist.all_reduce(held, op=dist.ReduceOp.MIN))


def any_of(flag: bool, world: World) -> bool:
    """Whether the flag is up in any process: what one is asked, all are to do at the same step.

    Raises:
        TrainingError: if another process has gone.
    """
    return bool(_of_all(flag, world, lambda held: dist.all_reduce(held, op=dist.ReduceOp.MAX)))


def _of_all(value: float, world: World, exchange: Callable[[Tensor], object]) -> float:
    """What an exchange leaves of the processes' values."""
    if world.size == 1:
        return value
    held = torch.tensor([value], dtype=torch.float64, device=_device())
    with _exchange("a decision"):
        exchange(held)
    return float(held.item())


class _OthersLost(TrainingError):
    """Another process has gone."""


def others_are_lost(error: Exception) -> bool:
    """Whether an error says no more than that another process has gone: that one knows why."""
    return isinstance(error, _OthersLost)


@contextmanager
def _exchange(what: str) -> Iterator[None]:
    """Says what an exchange's failure means: torch's message names an address and a port."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        world = current_world()
        raise _OthersLost(
            f"Process {world.rank} of {world.size} lost the others while exchanging {what}: {error}. One of them has "
            "stopped or fallen too far behind: look for its own error, then start the run again to go on from its checkpoint"
        ) from error


def _device() -> torch.device:
    """Where the group exchanges tensors."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
