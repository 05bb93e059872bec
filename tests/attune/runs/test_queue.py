"""Who starts next: on hand-made cases, and on hundreds of random services played through."""

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from attune.runs.queue import MOST_PASSED, Waiting, choose, positions

CPU = ("cpu",)
GPUS = ("cuda:0", "cuda:1", "cuda:2")


def run(reference: str, experiment: str = "a", devices: tuple[str, ...] = CPU) -> Waiting:
    """A run; those with smaller references are older."""
    return Waiting(reference, experiment, f"2026-01-01T00:00:00.{reference}", devices)


def names(runs: list[Waiting]) -> str:
    return " ".join(one.reference for one in runs)


def test_nobody_starts_where_nobody_waits_and_where_all_places_are_taken() -> None:
    working = [run("1")]

    assert choose([], [], [], 1) == []
    assert choose([run("2")], working, working, 1) == []
    assert choose([run("2")], working, working, 2) == [run("2")]


def test_as_many_start_as_there_are_places() -> None:
    assert names(choose([run("3"), run("1"), run("2")], [], [], 2)) == "1 2"


def test_a_run_takes_a_place_on_each_of_its_devices() -> None:
    both = run("1", devices=GPUS[:2])

    assert choose([run("2", devices=GPUS[1:2])], [both], [both], 1) == []
    assert names(choose([run("2", devices=GPUS[2:3])], [both], [both], 1)) == "2"


def test_the_experiment_with_the_fewest_runs_at_work_comes_first() -> None:
    working = [run("1", "a"), run("2", "a"), run("3", "b")]

    assert names(choose([run("4", "a"), run("5", "b")], working, working, 4)) == "5"


def test_of_experiments_with_as_many_at_work_the_one_served_longest_ago_comes_first() -> None:
    served = [run("1", "b"), run("2", "a")]

    assert names(choose([run("3", "a"), run("4", "b")], [], served, 1)) == "4"
    assert names(choose([run("3", "a"), run("4", "b"), run("5", "new")], [], served, 1)) == "5"


def test_two_experiments_take_turns_however_many_runs_one_has() -> None:
    waiting = [run(f"{number:02}", "many") for number in range(6)] + [run("80", "few"), run("81", "few")]

    order = sorted(positions(waiting, [], [], 1).items(), key=lambda item: item[1])

    assert " ".join(name for name, _ in order) == "00 80 01 81 02 03 04 05"


def test_a_small_run_passes_a_big_one_that_waits_for_other_devices() -> None:
    working = [run("1", "x", GPUS[:1])]
    big, small = run("2", "a", GPUS[:2]), run("3", "b", GPUS[2:])

    assert choose([big, small], working, working, 1) == [small]


def test_the_first_of_the_order_keeps_its_devices_to_itself() -> None:
    working = [run("1", "x", GPUS[:1])]
    big, small = run("2", "a", GPUS[:2]), run("3", "b", GPUS[1:2])

    assert choose([big, small], working, working, 1) == []
    assert choose([big, small], [], working, 1) == [big]


def test_a_run_that_was_passed_too_often_comes_first() -> None:
    at_work = run("0", "a", GPUS[:1])  # so that its experiment is never the one with the fewest
    patient = run("1", "a", GPUS[1:2])
    served, started = [at_work], 0
    for number in range(100, 200):
        newcomer = run(str(number), f"new-{number}", GPUS[1:2])
        [chosen] = choose([patient, newcomer], [at_work], served, 1)
        if chosen == patient:
            break
        served.append(chosen)
        started += 1

    assert started == MOST_PASSED


class Service:
    """A service with random runs: each step some are added, those that may start do, and some end."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.devices = GPUS[: self.random.randint(1, 3)]
        self.per_device = self.random.randint(1, 3)
        self.experiments = [f"e{number}" for number in range(self.random.randint(1, 5))]
        self.added = 0
        self.waiting: list[Waiting] = []
        self.working: list[Waiting] = []
        self.served: list[Waiting] = []

    def add(self) -> None:
        self.added += 1
        devices = sorted(self.random.sample(self.devices, self.random.randint(1, len(self.devices))))
        self.waiting.append(run(f"{self.added:06}", self.random.choice(self.experiments), tuple(devices)))
        self.random.shuffle(self.waiting)

    def start(self) -> list[Waiting]:
        started = choose(self.waiting, self.working, self.served, self.per_device)
        self.waiting = [one for one in self.waiting if one not in started]
        self.working += started
        self.served += started
        return started

    def end(self, number: int) -> None:
        del self.working[number]

    def busiest(self) -> int:
        return max(Counter(device for one in self.working for device in one.devices).values(), default=0)


def services(count: int) -> Iterator[Service]:
    return map(Service, range(count))


def test_no_device_ever_has_more_runs_than_places() -> None:
    for service in services(50):
        for _ in range(60):
            for _ in range(service.random.randint(0, 3)):
                service.add()
            service.start()
            assert service.busiest() <= service.per_device
            assert service.start() == []  # all that may start did
            if service.working:
                service.end(service.random.randrange(len(service.working)))


def test_a_device_is_never_idle_while_all_who_wait_want_only_that_one() -> None:
    for service in services(40):
        service.devices = service.devices[:1]
        for _ in range(service.random.randint(1, 20)):
            service.add()
        service.start()
        assert service.busiest() == min(service.per_device, len(service.served))


@pytest.mark.parametrize("seed", range(12))
def test_nobody_starves_however_many_come_after(seed: int) -> None:
    service = Service(seed)
    for _ in range(10):
        service.add()
    first = set(service.waiting)
    for _ in range(600):  # more come than can be served
        service.add()
        if service.random.random() < 0.5:
            service.experiments.append(f"new-{service.added}")
        service.start()
        if service.working:
            service.end(service.random.randrange(len(service.working)))
        if first.issubset(service.served):
            break

    assert first.issubset(service.served)
    assert service.waiting  # there was somebody to be passed by


def test_positions_are_from_1_on_and_the_order_in_which_runs_then_start() -> None:
    for service in services(50):
        for _ in range(service.random.randint(1, 40)):
            service.add()
        for _ in range(service.random.randint(0, 10)):  # in the middle of its life
            service.start()
            if service.working and service.random.random() < 0.7:
                service.end(service.random.randrange(len(service.working)))
        told = positions(service.waiting, service.working, service.served, service.per_device)
        assert sorted(told.values()) == list(range(1, len(service.waiting) + 1))

        before = len(service.served)
        while service.waiting:
            service.start()
            if service.waiting:
                service.end(0)  # the one at work for longest
        started = [one.reference for one in service.served[before:]]
        assert sorted(told, key=lambda reference: told[reference]) == started


def test_the_order_of_the_arguments_does_not_matter() -> None:
    for service in services(50):
        for _ in range(20):
            service.add()
        one = choose(service.waiting, [], [], service.per_device)
        assert choose(sorted(service.waiting, key=lambda run: run.age), [], [], service.per_device) == one
