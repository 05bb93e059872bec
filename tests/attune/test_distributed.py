"""Tests of several processes; run as a module under torchrun, it is what those processes do."""

import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from attune.errors import TrainingError
from attune.training import distributed
from attune.training.distributed import (
    World,
    agree,
    any_of,
    average_gradients,
    broadcast,
    current_world,
    gather,
    initialise,
    launch_command,
    least,
    share,
    share_sizes,
    shut_down,
)
from attune.training.step import backward
from tests.attune.test_step import Towers, rows, tiny_clip
from tests.processes import descendants, is_loopback, listening

BATCHES = [[0, 5, 3, 9, 11, 2, 7], [1, 4, 6, 8, 10], [11, 10, 9, 3, 2, 1, 0]]  # odd: two shares are never equal
CASES = {"at once": None, "in micro-batches": 2}


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-2)


def train_in_a_world(world: World, micro_batch_size: int | None) -> dict[str, Any]:
    """Losses and weights after three steps, each process with its share of each batch."""
    model = tiny_clip()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += world.rank  # until weights are broadcast the processes disagree
    broadcast((*model.parameters(), *model.buffers()), world)
    towers, optimizer, losses = Towers(model), optimizer_of(model), []
    images, texts = rows(12)
    for batch in BATCHES:
        counts, own = share_sizes(len(batch), world), batch[share(len(batch), world)]
        optimizer.zero_grad()
        loss = backward(
            *(towers.images, towers.texts, images[own], texts[own]),
            lambda i, t, counts=counts: towers.loss(gather(i, counts), gather(t, counts)),
            micro_batch_size,
        )
        average_gradients(model.parameters(), world)
        optimizer.step()
        losses.append(loss)
    return {"losses": torch.stack(losses), **{name: value.detach() for name, value in model.named_parameters()}}


def train_alone() -> dict[str, Any]:
    """The same in one process, by a plain loop."""
    model = tiny_clip()
    towers, optimizer, losses = Towers(model), optimizer_of(model), []
    images, texts = rows(12)
    for batch in BATCHES:
        optimizer.zero_grad()
        loss = towers.loss(towers.images(images[batch]), towers.texts(texts[batch]))
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return {"losses": torch.stack(losses), **{name: value.detach() for name, value in model.named_parameters()}}


def gather_from(world: World, counts: list[int], dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """What `gather` makes of the numbers 0, 1, 2, ..., two a row, and a gradient that depends on the process."""
    everything = torch.arange(2.0 * sum(counts), dtype=dtype).view(-1, 2)
    start = sum(counts[: world.rank])
    own = everything[start : start + counts[world.rank]].clone().requires_grad_()
    gathered = gather(own, counts)
    (gathered.square().sum() * (world.rank + 1)).backward()
    return {"own": own.detach(), "gathered": gathered.detach(), "gradient": own.grad}


def average_of_a_few(world: World) -> list[Tensor | None]:
    """Averages: a gradient in each process, in the second only, in none; another type; another memory order."""
    sizes: list[tuple[int, ...]] = [(3,), (2, 2), (2,), (4,), (2, 3, 2, 2)]
    parameters = [nn.Parameter(torch.zeros(size)) for size in sizes]
    parameters[3] = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    parameters[0].grad = torch.full((3,), 1.0 + 2 * world.rank)
    if world.rank == 1:
        parameters[1].grad = torch.ones(2, 2)
    parameters[3].grad = torch.full((4,), 0.1 * world.rank, dtype=torch.float64)
    values = torch.arange(24.0).view(2, 3, 2, 2)
    parameters[4].grad = values.contiguous(memory_format=torch.channels_last if world.rank else torch.contiguous_format)
    average_gradients(parameters, world)
    return [parameter.grad for parameter in parameters]


def broadcast_of_a_few(world: World) -> dict[str, Tensor]:
    """Buffers of several types, and weights in another memory order, as they come from the first process."""
    model = nn.Module()
    values = torch.arange(24.0).view(2, 3, 2, 2) - 100 * world.rank
    model.weight = nn.Parameter(values.contiguous(memory_format=torch.channels_last))
    model.register_buffer("seen", torch.tensor(7 + world.rank))
    model.register_buffer("mask", torch.tensor([world.rank == 0, True]))
    model.register_buffer("mean", torch.tensor([math.inf if world.rank else 0.5]), persistent=False)
    broadcast((*model.parameters(), *model.buffers()), world)
    return {"weight": model.weight.detach(), **dict(model.named_buffers())}


def act(folder: Path) -> None:
    """One process's part in the tests below."""
    world = initialise("cpu", timeout_seconds=60)
    assert initialise("cpu") == world == current_world()
    found: dict[str, Any] = {"world": (world.rank, world.size, world.is_main)}
    found["address"] = os.environ["MASTER_ADDR"]
    for name, micro_batch_size in CASES.items():
        found[name] = train_in_a_world(world, micro_batch_size)
        distributed.BUCKET_BYTES = 5000  # from here on the gradients take several messages
    found["gathers"] = [gather_from(world, counts) for counts in ([2, 2], [1, 3], [3, 0])]
    found["half"] = gather_from(world, [1, 2], torch.bfloat16)
    found["averages"] = average_of_a_few(world)
    found["broadcasts"] = broadcast_of_a_few(world)
    found["agreed"] = agree(0.1 + world.rank, world)
    found["least"] = least(0.5 - world.rank, world)
    found["any"] = [any_of(world.rank == 1, world), any_of(True, world), any_of(False, world)]
    found["listening"] = listening(descendants(os.getppid())) if world.is_main else {}  # of torchrun and its processes
    any_of(False, world)  # the other one waits until that was looked at
    if world.is_main:  # the other one leaves
        with pytest.raises(TrainingError) as caught:
            gather(torch.zeros(1, 2), [1, 1])
        found["lost"] = str(caught.value)
    torch.save(found, folder / f"{world.rank}.pt")
    shut_down()
    assert not dist.is_initialized()


Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What two real processes found, by rank."""
    folder = tmp_path_factory.mktemp("world")
    command = launch_command(2, [str(folder)])
    command[command.index("attune")] = "tests.attune.test_distributed"
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_each_process_knows_its_place(found: Found) -> None:
    assert [one["world"] for one in found] == [(0, 2, True), (1, 2, False)]
    assert {one["address"] for one in found} == {"127.0.0.1"}


def test_nothing_of_it_listens_beyond_this_machine(found: Found) -> None:
    assert len(found[0]["listening"]) >= 2  # where they find each other, and where gloo exchanges
    assert all(map(is_loopback, found[0]["listening"].values())), found[0]["listening"]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one(found: Found, case: str) -> None:
    expected = train_alone()

    torch.testing.assert_close(found[0][case], expected, rtol=1e-9, atol=1e-9)
    assert all(torch.equal(found[0][case][name], found[1][case][name]) for name in expected)
    assert not torch.equal(expected["text_projection"], tiny_clip().text_projection)


@pytest.mark.parametrize(("number", "split"), list(enumerate([2, 1, 3])))
def test_gather_keeps_rank_order_for_unequal_counts_and_adds_up_gradients(found: Found, number: int, split: int) -> None:
    first, second = (one["gathers"][number] for one in found)

    everything = torch.arange(2.0 * len(first["gathered"]), dtype=torch.float64).view(-1, 2)
    assert torch.equal(first["gathered"], everything)
    assert torch.equal(second["gathered"], everything)
    # d/dx (1 + 2) x^2 = 6 x: one times from the first process's loss, two times from the second's
    assert torch.equal(first["gradient"], 6 * everything[:split])
    assert torch.equal(second["gradient"], 6 * everything[split:])


def test_half_precision_is_gathered_as_float32(found: Found) -> None:
    for one in found:
        assert one["half"]["gathered"].dtype == torch.float32
        assert one["half"]["gradient"].dtype == torch.bfloat16
        torch.testing.assert_close(one["half"]["gradient"], 6 * one["half"]["own"])


def test_a_gradient_becomes_its_mean_and_a_missing_one_counts_as_zero(found: Found) -> None:
    for one in found:
        both, second_only, nowhere, double, ordered = one["averages"]
        assert both.tolist() == [2, 2, 2]  # (1 + 3) / 2
        assert second_only.tolist() == [[0.5, 0.5], [0.5, 0.5]]  # (0 + 1) / 2
        assert nowhere is None
        torch.testing.assert_close(double, torch.full((4,), 0.05, dtype=torch.float64))
        assert torch.equal(ordered, torch.arange(24.0).view(2, 3, 2, 2))


def test_all_weights_and_buffers_come_from_the_main_process(found: Found) -> None:
    for one in found:
        assert torch.equal(one["broadcasts"]["weight"], torch.arange(24.0).view(2, 3, 2, 2))
        assert one["broadcasts"]["seen"] == 7
        assert one["broadcasts"]["mask"].tolist() == [True, True]
        assert one["broadcasts"]["mean"].tolist() == [0.5]


def test_all_act_on_what_the_main_process_knows(found: Found) -> None:
    assert [one["agreed"] for one in found] == [0.1, 0.1]


def test_what_is_to_fit_in_all_fits_in_the_one_with_least(found: Found) -> None:
    assert [one["least"] for one in found] == [-0.5, -0.5]


def test_what_one_process_was_asked_all_hear_of(found: Found) -> None:
    assert [one["any"] for one in found] == [[True, True, False]] * 2


def test_a_process_that_is_left_alone_says_so(found: Found) -> None:
    assert found[0]["lost"].startswith("Process 0 of 2 lost the others while exchanging embeddings: ")
    assert "start the run again" in found[0]["lost"]


def test_a_world_that_does_not_come_together_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")  # put back afterwards
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "lo")

    with pytest.raises(TrainingError, match="Process 0 of 2 did not find the others on cpu within 1 s"):
        initialise("cpu", timeout_seconds=1)

    assert not dist.is_initialized()


@pytest.mark.parametrize("count", [0, 1, 6, 7, 8])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_shares_are_all_rows_in_order_and_nearly_equal(count: int, size: int) -> None:
    worlds = [World(rank, size) for rank in range(size)]
    rows = list(range(count))

    shares = [rows[share(count, world)] for world in worlds]

    assert [row for one in shares for row in one] == rows
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert [len(one) for one in shares] == share_sizes(count, worlds[0])


def test_one_process_is_a_world_without_torch_distributed() -> None:
    world = initialise("cpu")
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([1.0, 2.0])
    embeddings = torch.ones(3, 2)

    broadcast(nn.Linear(2, 2).parameters(), world)
    average_gradients([parameter], world)
    shut_down()

    assert world == current_world() == World(0, 1)
    assert world.is_main
    assert gather(embeddings, [3]) is embeddings
    assert agree(0.3, world) == least(0.3, world) == 0.3
    assert [any_of(True, world), any_of(False, world)] == [True, False]
    assert parameter.grad.tolist() == [1, 2]
    assert not dist.is_initialized()


@pytest.mark.parametrize("counts", [[2], [3, 3], []])
def test_counts_must_fit(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="does not fit 3 rows in process 0 of 1"):
        gather(torch.ones(3, 2), counts)


def test_the_world_is_known_before_it_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")

    assert current_world() == World(2, 3)
    assert not current_world().is_main


def test_the_command_starts_attune_in_several_processes_of_this_machine() -> None:
    command = launch_command(3, ["train", "my-run"])

    assert command[2:5] == [sys.executable, "-m", "torch.distributed.run"]
    assert command[-4:] == ["-m", "attune", "train", "my-run"]
    assert command[command.index("--nproc-per-node") + 1] == "3"
    assert command[command.index("--local-addr") + 1] == "127.0.0.1"


if __name__ == "__main__":
    act(Path(sys.argv[1]))
