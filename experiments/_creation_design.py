"""The design of fork-latency: the parent's state as axes, and which combinations are measured."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from c10k_probe.limits import Needs

MIB = 1 << 20
PROCESS_METHODS = ("fork", "vfork", "posix_spawn", "clone3")
EXEC_METHODS = ("fork_exec_static", "fork_exec_dynamic", "posix_spawn_static", "posix_spawn_dynamic")
THREAD_METHODS = ("pthread_create", "pthread_create_64k", "pthread_create_detached")
PYTHON_METHODS = (
    "os.fork",
    "subprocess.Popen",
    "multiprocessing.Process",
    "threading.Thread",
    "asyncio.create_task",
)
BASE_METHOD = "pthread_create"  # what the others are compared with
COPYING_METHODS = ("fork", "fork_exec_static", "fork_exec_dynamic")
C_METHODS = (*PROCESS_METHODS, *THREAD_METHODS, *EXEC_METHODS)


@dataclass(frozen=True)
class State:
    """What the parent holds when it creates one more; as asked for, verified by the helper in /proc."""

    axis: str = "base"
    rss: int = 0
    file_rss: int = 0
    mappings: int = 0
    descriptors: int = 0
    alive: int = 0
    alive_kind: str = ""
    huge_pages: str = "off"
    libraries: int = 0


@dataclass(frozen=True)
class Axis:
    """One way to vary the state: the levels of the default sweep, and the highest level of the joint design."""

    name: str
    levels: tuple[int, ...]
    joint: int = 0


MOST_RSS = 128 * MIB


def axes(most_rss: int = MOST_RSS) -> tuple[Axis, ...]:
    """The axes of a sweep whose largest parent has this much memory; the levels lie alike below it."""
    return (
        Axis("rss", tuple(most_rss // part for part in (128, 32, 8, 2, 1)), most_rss),
        Axis("file_rss", (most_rss // 8, most_rss // 2), most_rss // 2),
        Axis("mappings", (100, 1000, 10_000), 5000),
        Axis("descriptors", (100, 1000, 10_000), 5000),
        Axis("alive", (100, 400, 1000), 1000),
    )


def huge_levels(most_rss: int = MOST_RSS) -> tuple[int, ...]:
    """Sizes that are swept in small pages too, as far as there is a whole huge page in them."""
    return tuple(size for part in (8, 2, 1) if (size := most_rss // part) >= HUGE_PAGE_BYTES)


LIBRARY_LEVELS = (8, 32, 128)
HUGE_PAGE_BYTES = 2 * MIB
JOINT_POINTS = 12
NUMERIC = ("rss", "file_rss", "mappings", "descriptors", "alive", "libraries")


def given_states(levels: Mapping[str, Sequence[int]], huge_pages: Sequence[str]) -> Iterator[State]:
    """Every combination of the levels that were typed."""
    axis = "given" if any(tuple(values) != (0,) for values in levels.values()) else "base"
    for values, huge in product(product(*levels.values()), huge_pages):
        asked = dict(zip(levels, values, strict=True))
        if huge == "on" and not asked["rss"]:
            continue  # nothing to put into huge pages
        yield State(
            axis=axis,
            rss=asked["rss"],
            file_rss=asked["file_rss"],
            mappings=asked["mappings"],
            descriptors=asked["descriptors"],
            alive=asked["alive"],
            huge_pages=huge,
            libraries=asked["libraries"],
        )


def swept_states(method: str, linking: str, most_rss: int = MOST_RSS) -> Iterator[State]:
    """Each axis alone, all others at 0, which is the base. Other than by fork, only the far end is asked.

    Beside live tasks every level is asked of threads too, which fork is compared with there.
    """
    if method not in COPYING_METHODS and linking != "dynamic":
        return  # what is not copied is the same in every build
    levels = {axis.name: axis.levels for axis in axes(most_rss)} | {"libraries": LIBRARY_LEVELS}
    for name, steps in levels.items():
        is_whole = method in COPYING_METHODS or (name, method) == ("alive", BASE_METHOD)
        for level in steps if is_whole else steps[-1:]:
            yield at_level(name, level)
    huge = huge_levels(most_rss)
    for level in huge if method in COPYING_METHODS else huge[-1:]:
        yield State(axis="huge_pages", rss=level, huge_pages="on")


def at_level(axis: str, level: int) -> State:
    """The state that differs from nothing in one axis only."""
    values = {name: level if name == axis else 0 for name in NUMERIC}
    return next(dataclasses.replace(state, axis=axis) for state in given_states(_single(values), ("off",)))


def joint_states(seed: int, most_rss: int = MOST_RSS) -> Iterator[State]:
    """All axes varied at once, a Latin hypercube: each axis is cut into as many strata as there are points."""
    generator = random.Random(f"joint/{seed}")
    strata = {axis.name: generator.sample(range(JOINT_POINTS), JOINT_POINTS) for axis in axes(most_rss)}
    for point in range(JOINT_POINTS):
        values = dict.fromkeys(NUMERIC, 0)
        values |= {axis.name: axis.joint * strata[axis.name][point] // (JOINT_POINTS - 1) for axis in axes(most_rss)}
        for state in given_states(_single(values), ("off",)):
            yield dataclasses.replace(state, axis="joint")


def is_at_rest(state: State) -> bool:
    """Whether the parent holds nothing further."""
    return dataclasses.replace(state, axis="", alive_kind="") == State(axis="")


def with_kind(state: State, method: str, kind: str) -> State:
    """The state with who is alive: ``own`` means threads for a thread and children for a process."""
    if not state.alive:
        return dataclasses.replace(state, alive_kind="none")
    own = "threads" if method in THREAD_METHODS else "children"
    return dataclasses.replace(state, alive_kind=own if kind == "own" else kind)


def needs(state: State, method: str) -> Needs:
    """What the state takes of each limit; a child of a large parent needs page tables, not the memory itself."""
    threads = state.alive if state.alive_kind == "threads" else 0
    children = state.alive - threads
    return Needs(
        descriptors_count=24 + state.descriptors,
        system_descriptors_count=24 + state.descriptors,
        tasks_count=3 + state.alive,
        mappings_count=64 + state.mappings + 2 * threads + 5 * state.libraries,
        memory_bytes=1.02 * (state.rss + state.file_rss) + threads * 48_000 + children * 150_000,
        address_space_bytes=state.rss + state.file_rss + threads * (8 << 20),
        commit_bytes=(2 if method not in THREAD_METHODS else 1) * state.rss + threads * (8 << 20),
    )


def weight(state: State) -> float:
    """Roughly how long a launch takes, in milliseconds."""
    return 8 + (state.rss + state.file_rss) / MIB * 1.2 + state.alive * 0.1 + state.mappings * 0.02


def _single(values: Mapping[str, int]) -> dict[str, Sequence[int]]:
    return {name: (values[name],) for name in NUMERIC}
