"""connection_holder's `pump`: what it counts is what the server saw, whatever the server does, and nothing stays."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from c10k_probe import native
from c10k_probe.load import Holder, Pumped
from c10k_probe.servers import REFERENCE_MODELS, ReferenceServer
from native.answering import BAD_ANSWERS, MESSAGE_BYTES, PythonServer, on_third
from native.driving import Message, Server, holding, run
from native.kernel_view import descriptors_of, sockets_of, state_of, wait_until

HELD = 6
MS = 1_000_000
FAILURES = {
    "last byte wrong": "EBADMSG",
    "another index": "EBADMSG",
    "the message before": "EBADMSG",
    "silent": "ETIMEDOUT",
    "closing": "EOF",
    "half": "ETIMEDOUT",
    "too long": "EBADMSG",
    "twice": "EBADMSG",
}
BAD = {
    **BAD_ANSWERS,
    "too long": lambda message, before: message + b"x",
    "twice": lambda message, before: message + message,
}


def right(_number: int, _round: int, message: bytes, _before: bytes) -> bytes:
    """What an echo server answers."""
    return message


@contextlib.contextmanager
def held(port: int, *arguments: object, linking: str = "dynamic", count: int = HELD) -> Iterator[native.Helper]:
    """A holder of ``count`` connections, each of which has sent one message."""
    with holding(port, *arguments, linking=linking) as holder:
        assert holder.ask(f"ramp {count}", "ramped")["open_count"] == count
        yield holder


def answered(pumped: Message) -> int:
    return int(pumped["warmup_count"] + pumped["requests_count"] + pumped["drained_count"])


def is_usable(holder: native.Helper, count: int = HELD) -> bool:
    """Whether every connection is held and echoes, so that no stray answer is on its way."""
    echoed = holder.ask("echo 0 5", "echoed")
    status = holder.ask("status", "status")
    return (echoed["ok_count"], echoed["failed_count"], status["open_count"]) == (count, 0, count)


# --- counts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("linking", native.LINKINGS)
@pytest.mark.parametrize("concurrency", [1, 2, HELD])
def test_the_server_saw_what_is_counted(concurrency: int, linking: str) -> None:
    with PythonServer(right) as server, held(server.port, linking=linking) as holder:
        pumped = holder.ask(f"pump {concurrency} 200 50", "pumped")
        messages = server.messages[HELD:]

        assert (pumped["target_count"], pumped["concurrency_count"]) == (concurrency, concurrency)
        assert (pumped["failed_count"], pumped["failure"]) == (0, None)
        assert pumped["warmup_count"] > 0
        assert pumped["requests_count"] > 0
        assert pumped["drained_count"] == concurrency, "each has one under way when the window ends"
        assert answered(pumped) == len(messages)
        assert {int.from_bytes(message[:8], "little") for message in messages} == set(range(concurrency))
        assert len({message[8:16] for message in messages}) == len(messages), "a counter is used once"
        assert is_usable(holder)
        assert holder.finish() == {
            "type": "end",
            "samples_count": HELD + pumped["requests_count"] + HELD,
            "dropped_count": 0,
        }


@pytest.mark.parametrize("model", REFERENCE_MODELS)
def test_the_kernel_saw_what_is_counted(model: str, require_tool: Callable[[str], str]) -> None:
    with Server(model) as server, held(server.port) as holder:
        pumped = holder.ask("pump 4 200 50", "pumped")
        query = [require_tool("ss"), "-Htin", "state", "established", f"dport = :{server.port}"]
        text = subprocess.run(query, capture_output=True, text=True, check=True).stdout
        received = [int(count) for count in re.findall(r"\bbytes_received:(\d+)", text)]

        assert len(received) == HELD
        assert sum(received) == (HELD + answered(pumped)) * MESSAGE_BYTES
        assert received.count(MESSAGE_BYTES) == HELD - 4, "the others were left alone"
        assert is_usable(holder)


@pytest.mark.parametrize("model", REFERENCE_MODELS)
def test_times_of_a_pump(model: str) -> None:
    with Server(model) as server, held(server.port) as holder:
        before_ns = time.monotonic_ns()
        pumped = holder.ask("pump 1 200 50", "pumped")
        after_ns = time.monotonic_ns()

    latency = pumped["latency_ns"]
    assert pumped["latency_samples_every"] == 1
    assert len(latency) == pumped["requests_count"]
    assert min(latency) > 0
    assert sum(latency[1:]) <= pumped["duration_ns"], "one after another; the first may have begun in the warm-up"
    assert pumped["duration_ns"] >= 200 * MS
    assert before_ns < pumped["first_send_ns"] <= pumped["last_answer_ns"] - 250 * MS
    assert pumped["last_answer_ns"] < after_ns
    assert 0 < pumped["client_cpu_ns"] < after_ns - before_ns


def test_its_cpu_time_is_no_more_than_the_schedulers() -> None:
    with Server("epoll") as server, held(server.port) as holder:
        schedstat = Path(f"/proc/{holder.pid}/schedstat")
        before_ns = int(schedstat.read_text().split()[0])
        pumped = holder.ask("pump 6 300", "pumped")
        wait_until(lambda: state_of(holder.pid) == "S", "it has said everything")
        whole_ns = int(schedstat.read_text().split()[0]) - before_ns

        assert 0 < pumped["client_cpu_ns"] <= whole_ns


def test_without_a_warm_up_all_is_counted_from_the_first() -> None:
    with PythonServer(right) as server, held(server.port) as holder:
        pumped = holder.ask("pump 3 100", "pumped")

        assert (pumped["warmup_count"], pumped["drained_count"]) == (0, 3)
        assert answered(pumped) == len(server.messages) - HELD
        assert len(pumped["latency_ns"]) == pumped["requests_count"]


@pytest.mark.parametrize(("asked", "used"), [(99, HELD), (0, HELD), (HELD, HELD)])
def test_no_more_than_are_held(asked: int, used: int) -> None:
    with Server("epoll") as server, held(server.port) as holder:
        pumped = holder.ask(f"pump {asked} 50", "pumped")

        assert (pumped["target_count"], pumped["concurrency_count"]) == (asked or HELD, used)
        assert is_usable(holder)


def test_where_none_is_held_nothing_is_counted() -> None:
    with Server("epoll") as server, holding(server.port) as holder:
        assert holder.ask("pump 5 1000", "pumped") == {
            "type": "pumped",
            "target_count": 5,
            "concurrency_count": 0,
            "duration_ns": None,
            "requests_count": 0,
            "warmup_count": 0,
            "drained_count": 0,
            "failed_count": 0,
            "client_cpu_ns": None,
            "first_send_ns": None,
            "last_answer_ns": None,
            "latency_ns": [],
            "latency_samples_every": 1,
            "failure": None,
        }
        assert holder.ask("ramp 3", "ramped")["open_count"] == 3
        assert holder.ask("pump 3 50", "pumped")["requests_count"] > 0


@pytest.mark.parametrize("most", [2, 3, 64])
def test_latencies_are_thinned_evenly(most: int) -> None:
    with Server("epoll") as server, held(server.port, "--pump-samples", most) as holder:
        pumped = holder.ask("pump 4 300", "pumped")

    kept, every, requests = len(pumped["latency_ns"]), pumped["latency_samples_every"], pumped["requests_count"]
    assert requests > most
    assert every & (every - 1) == 0
    assert most // 2 <= kept <= most - most % 2
    assert requests // every <= kept <= -(-requests // every)


@pytest.mark.parametrize("size_bytes", [16, 4096])
def test_message_sizes(size_bytes: int) -> None:
    with Server("epoll") as server, held(server.port, "--message-bytes", size_bytes) as holder:
        pumped = holder.ask("pump 6 100", "pumped")

        assert (pumped["failed_count"], pumped["requests_count"] > 0) == (0, True)
        assert is_usable(holder)


# --- other commands ---------------------------------------------------------------------------------------------------


def test_between_other_commands() -> None:
    with Server("thread") as server, held(server.port) as holder:
        for target in (HELD, 2 * HELD):
            assert holder.ask(f"ramp {target}", "ramped")["open_count"] == target
            before = descriptors_of(holder.pid)
            assert holder.ask("pump 5 50 10", "pumped")["failed_count"] == 0
            assert holder.ask("pump 0 50 10", "pumped")["failed_count"] == 0
            assert descriptors_of(holder.pid) == before
            assert is_usable(holder, target)
            assert len(sockets_of(holder.pid)) == target
        assert holder.ask("close", "closed")["closed_count"] == 2 * HELD
        server.wait_for_open(0)


@pytest.mark.parametrize(
    "command", ["pump", "pump 1", "pump 1 0", "pump 1 3600001", "pump 1 1 3600001", "pump 1 1 1 1", "pump 1000001 1"]
)
def test_bad_commands(command: str) -> None:
    outcome = run("connection_holder", "--port", 9, commands=f"{command}\n")

    assert (outcome.code, len(outcome.stderr.splitlines()), outcome.of_type("end")) == (2, 1, [])


@pytest.mark.parametrize("most", [1, 100_001])
def test_a_room_for_samples_that_cannot_be(most: int) -> None:
    assert run("connection_holder", "--port", 9, "--pump-samples", most).code == 2


# --- bad servers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FAILURES)
def test_bad_answers_are_counted_and_closed_and_the_others_go_on(kind: str) -> None:
    with (
        PythonServer(on_third(BAD[kind], first_round=5)) as server,
        held(server.port, "--timeout-ms", 300) as holder,
    ):
        pumped = holder.ask("pump 6 600 0", "pumped")
        seen = [int.from_bytes(message[:8], "little") for message in server.messages]

        assert (pumped["concurrency_count"], pumped["failed_count"]) == (6, 2)
        assert (seen.count(0), seen.count(3)) == (6, 6), "nothing is sent after the first bad answer"
        failure = pumped["failure"]
        assert (failure["call"], failure["name"], failure["at_count"]) == ("recv", FAILURES[kind], 4)
        assert pumped["drained_count"] == 4
        assert answered(pumped) + 2 == len(seen) - HELD
        assert len(pumped["latency_ns"]) == pumped["requests_count"]
        assert pumped["duration_ns"] >= 600 * MS
        assert len(sockets_of(holder.pid)) == 4
        assert is_usable(holder, 4)
        assert holder.ask("pump 9 50", "pumped")["concurrency_count"] == 4
        assert holder.finish()["dropped_count"] == 2


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_server_that_dies_or_hangs_in_the_middle(signal_number: int) -> None:
    with Server("epoll") as server, held(server.port, "--timeout-ms", 300) as holder:
        holder.send("pump 6 60000 50")
        time.sleep(0.3)
        os.kill(server.pid, signal_number)
        pumped = holder.expect("pumped")

        names = {signal.SIGKILL: {"EOF", "ECONNRESET"}, signal.SIGSTOP: {"ETIMEDOUT"}}
        assert pumped["failure"]["name"] in names[signal.Signals(signal_number)]
        assert (pumped["failed_count"], pumped["drained_count"], pumped["failure"]["at_count"]) == (6, 0, 0)
        assert pumped["requests_count"] > 0
        assert 0 < pumped["duration_ns"] < 60_000 * MS
        assert sockets_of(holder.pid) == []
        assert holder.ask("pump 6 50", "pumped")["concurrency_count"] == 0


def test_all_break_before_anything_is_counted() -> None:
    with PythonServer(lambda _n, turn, message, _b: None if turn else message) as server, held(server.port) as holder:
        pumped = holder.ask("pump 6 1000 5000", "pumped")

    assert (pumped["failed_count"], pumped["requests_count"], answered(pumped)) == (6, 0, 0)
    assert [pumped[name] for name in ("duration_ns", "client_cpu_ns", "last_answer_ns")] == [None] * 3
    assert pumped["first_send_ns"] > 0


def test_an_answer_in_pieces_is_one_and_is_timed_to_its_last_byte() -> None:
    with PythonServer(right, pause_s=0.02) as server, held(server.port, count=2) as holder:
        pumped = holder.ask("pump 2 200 50", "pumped")

        assert (pumped["failed_count"], pumped["drained_count"]) == (0, 2)
        assert answered(pumped) == len(server.messages) - 2
        assert min(pumped["latency_ns"]) >= 20 * MS
        assert is_usable(holder, 2)


def test_a_window_shorter_than_an_answer_counts_none() -> None:
    with PythonServer(right, pause_s=0.3) as server, held(server.port, count=1) as holder:
        pumped = holder.ask("pump 1 20", "pumped")

        assert (pumped["requests_count"], pumped["drained_count"], pumped["failed_count"]) == (0, 1, 0)
        assert (pumped["latency_ns"], pumped["duration_ns"] >= 20 * MS) == ([], True)
        assert is_usable(holder, 1)


def test_a_pause_of_the_client_is_no_time_out_of_the_server() -> None:
    many = 600  # more than it takes from epoll at once
    with Server("epoll") as server, held(server.port, "--timeout-ms", 500, count=many) as holder:
        holder.send("pump 0 1500 50")
        time.sleep(0.3)
        os.kill(holder.pid, signal.SIGSTOP)
        time.sleep(0.8)
        os.kill(holder.pid, signal.SIGCONT)

        pumped = holder.expect("pumped")
        assert (pumped["failed_count"], pumped["failure"]) == (0, None)
        assert is_usable(holder, many)


def test_without_a_descriptor_for_epoll_nothing_is_sent_and_the_rest_works() -> None:
    with Server("epoll") as server, held(server.port) as holder:
        hard = resource.prlimit(holder.pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(holder.pid, resource.RLIMIT_NOFILE, (descriptors_of(holder.pid), hard))
        pumped = holder.ask("pump 3 50", "pumped")

        failure = pumped["failure"]
        assert (failure["call"], failure["name"], failure["at_count"]) == ("epoll_create1", "EMFILE", HELD)
        assert (pumped["concurrency_count"], pumped["failed_count"], pumped["duration_ns"]) == (0, 0, None)
        assert is_usable(holder)
        resource.prlimit(holder.pid, resource.RLIMIT_NOFILE, (hard, hard))
        assert holder.ask("pump 3 50", "pumped")["concurrency_count"] == 3


# --- switches ---------------------------------------------------------------------------------------------------------


def switches_of(*pids: int) -> int:
    """Context switches of all threads of these processes, of both kinds; proc(5)."""
    texts = [path.read_text() for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return sum(int(count) for text in texts for count in re.findall(r"voluntary_ctxt_switches:\s+(\d+)", text))


def test_a_request_of_one_connection_is_two_switches_or_so() -> None:
    """The client sleeps in epoll_wait, the thread of the connection in recv. Others' work on the CPUs adds some."""
    with Server("thread") as server, held(server.port, count=1) as holder:
        before = switches_of(holder.pid, server.pid)
        pumped = holder.ask("pump 1 300 50", "pumped")
        switches = switches_of(holder.pid, server.pid) - before

    assert 1 <= switches / answered(pumped) <= 4


# --- from Python ------------------------------------------------------------------------------------------------------


def test_pump_from_python() -> None:
    with ReferenceServer("epoll") as server, Holder(server.port, HELD) as holder:
        holder.ramp(HELD)
        pumped = holder.pump(4, 0.1, 0.05)

        assert isinstance(pumped, Pumped)
        assert (pumped.concurrency_count, pumped.drained_count, pumped.failed_count, pumped.failure) == (4, 4, 0, None)
        assert pumped.duration_ns is not None and pumped.client_cpu_ns is not None
        assert pumped.duration_ns >= 100 * MS
        assert len(pumped.latency_ns) == pumped.requests_count
        assert pumped.answered_count == pumped.warmup_count + pumped.requests_count + 4
        assert holder.echo(0, 1).ok_count == HELD


def test_a_failure_from_python() -> None:
    with PythonServer(on_third(BAD["closing"])) as server, Holder(server.port, HELD) as holder:
        holder.ramp(HELD)
        pumped = holder.pump(100, 0.05)

        assert (pumped.concurrency_count, pumped.failed_count) == (HELD, 2)
        assert pumped.failure is not None
        assert (pumped.failure.call, pumped.failure.errno_name, pumped.failure.at_count) == ("recv", "EOF", HELD - 2)


def test_no_pump_is_waited_for_longer_than_remains() -> None:
    with (
        pytest.raises(native.HelperError, match="said nothing"),
        ReferenceServer("epoll") as server,
        Holder(server.port, HELD, remaining_s=lambda: 0.2) as holder,
    ):
        holder.ramp(HELD)
        holder.pump(HELD, 30.0)


def test_whoever_does_not_come_up_leaves_nothing() -> None:
    with pytest.raises(native.HelperError):
        ReferenceServer("bogus")
    with pytest.raises(ZeroDivisionError), ReferenceServer("fork") as server, Holder(server.port, HELD) as holder:
        holder.ramp(HELD)
        raise ZeroDivisionError
    assert [pid for pid in (server.session, *holder.sessions) if Path(f"/proc/{pid}").exists()] == []
