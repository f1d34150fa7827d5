"""What the running kernel offers to the eBPF counter: headers to compile with, tracefs, the shape of its tracepoints.

Standard library only: it is read by the interpreter that has bcc, which is often the system's.
Sources: Documentation/trace/ftrace.rst, include/trace/events/sched.h, namespaces(7), kernel_lockdown(7).
"""

from __future__ import annotations

import ctypes
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from c10k_probe.observe.procfs import read_text, selected_word
from c10k_probe.tracing.lift import BY_ROOT

SLOTS_COUNT: Final = 40
CALLS_COUNT: Final = 512
_TRACEFS: Final = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
_INITIAL_PID_NAMESPACE: Final = 0xEFFFFFFC  # PROC_PID_INIT_INO, include/linux/proc_ns.h
_ARCHITECTURES: Final = {"x86_64": "x86", "aarch64": "arm64"}  # machine -> the kernel's folder
_ACCEPT_NUMBERS: Final = {"x86_64": (43, 288), "aarch64": (202, 242)}
_PREEMPTED_STATE: Final = 0x100  # TASK_REPORT_MAX since Linux 4.14
_CLONE_NEWNS: Final = 0x00020000
_MS_REC_PRIVATE: Final = 1 << 14 | 1 << 18
_REQUIRED: Final = (
    "raw_syscalls/sys_enter",
    "raw_syscalls/sys_exit",
    "sched/sched_switch",
    "sched/sched_process_exit",
    "task/task_newtask",
)


class Unsupported(Exception):
    """This cannot be done here; ``lift`` is the command that would change that, if there is one."""

    def __init__(self, reason: str, lift: str = "") -> None:
        super().__init__(reason)
        self.lift = lift


@dataclass(frozen=True)
class Headers:
    """folder: for BCC_KERNEL_SOURCE, None for bcc's own choice; flags: further -I; origin: for the record."""

    folder: Path | None
    flags: tuple[str, ...]
    origin: str


def find_headers(release: str, root: Path = Path("/")) -> Headers:
    """Kernel headers to compile with. Raises ``Unsupported`` when none of any version are there.

    Those of the running kernel when they are installed; else the newest of any, which do as well, since the
    structures of tracepoints come from tracefs. Debian splits a tree in two: the common half is named by flags, so
    that nothing has to be merged, written or mounted.
    """
    if (root / f"lib/modules/{release}/build/include").is_dir():
        return Headers(None, (), f"lib/modules/{release}/build")
    trees = sorted((root / "usr/src").glob("linux-headers-*/include/generated"), key=_version, reverse=True)
    for tree in (path.parent.parent for path in trees):
        halves = [path for path in (tree, *_common_halves(tree)) if (path / "include/linux/kconfig.h").is_file()]
        if halves:
            flags = () if halves[0] == tree else tuple(_include_flags(halves[0]))
            return Headers(tree, flags, tree.name)
    if (root / "sys/kernel/kheaders.tar.xz").exists():
        return Headers(None, (), "kheaders.tar.xz")
    raise Unsupported("kernel headers of no version are installed", "c10k-probe doctor --install")


def _version(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"[0-9]+", str(path))]


def _common_halves(tree: Path) -> list[Path]:
    """``linux-headers-6.1.0-1-common`` beside ``linux-headers-6.1.0-1-amd64``, which may have a flavour more."""
    stem = re.match(r"linux-headers-[0-9.]+(?:-[0-9]+)?", tree.name)
    return sorted(tree.parent.glob(f"{stem.group()}*-common*")) if stem else []


def _include_flags(common: Path) -> list[str]:
    architecture = _ARCHITECTURES.get(os.uname().machine, os.uname().machine)
    folders = (f"arch/{architecture}/include", "include", f"arch/{architecture}/include/uapi", "include/uapi", "")
    return [f"-I{common / folder}" for folder in folders]


def find_tracefs() -> Path:
    """Where tracefs is; where it is not mounted, in a mount namespace of this process. Raises ``Unsupported``."""
    for path in _TRACEFS:
        if has_tracepoint(path, ""):
            return path
    if os.geteuid() != 0:
        raise Unsupported("tracefs cannot be read without root", BY_ROOT)
    if _mount_for_us_alone(_TRACEFS[0]):
        return _TRACEFS[0]
    raise Unsupported("tracefs is not mounted and cannot be", f"mount -t tracefs nodev {_TRACEFS[0]}")


def _mount_for_us_alone(path: Path) -> bool:
    """The mount ends with this process, whose own namespace it is in."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) or libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None):
        return False
    return not libc.mount(b"nodev", os.fsencode(path), b"tracefs", 0, None) and has_tracepoint(path, "")


def has_tracepoint(tracefs: Path, name: str) -> bool:
    """Whether ``group/event`` (or, for "", any) is there and may be looked at."""
    return os.path.isdir(tracefs / "events" / name)  # noqa: PTH112 -- a folder that is closed to us is no error


def check_tracepoints(tracefs: Path) -> None:
    """Raises ``Unsupported`` when a tracepoint is missing that nothing can be counted without."""
    for name in _REQUIRED:
        if not has_tracepoint(tracefs, name):
            raise Unsupported(f"this kernel has no tracepoint {name.replace('/', ':')}")


def why_refused() -> str:
    """Why the kernel refuses BPF to this process, as far as it can be told."""
    mode = selected_word(read_text(Path("/sys/kernel/security/lockdown"))) or "none"
    if mode == "confidentiality":
        return "the kernel is locked down (confidentiality)"
    if os.geteuid() != 0:
        return "loading BPF programs needs root"
    return "the kernel refused to load BPF programs"


def lift_refusal() -> str:
    """The command that would help against a refusal; empty when none would."""
    return BY_ROOT if os.geteuid() != 0 else ""


def cpus_count(sys_root: Path = Path("/sys")) -> int:
    """CPUs that may ever be there: a map has an element for each."""
    numbers = re.findall(r"[0-9]+", read_text(sys_root / "devices/system/cpu/possible") or "")
    return int(numbers[-1]) + 1 if numbers else os.cpu_count() or 1


def preempted_state(tracefs: Path) -> int:
    """prev_state in sched_switch of a task that was preempted: the bit above all states (TASK_REPORT_MAX)."""
    text = read_text(tracefs / "events/sched/sched_switch/format") or ""
    found = re.search(r"\(\(\(([0-9a-fx |]+)\) \+ 1\) << 1\)", text)
    if found is None:
        return _PREEMPTED_STATE
    states = 0
    for number in found.group(1).split("|"):
        states |= int(number, 16)
    return (states + 1) << 1


def definitions(tracefs: Path, tasks_max: int, *, latency: bool) -> dict[str, object]:
    """Parameters of events.bpf.c for this kernel."""
    accept, accept4 = _ACCEPT_NUMBERS.get(os.uname().machine, (-1, -1))
    values: dict[str, object] = {
        "TASKS_MAX": tasks_max,
        "CPUS_MAX": cpus_count(),
        "CALLS_MAX": CALLS_COUNT,
        "SLOTS_MAX": SLOTS_COUNT,
        "LATENCY": int(latency),
        "NR_ACCEPT": accept,
        "NR_ACCEPT4": accept4,
        "PREEMPTED_STATE": preempted_state(tracefs),
        "HAVE_FAULTS": int(has_tracepoint(tracefs, "exceptions/page_fault_user")),
        "HAVE_TCP": int(has_tracepoint(tracefs, "sock/inet_sock_set_state")),
    }
    space = Path("/proc/self/ns/pid").stat()
    if space.st_ino != _INITIAL_PID_NAMESPACE:
        values |= {"PIDNS_DEV": f"{space.st_dev}ULL", "PIDNS_INO": f"{space.st_ino}ULL"}
    return values
