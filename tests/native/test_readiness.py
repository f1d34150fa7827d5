"""readiness: each byte is delivered exactly once by every mechanism, on as many sockets as were asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import cannot_run
from hypothesis import given, settings
from hypothesis import strategies as st

from c10k_probe import native
from native.driving import Foster, Outcome, run
from native.kernel_view import descriptors_of, living_members, wait_until

EPOLLS = ("epoll", "epoll_edge", "epoll_oneshot")
URINGS = ("io_uring_poll", "io_uring_poll_multishot", "io_uring_recv")
MECHANISMS = ("select", "poll", *EPOLLS, *URINGS)
WORKLOADS = ("chain", "short")
WAITS = {"select": "select", "poll": "poll", **dict.fromkeys(EPOLLS, "epoll_wait")}
WAITS |= dict.fromkeys(URINGS, "io_uring_enter")
EXAMPLES = settings(max_examples=120, deadline=None)
OWN_DESCRIPTORS_COUNT = 3


@pytest.fixture(scope="session")
def has_io_uring() -> bool:
    """Whether the helper can use all of io_uring here."""
    outcomes = [take(mechanism, 2, [1]) for mechanism in URINGS]
    assert {outcome.code for outcome in outcomes} <= {0, 77}
    return all(outcome.code == 0 for outcome in outcomes)


@pytest.fixture(params=MECHANISMS)
def mechanism(request: pytest.FixtureRequest, has_io_uring: bool) -> str:
    """Each mechanism that is supported here."""
    if request.param in URINGS and not has_io_uring:
        cannot_run("the kernel does not allow io_uring")
    return str(request.param)


def arguments_of(mechanism: str, watched: int, active: list[int], workload: str = "chain") -> list[object]:
    """The arguments that each launch needs; two passes, none of which is a warm-up."""
    listed = ",".join(map(str, active))
    load = ["--mechanism", mechanism, "--watched", watched, "--active", listed, "--workload", workload]
    return [*load, "--passes", 2, "--warmup", 0]


def take(mechanism: str, watched: int, active: list[int], workload: str = "chain", *more: object) -> Outcome:
    """One launch."""
    return run("readiness", *arguments_of(mechanism, watched, active, workload), *more)


def events_of(workload: str, active: int, writes: int) -> int:
    """Bytes that a pass has to deliver."""
    return active + writes if workload == "chain" else -(-writes // active) * active


def rounds_of(workload: str, active: int, writes: int) -> int:
    """How often all that travel have to arrive in a pass."""
    return (1 if workload == "chain" else 0) + -(-writes // active)


def test_the_mechanisms_are_those_of_the_helper() -> None:
    complaint = run("readiness", "--mechanism", "?", "--watched", 1, "--active", 1).stderr

    words = re.search(r"one of (.*), not", complaint)
    assert words is not None
    assert tuple(words[1].split(", ")) == MECHANISMS


# --- each byte once ---------------------------------------------------------------------------------------------------


@EXAMPLES
@given(data=st.data())
def test_every_byte_is_delivered_once(has_io_uring: bool, data: st.DataObject) -> None:
    mechanism = data.draw(st.sampled_from(MECHANISMS if has_io_uring else MECHANISMS[:-3]))
    workload = data.draw(st.sampled_from(WORKLOADS))
    watched = data.draw(st.integers(1, 40))
    active = data.draw(st.lists(st.integers(1, watched), min_size=1, max_size=4))
    writes = data.draw(st.integers(1, 90))
    linking = data.draw(st.sampled_from(["dynamic", "static"]))
    seed = data.draw(st.integers(0, 2**63 - 1))

    load = [*arguments_of(mechanism, watched, active, workload), "--writes", writes, "--seed", seed]
    outcome = run("readiness", *load, linking=linking)

    assert (outcome.code, outcome.stderr) == (0, "")
    assert outcome.only("watching")["watched_count"] == watched
    assert outcome.only("end") == {"type": "end", "samples_count": 2 * len(active), "dropped_count": 0}
    levels = outcome.of_type("passes")
    assert [level["active_count"] for level in levels] == active
    for level in levels:
        check_level(level, mechanism, workload, writes)


def check_level(level: native.Message, mechanism: str, workload: str, writes: int) -> None:
    """The counts of two passes."""
    active, calls = int(level["active_count"]), level["calls_count"]
    events, rounds = events_of(workload, active, writes), rounds_of(workload, active, writes)
    is_short = workload == "short"

    assert (level["events_per_pass_count"], level["rounds_per_pass_count"]) == (events, rounds)
    assert calls.get("read", 0) == (0 if mechanism == "io_uring_recv" else 2 * events)
    assert calls["write"] == 2 * events
    assert calls.get("socketpair", 0) == (2 * events if is_short else 0)
    assert calls.get("close", 0) == (4 * events if is_short else 0)
    assert level["waits_count"] >= 2 * rounds
    assert level["spurious_count"] == 0
    if mechanism not in URINGS:  # all that is ready comes at once
        assert level["waits_count"] == calls[WAITS[mechanism]] == 2 * rounds
    if mechanism in EPOLLS:
        rearming = 2 * events if mechanism == "epoll_oneshot" else 0
        assert calls.get("epoll_ctl", 0) == (4 * events if is_short else rearming)
    check_times(level, is_short)


def check_times(level: native.Message, is_short: bool) -> None:
    """Times that are there and possible."""
    assert len(level["pass_ns"]) == 2
    assert all(sample > 0 for sample in level["pass_ns"])
    if is_short:
        assert all(0 < part < whole for part, whole in zip(level["register_ns"], level["pass_ns"], strict=True))
    else:
        assert level["register_ns"] is None
    assert level["cpu_user_ns"] >= 0 and level["cpu_system_ns"] >= 0
    assert level["voluntary_switches_count"] >= 0 and level["involuntary_switches_count"] >= 0


@pytest.mark.parametrize("workload", WORKLOADS)
def test_more_than_one_wait_can_bring(mechanism: str, workload: str) -> None:
    """More than the submission ring holds, and than one call of io_uring_enter handles."""
    outcome = take(mechanism, 301, [300, 1, 150], workload, "--writes", 1000)

    assert outcome.code == 0
    assert outcome.only("end")["dropped_count"] == 0
    for level in outcome.of_type("passes"):
        check_level(level, mechanism, workload, 1000)


@EXAMPLES
@given(data=st.data())
def test_a_pass_of_about_a_time_is_whole_rounds(has_io_uring: bool, data: st.DataObject) -> None:
    """None is dropped, and for each event there is 1/active of a wait."""
    mechanism = data.draw(st.sampled_from(MECHANISMS if has_io_uring else MECHANISMS[:-3]))
    workload = data.draw(st.sampled_from(WORKLOADS))
    watched = data.draw(st.integers(1, 40))
    active = data.draw(st.lists(st.integers(1, watched), min_size=1, max_size=4))
    pass_us = data.draw(st.integers(1, 300))

    outcome = take(mechanism, watched, active, workload, "--pass-us", pass_us, "--warmup", 2)

    assert outcome.code == 0
    assert outcome.only("end") == {"type": "end", "samples_count": 2 * len(active), "dropped_count": 0}
    for level in outcome.of_type("passes"):
        rounds = int(level["rounds_per_pass_count"])
        writes = (rounds - (workload == "chain")) * int(level["active_count"])
        assert level["events_per_pass_count"] == rounds * level["active_count"]
        check_level(level, mechanism, workload, writes)


@pytest.mark.alone  # how many rounds a time takes is a neighbour's affair, too
@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_longer_pass_has_more_rounds_and_one_takes_what_it_takes(workload: str) -> None:
    def rounds(active: int, pass_us: int) -> int:
        return int(take("epoll", 400, [active], workload, "--pass-us", pass_us).only("passes")["rounds_per_pass_count"])

    assert rounds(1, 20_000) > rounds(1, 2_000) > rounds(400, 1) == 1


def test_the_length_of_a_pass_is_told_in_one_way() -> None:
    outcome = take("poll", 2, [1], "chain", "--pass-us", 100, "--writes", 5)

    assert (outcome.code, outcome.messages) == (2, [])
    assert outcome.stderr == "readiness: --pass-us does not go with --writes\n"


def test_a_pass_without_its_number_of_writes_has_1000_or_one_for_each(mechanism: str) -> None:
    levels = take(mechanism, 1008, [1, 1008]).of_type("passes")

    assert [level["events_per_pass_count"] for level in levels] == [1001, 2016]


# --- how many passes --------------------------------------------------------------------------------------------------


def passes_count(*more: object) -> int:
    """Of one launch with one active socket of two."""
    outcome = run("readiness", "--mechanism", "epoll", "--watched", 2, "--active", 1, "--writes", 5, *more)
    return len(outcome.only("passes")["pass_ns"])


def test_without_time_there_is_one_pass() -> None:
    assert passes_count("--budget-ms", 0) == 1


def test_no_more_passes_than_asked_for() -> None:
    assert passes_count("--budget-ms", 60_000, "--passes", 17) == 17


def test_the_budget_is_for_all_levels_together() -> None:
    load = ["--mechanism", "epoll", "--watched", 2, "--active", "1,1,1,1", "--writes", 5, "--passes", 100_000]
    levels = run("readiness", *load, "--budget-ms", 200).of_type("passes")

    assert all(len(level["pass_ns"]) > 1 for level in levels)
    assert sum(sum(level["pass_ns"]) for level in levels) < 200e6 + sum(max(level["pass_ns"]) for level in levels)


# --- the pauses -------------------------------------------------------------------------------------------------------


@pytest.fixture
def paused(mechanism: str) -> Iterator[native.Helper]:
    """A helper of each mechanism that waits for `watch`."""
    load = [*arguments_of(mechanism, 23, [1, 23]), "--pause"]
    with native.Helper("readiness", load) as helper:
        helper.expect("opened")
        yield helper


def watched_by_epoll(pid: int) -> int:
    """How many descriptors the kernel says that the process's epoll watches; proc(5), fdinfo."""
    texts = [path.read_text() for path in Path(f"/proc/{pid}/fdinfo").iterdir()]
    return sum(line.startswith("tfd:") for text in texts for line in text.splitlines())


def sockets_count(pid: int) -> int:
    """Descriptors of sockets."""
    return sum(str(link.readlink()).startswith("socket:") for link in Path(f"/proc/{pid}/fd").iterdir())


def test_it_registers_and_runs_when_told_to(paused: native.Helper, mechanism: str) -> None:
    own = OWN_DESCRIPTORS_COUNT + (0 if mechanism in ("select", "poll") else 1)
    assert descriptors_of(paused.pid) == 24 + own
    assert sockets_count(paused.pid) == 24
    assert watched_by_epoll(paused.pid) == 0

    watching = paused.ask("watch", "watching")
    assert (watching["mechanism"], watching["watched_count"]) == (mechanism, 23)
    assert watching["setup_ns"] > 0
    assert (watching["flags"] is not None) == (mechanism in URINGS)
    assert watched_by_epoll(paused.pid) == (23 if mechanism in EPOLLS else 0)
    assert descriptors_of(paused.pid) == 24 + own

    paused.send("run")
    assert [paused.expect("passes")["active_count"] for _ in range(2)] == [1, 23]
    assert paused.finish()["samples_count"] == 4


def test_the_end_of_its_input_is_the_end(paused: native.Helper) -> None:
    assert paused.finish() == {"type": "end", "samples_count": 0, "dropped_count": 0}


def test_the_end_of_its_input_before_the_run_is_the_end(paused: native.Helper) -> None:
    paused.ask("watch", "watching")

    assert paused.finish() == {"type": "end", "samples_count": 0, "dropped_count": 0}


def test_another_word_is_refused() -> None:
    outcome = run("readiness", *arguments_of("poll", 2, [1]), "--pause", commands="run\n")

    assert outcome.code == 2
    assert outcome.stderr == "readiness: expected the command 'watch', not 'run'\n"


# --- nothing stays ----------------------------------------------------------------------------------------------------


def test_killed_while_it_measures_it_leaves_nothing(mechanism: str) -> None:
    load = ["--mechanism", mechanism, "--watched", 100, "--active", "1,50", "--budget-ms", 60_000, "--passes", 100_000]
    with native.Helper("readiness", load) as helper:
        helper.expect("opened")
        helper.expect("watching")
        helper.signal_group()
        wait_until(lambda: not living_members(helper.pid), "it is gone")


def test_it_dies_with_its_parent(mechanism: str) -> None:
    load = ["--mechanism", mechanism, "--watched", 100, "--active", 1, "--budget-ms", 60_000, "--passes", 100_000]
    with Foster("readiness", *load) as foster:
        foster.receive("watching")
        foster.kill_starter()
