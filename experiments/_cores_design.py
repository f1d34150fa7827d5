"""What cores compares: the arms, the loads, and when there are too few CPUs to tell a speed-up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from c10k_probe.experiment import Cell
from c10k_probe.limits import Needs
from c10k_probe.parameters import Parameters, parameter
from c10k_probe.servers import CLIENT_END, REFERENCE_MODELS, ServerModel
from c10k_probe.servers.node_cluster import NGINX_NODE, NODE_ALONE, NODE_CLUSTER
from c10k_probe.servers.tornado import NGINX_TORNADO, TORNADO_ALONE

US: Final = 1000
MS: Final = 1000 * US
S: Final = 1000 * MS
SHORT, LONG = "short", "long"
FEWEST_CPUS: Final = 4  # of C51's rule
OPEN_COUNT: Final = 625  # requests of an open loop: a p99 needs 500, five standard deviations less
_WARM_UP_S: Final = 0.1
_SPARSE_S: Final = 0.2
_START_S: Final = {"epoll": 0.05, "node": 0.3, "tornado": 0.6}


@dataclass(frozen=True)
class Arm:
    """One way to use several cores. base: the same handler in one process, whose speed-up is 1 by definition.

    is_hashed: the kernel chooses a worker by a hash of addresses, so that shares are binomial. has_master: its first
    process serves nobody. has_front: one more process stands before the workers, and is counted with them.
    """

    model: ServerModel
    base: str
    is_hashed: bool = False
    has_master: bool = True
    has_front: bool = False

    def busy_cpus_count(self, workers_count: int, server_cpus_count: int) -> int:
        """CPUs that its workers, and who stands before them, can have at once."""
        return min(workers_count + self.has_front, server_cpus_count)


def _c(name: str, *, is_hashed: bool = False, has_master: bool = True) -> Arm:
    return Arm(REFERENCE_MODELS[name], "epoll", is_hashed, has_master)


ARMS: Final[Mapping[str, Arm]] = {
    "epoll": _c("epoll", has_master=False),
    "inherited": _c("epoll-inherited"),
    "exclusive": _c("epoll-exclusive"),
    "reuseport": _c("epoll-reuseport", is_hashed=True),
    "passed": _c("epoll-passed"),
    "node": Arm(NODE_ALONE, "node", has_master=False),
    "node-cluster": Arm(NODE_CLUSTER, "node"),
    "nginx-node": Arm(NGINX_NODE, "node", has_front=True),
    "tornado": Arm(TORNADO_ALONE, "tornado", has_master=False),
    "nginx-tornado": Arm(NGINX_TORNADO, "tornado", has_front=True),
}
OF_C: Final = tuple(name for name, arm in ARMS.items() if arm.base == "epoll")


def is_base(name: str) -> bool:
    """Whether it is one process."""
    return ARMS[name].base == name


@dataclass(frozen=True)
class CoresParameters(Parameters):
    """What may be chosen on the command line."""

    workers: tuple[int, ...] = parameter(
        (4,),
        "Processes with an event loop each, comma-separated; A..B: and the powers of two between.",
        minimum=1,
        maximum=1024,
        many=True,
        ranges=True,
        doubles=True,
    )
    arm: tuple[str, ...] = parameter(
        tuple(ARMS),
        "Ways to use several cores, comma-separated, or all; what they are compared with comes along.",
        choices=tuple(ARMS),
        many=True,
        quick=OF_C,
    )
    load: tuple[str, ...] = parameter(
        (SHORT, LONG), "A connection for each request, or kept ones.", choices=(SHORT, LONG), many=True
    )
    work: int = parameter(
        200 * US,
        "CPU time of the handler for a request; the open loops, and so the run, take as many times longer.",
        dimension="duration",
        minimum=10 * US,
        maximum=100 * MS,
    )
    connections: int = parameter(1000, "Kept connections of the open loop.", minimum=1, maximum=20_000, quick=200)
    concurrency: int = parameter(32, "Requests at once of the closed loop.", minimum=1, maximum=1000)
    duration: int = parameter(
        200 * MS,
        f"Length of the closed loop of a launch; the open one lasts as long, and for {OPEN_COUNT} requests.",
        dimension="duration",
        minimum=100 * MS,
        maximum=600 * S,
        quick=150 * MS,
    )
    utilisation: int = parameter(
        50, "Rate of the open loop, in percent of what the closed one reached.", minimum=10, maximum=95
    )


def too_few_cpus(cpus_count: int, server_cpus_count: int, workers_count: int) -> str:
    """Why a speed-up of so many workers cannot be measured here; empty where it can."""
    if cpus_count < FEWEST_CPUS:
        return (
            f"{cpus_count} CPUs, {FEWEST_CPUS} are needed: the client takes one, a speed-up needs several of the rest"
        )
    if workers_count > server_cpus_count:
        return f"{workers_count} workers on {server_cpus_count} CPUs, as one of {cpus_count} is kept for the client"
    return ""


def cells(parameters: CoresParameters) -> Iterator[Cell]:
    """Each arm with each number of workers, and the one process that it is compared with."""
    bases = dict.fromkeys(ARMS[name].base for name in parameters.arm)
    for name in dict.fromkeys((*bases, *parameters.arm)):
        for workers_count in (1,) if is_base(name) else parameters.workers:
            for load in parameters.load:
                yield _cell(parameters, name, workers_count, load)


def _cell(parameters: CoresParameters, name: str, workers_count: int, load: str) -> Cell:
    arm = ARMS[name]
    connections_count = max(parameters.connections if load == LONG else 0, 2 * parameters.concurrency)
    needs = arm.model.fixed.plus(arm.model.per_connection.plus(CLIENT_END).times(connections_count))
    each = Needs(descriptors_count=8, system_descriptors_count=8, tasks_count=1, memory_bytes=1 << 20)
    if arm.base != "epoll":
        each = Needs(descriptors_count=8, system_descriptors_count=64, tasks_count=16, memory_bytes=50 << 20)
    own = Needs(descriptors_count=64, system_descriptors_count=128)
    open_s = OPEN_COUNT * parameters.work / S / (parameters.utilisation / 100)  # of one CPU
    weight = _START_S[arm.base] + _WARM_UP_S + parameters.duration / S + max(parameters.duration / S, open_s)
    weight += _SPARSE_S if load == SHORT else 0.0
    return Cell(
        {"arm": name, "workers_count": workers_count, "load": load},
        needs.plus(each.times(workers_count)).plus(own),
        weight,
    )
