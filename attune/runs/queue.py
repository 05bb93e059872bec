"""Which run starts next. Plain data in, a decision out; nothing here waits, reads a clock or touches the disk.

A device has so many places, and a run takes one on each of its devices. Among the waiting the order is: the experiment
with the fewest runs at work; of several the one served longest ago; of its runs the oldest. A run that does not find its
places lets others pass that do; but the first of the order keeps its devices to itself, and whoever was passed often
enough becomes the first: so nobody waits for ever, however many come after.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

MOST_PASSED = 10
"""Younger runs that may take a run's devices, since its experiment was last served there, before it comes first."""

Lane = tuple[str, tuple[str, ...]]


@dataclass(frozen=True)
class Waiting:
    """A run, as the queue sees it.

    Attributes:
        reference: `experiment/name`, or whatever tells it apart.
        experiment: whose turn it is when the run starts.
        created_at: when it was queued, ISO 8601 in UTC; only the order of these matters.
        devices: names of the devices it works on, such as `("cuda:0", "cuda:1")`; see `attune.device.devices_of`.
    """

    reference: str
    experiment: str
    created_at: str
    devices: tuple[str, ...]

    @property
    def age(self) -> tuple[str, str]:
        """Smaller is older; no two runs are of one age."""
        return self.created_at, self.reference

    @property
    def lane(self) -> Lane:
        """Runs of one lane start in the order of their age: they want the same for the same experiment."""
        return self.experiment, self.devices


def choose(
    waiting: Sequence[Waiting], working: Sequence[Waiting], served: Sequence[Waiting], per_device: int
) -> list[Waiting]:
    """The runs to start now, in this order; empty if all places are taken or nobody waits.

    Args:
        waiting: runs that want to start, in any order.
        working: runs at work.
        served: runs that were started, in that order; those at work are among them. Experiments that are not among them
            count as never served.
        per_device: places on each device, at least 1.
    """
    queue = _Queue(waiting, working, served, per_device)
    return list(iter(queue.start, None))


def positions(
    waiting: Sequence[Waiting], working: Sequence[Waiting], served: Sequence[Waiting], per_device: int
) -> dict[str, int]:
    """Each waiting run's place in the queue, from 1, by reference: the order in which `choose` will start them.

    That is so if runs end in the order in which they were started and none is added; nobody knows how long they take.

    Args:
        waiting: as in `choose`.
        working: as in `choose`, in the order in which they were started.
        served: as in `choose`.
        per_device: as in `choose`.
    """
    queue = _Queue(waiting, working, served, per_device)
    found: dict[str, int] = {}
    while queue.lanes:
        run = queue.start()
        if run is not None:
            found[run.reference] = len(found) + 1
        else:
            del queue.working[0]
    return found


class _Queue:
    """The waiting by lane, and what their order depends on."""

    def __init__(
        self, waiting: Sequence[Waiting], working: Sequence[Waiting], served: Sequence[Waiting], per_device: int
    ) -> None:
        self.per_device = per_device
        self.working = list(working)
        self.starts = len(served)
        self.last_served = {run.experiment: number for number, run in enumerate(served)}
        self.lanes: dict[Lane, deque[Waiting]] = defaultdict(deque)
        for run in sorted(waiting, key=lambda run: run.age):
            self.lanes[run.lane].append(run)
        self.passed = Counter[Lane]()  # by how many younger ones the oldest run of a lane was, since the lane was served
        for run in served:
            self._count(run)

    def start(self) -> Waiting | None:
        """The first of the order that finds its places, which it has from here on; None if there is none."""
        places = Counter(device for run in self.working for device in run.devices)
        full = {device for device, taken in places.items() if taken >= self.per_device}
        for number, run in enumerate(sorted((lane[0] for lane in self.lanes.values()), key=self._turn)):
            if full.isdisjoint(run.devices):
                self._take(run)
                return run
            if number == 0:
                full |= set(run.devices)
        return None

    def _turn(self, run: Waiting) -> tuple[bool, int, int, tuple[str, str]]:
        if self.passed[run.lane] >= MOST_PASSED:
            return False, 0, 0, run.age
        at_work = sum(other.experiment == run.experiment for other in self.working)
        return True, at_work, self.last_served.get(run.experiment, -1), run.age

    def _take(self, run: Waiting) -> None:
        self.working.append(run)
        self.last_served[run.experiment] = self.starts
        self.starts += 1
        self._count(run)
        self.lanes[run.lane].popleft()
        if not self.lanes[run.lane]:
            del self.lanes[run.lane]

    def _count(self, started: Waiting) -> None:
        # From when the lane was served, not from when its oldest run was created: of a hundred runs the last would have
        # been passed by everything that came meanwhile, and all that are left would go first.
        self.passed[started.lane] = 0
        for lane, runs in self.lanes.items():
            if lane != started.lane and runs[0].age < started.age and not set(lane[1]).isdisjoint(started.devices):
                self.passed[lane] += 1
