"""What a tree did from reading to reading: ended, new, late and zombie tasks; CPU time handed to a parent or lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from c10k_probe.observe import processes
from c10k_probe.observe.work import Process, Reading, Task, Work, read_work

SWITCHES = 57


def process(  # noqa: PLR0913
    voluntary: int,
    *,
    tid: int = 1,
    start: int = 0,
    own_s: float = 0.0,
    children_s: float = 0.0,
    ignores: bool = False,
    zombie: bool = False,
) -> Process:
    return Process(start, own_s, children_s, ignores, zombie, {tid: Task(voluntary, 0, zombie)})


def work_of(*readings: Reading) -> Work:
    work = Work()
    for reading in readings:
        work.add(reading)
    return work


def reading(boot_ticks: int, forks: int | None, **found: Process) -> Reading:
    return Reading(boot_ticks, forks, {int(name[1:]): item for name, item in found.items()}, forks)


def test_an_ended_task_lowers_nothing_and_is_counted() -> None:
    """A difference of two sums would be 10 - 500 here, or with a busy sibling a number that is too low in silence."""
    one = reading(100, 7, p1=process(10), p2=process(500, tid=2))
    work = work_of(one, reading(200, 7, p1=process(30)))
    assert (work.voluntary_switches_count, work.ended_tasks_count, work.unseen_tasks_count) == (20, 1, 0)


def test_what_began_since_counts_whole_and_what_was_found_late_from_now_on() -> None:
    one = reading(100, 7, p1=process(10))
    two = reading(200, 9, p1=process(10), p2=process(40, tid=2, start=150), p3=process(9000, tid=3, start=20))
    work = work_of(one, two)
    assert work.voluntary_switches_count == 40
    assert work.unseen_tasks_count == 1  # two tasks were started in the machine, one of them was seen
    assert work.ended_tasks_count == 0


def test_a_pid_that_was_given_again_is_another_process() -> None:
    work = work_of(reading(100, 7, p1=process(10)), reading(200, 8, p1=process(25, start=150)))
    assert (work.voluntary_switches_count, work.ended_processes_count) == (25, 1)


def test_a_zombie_tells_all_it_did() -> None:
    one, two = reading(100, 7, p2=process(10)), reading(200, 7, p2=process(16, zombie=True))
    work = work_of(one, two, reading(300, 7))
    assert (work.voluntary_switches_count, work.ended_tasks_count) == (6, 0)


def test_cpu_time_goes_to_the_parent_that_waits_or_is_known_to_be_lost() -> None:
    one = reading(100, 7, p1=process(0, own_s=1.0), p2=process(0, tid=2, own_s=5.0))
    waited = work_of(one, reading(200, 7, p1=process(0, own_s=1.5, children_s=5.25)))
    assert (waited.cpu_s, waited.unwaited_count) == (0.75, 0)
    lost = work_of(one, reading(200, 7, p1=process(0, own_s=1.5)))
    assert (lost.cpu_s, lost.unwaited_count) == (0.5, 1)
    ignoring = reading(100, 7, p1=process(0, ignores=True))
    unseen = work_of(ignoring, reading(200, 9, p1=process(0, ignores=True)))
    assert unseen.unwaited_count == 2


def test_a_kernel_that_does_not_tell_is_unknown_not_0() -> None:
    assert work_of(reading(100, None), reading(200, None)).unseen_tasks_count is None


# --- real processes ---------------------------------------------------------------------------------------------------

# Each line read: the child blocks SWITCHES times on a pipe that the parent feeds, then lives on or ends.
PROGRAM = """
import os, signal, sys
def child(reading, answering):
    for _ in range(int(sys.argv[1])):
        os.read(reading, 1); os.write(answering, b"x")
    signal.pause()
for line in sys.stdin:
    if line == "new\\n":
        (there, feed), (back, answer) = os.pipe(), os.pipe()
        pid = os.fork()
        if not pid:
            child(there, answer)
        for _ in range(int(sys.argv[1])):
            while open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "S": pass
            os.write(feed, b"x"); os.read(back, 1)
    else:
        os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)
    print(pid, flush=True)
"""


@contextmanager
def forking() -> Iterator[subprocess.Popen[str]]:
    arguments = [sys.executable, "-ISc", PROGRAM, str(SWITCHES)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        try:
            yield parent
        finally:
            parent.kill()


def ask(parent: subprocess.Popen[str], word: str) -> int:
    assert parent.stdin is not None and parent.stdout is not None
    parent.stdin.write(word + "\n")
    parent.stdin.flush()
    return int(parent.stdout.readline())


def read(parent: subprocess.Popen[str]) -> Reading:
    return read_work(processes.with_descendants([parent.pid], (os.getpid(),)))


def test_the_switches_of_a_real_child_are_known_and_its_end_is_seen() -> None:
    with forking() as parent:
        work = Work()
        work.add(read(parent))
        child = ask(parent, "new")
        work.add(read(parent))
        assert work.voluntary_switches_count >= SWITCHES
        assert work.ended_tasks_count == 0
        before = work.voluntary_switches_count
        assert ask(parent, "end") == child
        work.add(read(parent))
        assert before <= work.voluntary_switches_count
        assert (work.ended_tasks_count, work.ended_processes_count) == (1, 1)
        ask(parent, "new")
        ask(parent, "end")  # came and went between two readings
        signs = work.unseen_signs_count
        work.add(read(parent))
        assert work.ended_tasks_count == 1
        assert work.unseen_signs_count == signs + 1
        work.add(read(parent))
        assert work.unseen_signs_count == signs + 1
        assert work.unseen_tasks_count is not None and work.unseen_tasks_count >= 1
        parent.send_signal(signal.SIGKILL)


def test_threads_that_come_and_go_between_two_looks_leave_a_sign() -> None:
    """In a process that has one thread whenever it is looked at; one that only works leaves none."""
    program = """
import sys, threading
for line in sys.stdin:
    if line == "threads\\n":
        thread = threading.Thread(target=int); thread.start(); thread.join()
    else:
        sum(range(200_000))
    print(0, flush=True)
"""
    arguments = [sys.executable, "-ISc", program]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        work = Work()
        ask(process, "work")
        work.add(read_asleep(process))
        for word, signs_count in (("work", 0), ("threads", 1), ("work", 1), ("threads", 2)):
            ask(process, word)
            work.add(read_asleep(process))
            assert work.unseen_signs_count == signs_count, word
        process.kill()
    assert work.ended_tasks_count == 0


def read_asleep(process: subprocess.Popen[str]) -> Reading:
    """A reading during which it did not run: it waits for the next line."""
    while True:
        reading = read(process)
        ended_ns = reading.processes[process.pid].ended_threads_ns
        assert ended_ns is not None
        if ended_ns[0] == ended_ns[1] and processes.stat_fields(process.pid)[0] == b"S":
            return reading
