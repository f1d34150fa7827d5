"""The compiled and attached programs of the BPF files, and their maps. Only the interpreter that has bcc imports this.

Nothing is pinned: when the process ends, however it ends, the kernel drops programs and maps with its descriptors.
Sources: bcc's reference_guide.md, bpf(2) (BPF_F_MMAPABLE), proc_pid_fdinfo(5) (recursion_misses).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from c10k_probe.observe.procfs import read_text
from c10k_probe.tracing import bcc_kernel
from c10k_probe.tracing.bcc_kernel import CALLS_COUNT, SLOTS_COUNT, Headers, Unsupported

SOURCES: Final = tuple(Path(__file__).with_name(f"{name}.bpf.c") for name in ("events", "tcp"))
_COUNTERS: Final = (  # in the order of `enum counter`
    "voluntary_switches",
    "involuntary_switches",
    "forks",
    "threads",
    "exits",
    "page_faults",
    "accepts",
    "dropped_tasks",
    "dropped_events",
    "tasks_added",
    "tasks_removed",
    "runqueue_ns",
)
_TCP_STATES: Final = 16
# `struct cpu_counts`, in words of eight bytes
_RUNQUEUE_AT: Final = 16
_TCP_AT: Final = _RUNQUEUE_AT + SLOTS_COUNT
_CPU_WORDS: Final = _TCP_AT + _TCP_STATES**2
_CALL_WORDS: Final = 3 + SLOTS_COUNT  # `struct call`
_NO_CALL: Final = 0xFFFFFFFF
_BPF_NOEXIST: Final = 1
_MINOR: Final = ("sched_wakeup", "inet_sock_set_state")
_NEW_TASK: Final = "task_newtask"


class Counts:
    """The counters of all CPUs, read without a system call: one would hold up the tracepoints of its CPU."""

    def __init__(self, counts_fd: int, calls_fd: int) -> None:
        self._cpus = range(bcc_kernel.cpus_count())
        self._counts = _map_words(counts_fd, len(self._cpus) * _CPU_WORDS)
        self._calls = _map_words(calls_fd, len(self._cpus) * CALLS_COUNT * _CALL_WORDS)

    def counters(self) -> dict[str, int]:
        """Name -> count."""
        return dict(zip(_COUNTERS, self._sums(0, len(_COUNTERS)), strict=True))

    def runqueue(self) -> list[int]:
        """The log2 histogram of run-queue waits."""
        return self._sums(_RUNQUEUE_AT, SLOTS_COUNT)

    def tcp(self) -> dict[str, int]:
        """``old>new`` -> count, states by number."""
        sums = self._sums(_TCP_AT, _TCP_STATES**2)
        return {f"{at // _TCP_STATES}>{at % _TCP_STATES}": count for at, count in enumerate(sums) if count}

    def calls(self) -> dict[int, list[Any]]:
        """Number -> count, errors, total ns, log2 histogram; of the calls that were made."""
        found: dict[int, list[Any]] = {}
        for number in range(CALLS_COUNT):
            starts = [(cpu * CALLS_COUNT + number) * _CALL_WORDS for cpu in self._cpus]
            if any(self._calls[start] for start in starts):
                count, errors, total_ns, *slots = _add(self._calls, starts, _CALL_WORDS)
                found[number] = [count, errors, total_ns, slots]
        return found

    def _sums(self, first: int, length: int) -> list[int]:
        return _add(self._counts, [cpu * _CPU_WORDS + first for cpu in self._cpus], length)


def _map_words(descriptor: int, count: int) -> memoryview:
    return memoryview(mmap.mmap(descriptor, count * 8, mmap.MAP_SHARED, mmap.PROT_READ)).cast("Q")


def _add(words: memoryview, starts: Sequence[int], length: int) -> list[int]:
    """Sums, word by word, of stretches that are as long."""
    return [sum(column) for column in zip(*(words[start : start + length] for start in starts), strict=True)]


class _Said:
    """Inside the block, what anything in this process writes to stderr is kept: the compiler and libbpf write there."""

    def __init__(self) -> None:
        self.complaint = ""

    def __enter__(self) -> None:
        self._file = tempfile.TemporaryFile()
        self._stderr = os.dup(2)
        os.dup2(self._file.fileno(), 2)

    def __exit__(self, *_: object) -> None:
        os.dup2(self._stderr, 2)
        os.close(self._stderr)
        self._file.seek(0)
        lines = self._file.read().decode(errors="replace").splitlines()
        self._file.close()
        errors = [line for line in lines if "error:" in line or "ermi" in line]
        self.complaint = (errors or lines or [""])[0].strip()


class Programs:
    """Compiled and attached; nothing is followed yet."""

    def __init__(self, headers: Headers, values: dict[str, object]) -> None:
        """Compile and attach. Raises ``Unsupported`` when bcc or the kernel refuses."""
        import bcc

        if headers.folder is not None:
            os.environ["BCC_KERNEL_SOURCE"] = str(headers.folder)
        flags = [*headers.flags, *(f"-D{name}={value}" for name, value in values.items())]
        said = _Said()
        try:
            with said:
                self._bpf = bcc.BPF(text=b"\n".join(path.read_bytes() for path in SOURCES), cflags=flags)
            self._tasks = self._bpf[b"tasks"]
            self._ports = self._bpf[b"ports"] if values["HAVE_TCP"] else None
            self._named = self._bpf[b"named"] if "PIDNS_INO" in values else None
        except Exception as error:  # bcc raises bare ones, and tells the cause on stderr
            if "compile" in str(error) and said.complaint:
                raise Unsupported(f"bcc cannot compile for this kernel: {said.complaint}") from None
            why = bcc_kernel.why_refused()
            raise Unsupported(f"{why}: {said.complaint or error}", bcc_kernel.lift_refusal()) from None
        self.counts = Counts(self._bpf[b"counts"].map_fd, self._bpf[b"calls"].map_fd)
        self._library = bcc.libbcc.lib
        self._followed_count = self._named_count = 0
        self.refused_tasks_count = self.refused_ports_count = 0
        self._missed_before = self._recursion_misses()

    def follow(self, tid: int, *, active: bool) -> None:
        """Follow a task that is not followed yet; counted as refused when the map is full."""
        key = ctypes.c_uint32(tid)
        if self._named is None:
            failed = self._insert(self._tasks, key, self._tasks.Leaf(0, 0, _NO_CALL, int(active)))
            self._followed_count += not failed
        else:
            failed = self._insert(self._named, key, ctypes.c_uint32(int(active)))
            self._count_named(not failed)
        self.refused_tasks_count += failed not in (0, errno.EEXIST)

    def forget(self, tid: int) -> None:
        """Stop following a task that has ended before it could be followed."""
        try:
            del (self._tasks if self._named is None else self._named)[ctypes.c_uint32(tid)]
        except KeyError:
            return  # the kernel's side was quicker
        if self._named is None:
            self._followed_count -= 1
        else:
            self._count_named(-1)

    def add_ports(self, numbers: Iterable[int]) -> None:
        """Local ports whose connections belong to the tree."""
        for number in numbers if self._ports is not None else ():
            failed = self._insert(self._ports, ctypes.c_uint16(number), ctypes.c_uint8(1))
            self.refused_ports_count += failed not in (0, errno.EEXIST)

    def living_count(self, counters: Mapping[str, int]) -> int:
        """Followed tasks that have not ended."""
        named_count = 0 if self._named is None else len(list(self._named.keys()))
        return self._followed_count + named_count + counters["tasks_added"] - counters["tasks_removed"]

    def missed(self) -> tuple[int, int, int]:
        """Events of the whole machine that the kernel left out, as another program was active on the CPU.

        (New tasks; events that a count lacks then; those that only run-queue waits and TCP changes lack.)
        """
        now = self._recursion_misses()
        new = {name: count - self._missed_before.get(name, 0) for name, count in now.items()}
        tasks = sum(count for name, count in new.items() if _NEW_TASK in name)
        minor = sum(count for name, count in new.items() if any(word in name for word in _MINOR))
        return tasks, sum(new.values()) - minor - tasks, minor

    def _count_named(self, change: int) -> None:
        """Tasks that wait to be recognised by their name in this namespace: none, and nobody is asked for it."""
        self._named_count += change
        self._bpf[b"named_counts"][0] = ctypes.c_uint64(self._named_count)

    def _insert(self, table: Any, key: Any, leaf: Any) -> int:
        """0 when it is there now and was not before, else the error (EEXIST: it was there)."""
        result = self._library.bpf_update_elem(table.map_fd, ctypes.byref(key), ctypes.byref(leaf), _BPF_NOEXIST)
        return ctypes.get_errno() if result else 0

    def _recursion_misses(self) -> dict[str, int]:
        """Program -> how often it was left out."""
        found = {}
        for name, function in self._bpf.funcs.items():
            text = read_text(Path(f"/proc/self/fdinfo/{function.fd}")) or ""
            match = re.search(r"recursion_misses:\s*([0-9]+)", text)
            found[name.decode()] = int(match.group(1)) if match else 0
        return found
