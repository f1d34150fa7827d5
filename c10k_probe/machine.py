"""What machine this is: everything that can change a number, nothing that names a person or a host.

One table, FACTS: a metadata key is added there and nowhere else. A fact that cannot be read is None;
"unlimited" is a limit that is not set. Keys end in their unit. Sources: proc(5), sysfs (Documentation/ABI),
os-release(5), clock_getres(2).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from c10k_probe.observe import cgroups
from c10k_probe.observe.counters import (
    Counters,
    counters_delta,
    foreign_cpu_pct,
    noise_reason,
    read_counters,
    steal_pct,
)
from c10k_probe.observe.procfs import (
    PROC,
    RLIMIT_TITLES,
    SYS,
    read_int,
    read_meminfo,
    read_rlimits,
    read_status,
    read_text,
    selected_word,
    sysctl_path,
    to_int,
)

__all__ = [
    "FACTS",
    "Counters",
    "Fact",
    "Roots",
    "counters_delta",
    "facts",
    "foreign_cpu_pct",
    "noise_reason",
    "read_counters",
    "steal_pct",
]

Fact = str | int | float | bool | None
UNLIMITED = "unlimited"

# Not in the time module; number from uapi/linux/time.h.
_CLOCK_MONOTONIC_COARSE = 6

_SYSCTLS = (
    "fs.epoll.max_user_watches",
    "fs.file-max",
    "fs.nr_open",
    "kernel.numa_balancing",
    "kernel.pid_max",
    "kernel.randomize_va_space",
    "kernel.sched_autogroup_enabled",
    "kernel.threads-max",
    "net.core.netdev_max_backlog",
    "net.core.rmem_default",
    "net.core.somaxconn",
    "net.core.wmem_default",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_abort_on_overflow",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_max_orphans",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_timestamps",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_wmem",
    "net.netfilter.nf_conntrack_max",
    "vm.max_map_count",
    "vm.overcommit_memory",
    "vm.overcommit_ratio",
    "vm.swappiness",
)

# Start of the DMI vendor or product name -> kind of virtual machine.
_DMI_VENDORS = (
    ("QEMU", "kvm or qemu"),
    ("KVM", "kvm"),
    ("Amazon EC2", "amazon"),
    ("Google", "google"),
    ("VMware", "vmware"),
    ("innotek", "virtualbox"),
    ("VirtualBox", "virtualbox"),
    ("Xen", "xen"),
    ("Microsoft Corporation Virtual", "hyper-v"),
    ("Parallels", "parallels"),
    ("OpenStack", "openstack"),
    ("DigitalOcean", "digitalocean"),
    ("Hetzner", "hetzner"),
    ("Apple Virtualization", "apple"),
)


@dataclass(frozen=True)
class Roots:
    """Where the kernel and the distribution are read; a test points these elsewhere."""

    proc: Path = PROC
    sys: Path = SYS
    files: Path = Path("/")

    @cached_property
    def kernel_config(self) -> dict[str, str]:
        """CONFIG_NAME -> value of the running kernel's build; {} when the kernel does not tell."""
        lines = (line.partition("=") for line in _config_text(self).splitlines() if line.startswith("CONFIG_"))
        return {name: value.strip('"') for name, _, value in lines}

    @cached_property
    def meminfo(self) -> dict[str, int]:
        return read_meminfo(self.proc)

    @cached_property
    def status(self) -> dict[str, str]:
        return read_status(self.proc)

    @cached_property
    def cpuinfo(self) -> dict[str, str]:
        """First processor of /proc/cpuinfo."""
        block = (read_text(self.proc / "cpuinfo") or "").partition("\n\n")[0]
        pairs = (line.partition(":") for line in block.splitlines())
        return {name.strip(): value.strip() for name, _, value in pairs}

    def proc_text(self, name: str) -> str | None:
        return read_text(self.proc / name)

    def sys_text(self, name: str) -> str | None:
        return read_text(self.sys / name)


Reader = Callable[[Roots], Fact]


def _config_text(roots: Roots) -> str:
    import gzip

    try:
        return gzip.decompress((roots.proc / "config.gz").read_bytes()).decode("ascii", "replace")
    except (OSError, EOFError):
        release = roots.proc_text("sys/kernel/osrelease")
        return read_text(roots.files / f"boot/config-{release}") or ""


def _distribution(roots: Roots) -> Fact:
    text = read_text(roots.files / "etc/os-release") or read_text(roots.files / "usr/lib/os-release") or ""
    pairs = dict(line.partition("=")[::2] for line in text.splitlines())
    return pairs.get("PRETTY_NAME", pairs.get("ID", "")).strip("\"'") or None


def _cpu_model(roots: Roots) -> Fact:
    info = roots.cpuinfo
    if "CPU part" in info and "model name" not in info:  # arm64 prints numbers only
        return f"arm64 implementer {info.get('CPU implementer')} part {info['CPU part']}"
    return info.get("model name") or info.get("Model") or info.get("cpu model") or info.get("Processor")


def _list_count(text: str | None) -> int | None:
    """Number of items in a kernel list such as `0-3,8`; None when there is no list."""
    if not text:
        return None
    ranges = [item.partition("-") for item in text.split(",")]
    return sum(int(last or first) - int(first) + 1 for first, _, last in ranges)


def _smt(roots: Roots) -> Fact:
    active = roots.sys_text("devices/system/cpu/smt/active")
    return None if active is None else active == "1"


def _coarse_clock_ns(_: Roots) -> Fact:
    return round(time.clock_getres(_CLOCK_MONOTONIC_COARSE) * 1e9)


def _preemption(roots: Roots) -> Fact:
    """Mode in force: the scheduler's own word, the boot argument, else what the kernel was built with."""
    chosen = roots.sys_text("kernel/debug/sched/preempt")
    if chosen is not None:
        word = chosen.partition("(")[2].partition(")")[0]
        return word or chosen
    for argument in (roots.proc_text("cmdline") or "").split():
        if argument.startswith("preempt="):
            return argument.partition("=")[2]
    names = {"PREEMPT_RT": "rt", "PREEMPT": "full", "PREEMPT_LAZY": "lazy", "PREEMPT_VOLUNTARY": "voluntary"}
    names["PREEMPT_NONE"] = "none"
    return next((mode for name, mode in names.items() if roots.kernel_config.get(f"CONFIG_{name}") == "y"), None)


def _preemption_is_dynamic(roots: Roots) -> Fact:
    if roots.kernel_config:
        return roots.kernel_config.get("CONFIG_PREEMPT_DYNAMIC") == "y"
    version = roots.proc_text("sys/kernel/version")
    return None if version is None else "PREEMPT_DYNAMIC" in version


def _mitigations(roots: Roots) -> Fact:
    """`name: state` of everything this CPU is affected by, `none affect this CPU`, or None when not told."""
    folder = roots.sys / "devices/system/cpu/vulnerabilities"
    states = {path.name: read_text(path) for path in sorted(folder.iterdir())}
    affected = [f"{name}: {state}" for name, state in states.items() if state and state != "Not affected"]
    return " | ".join(affected) or "none affect this CPU"


def _mitigations_off(roots: Roots) -> Fact:
    arguments = roots.proc_text("cmdline")
    return None if arguments is None else "mitigations=off" in arguments.split()


def _governor(roots: Roots) -> Fact:
    files = roots.sys.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
    governors = {text for text in map(read_text, files) if text}
    return ", ".join(sorted(governors)) or None


def _cpu_boost(roots: Roots) -> Fact:
    no_turbo = roots.sys_text("devices/system/cpu/intel_pstate/no_turbo")
    boost = roots.sys_text("devices/system/cpu/cpufreq/boost")
    return no_turbo == "0" if no_turbo is not None else (None if boost is None else boost == "1")


def _virtualisation(roots: Roots) -> Fact:
    """Kind of virtual machine, `none`, or `hypervisor` when the CPU says so and nothing names it."""
    hypervisor = roots.sys_text("hypervisor/type")
    if hypervisor:
        return hypervisor
    if "microsoft" in (roots.proc_text("sys/kernel/osrelease") or "").lower():
        return "wsl"
    dmi = [roots.sys_text(f"class/dmi/id/{name}") or "" for name in ("sys_vendor", "product_name", "bios_vendor")]
    names = [" ".join(dmi[:2]), *dmi]
    for start, kind in _DMI_VENDORS:
        if any(name.startswith(start) for name in names):
            return kind
    if "kvm-clock" in (roots.sys_text("devices/system/clocksource/clocksource0/available_clocksource") or ""):
        return "kvm"
    if "hypervisor" in roots.cpuinfo.get("flags", "").split():
        return "hypervisor"
    return "none" if roots.cpuinfo.get("flags") or any(dmi) else None


def _container(roots: Roots) -> Fact:
    """`docker`, `podman` or what systemd was told; `none` when no sign of a container is found."""
    told = read_text(roots.files / "run/systemd/container")
    if told:
        return told
    signs = {"run/.containerenv": "podman", ".dockerenv": "docker"}
    return next((kind for file, kind in signs.items() if (roots.files / file).exists()), "none")


def _cgroup_path(roots: Roots) -> Fact:
    """Path of one's own group without what would name the machine: its name, long hexadecimal ids."""
    import re

    path = cgroups.own_path(roots.proc)
    if path is None:
        return None
    hostname = os.uname().nodename
    parts = ["<host>" if part == hostname else part for part in path.split("/")]
    return re.sub(r"[0-9a-f]{12,}", "<id>", "/".join(parts))


def _cgroup(controller: str, name: str) -> Reader:
    def read(roots: Roots) -> Fact:
        level = cgroups.tightest(controller, roots.proc, roots.sys)
        if level is None:
            return None
        return level.used if name == "used" else _or_unlimited(level.limit)

    return read


def _or_unlimited(limit: int | None) -> Fact:
    return UNLIMITED if limit is None else limit


def _rlimit(name: str, side: int) -> Reader:
    return lambda roots: _or_unlimited(read_rlimits(roots.proc)[name][side])


def _sysctl(name: str) -> Reader:
    def read(roots: Roots) -> Fact:
        text = read_text(sysctl_path(name, roots.proc))
        number = to_int(text)
        return number if number is not None else text and " ".join(text.split())

    return read


def _meminfo(name: str) -> Reader:
    return lambda roots: roots.meminfo.get(name)


def _sys_text(name: str) -> Reader:
    return lambda roots: roots.sys_text(name)


def _proc_text(name: str) -> Reader:
    return lambda roots: roots.proc_text(name)


def _thp(name: str) -> Reader:
    return lambda roots: selected_word(roots.sys_text(f"kernel/mm/transparent_hugepage/{name}"))


_RLIMIT_UNITS = {"nofile": "count", "nproc": "count", "stack": "bytes", "as": "bytes", "memlock": "bytes"}

FACTS: dict[str, Reader] = {
    "kernel_release": _proc_text("sys/kernel/osrelease"),
    "kernel_version": _proc_text("sys/kernel/version"),
    "architecture": lambda _: os.uname().machine,
    "distribution": _distribution,
    "virtualisation": _virtualisation,
    "container": _container,
    "cpu_model": _cpu_model,
    "cpu_microcode": lambda roots: roots.cpuinfo.get("microcode"),
    "cpu_online_count": lambda roots: _list_count(roots.sys_text("devices/system/cpu/online")),
    "cpu_affinity_count": lambda roots: _list_count(roots.status.get("Cpus_allowed_list")),
    "cpu_smt_active": _smt,
    "cpu_governor": _governor,
    "cpu_boost": _cpu_boost,
    "cpu_mitigations": _mitigations,
    "cpu_mitigations_off": _mitigations_off,
    "kernel_tick_hz": lambda roots: to_int(roots.kernel_config.get("CONFIG_HZ")),
    "clock_coarse_resolution_ns": _coarse_clock_ns,
    "clocksource": _sys_text("devices/system/clocksource/clocksource0/current_clocksource"),
    "preemption": _preemption,
    "preemption_dynamic": _preemption_is_dynamic,
    "sched_base_slice_ns": lambda roots: read_int(roots.sys / "kernel/debug/sched/base_slice_ns"),
    "memory_total_bytes": _meminfo("MemTotal"),
    "memory_available_bytes": _meminfo("MemAvailable"),
    "swap_total_bytes": _meminfo("SwapTotal"),
    "swap_free_bytes": _meminfo("SwapFree"),
    "page_size_bytes": lambda _: os.sysconf("SC_PAGE_SIZE"),
    "thp_mode": _thp("enabled"),
    "thp_defrag": _thp("defrag"),
    "cgroup_version": lambda roots: cgroups.cgroup_version(roots.proc),
    "cgroup_path": _cgroup_path,
    "cgroup_memory_limit_bytes": _cgroup("memory", "limit"),
    "cgroup_memory_used_bytes": _cgroup("memory", "used"),
    "cgroup_pids_limit_count": _cgroup("pids", "limit"),
    "cgroup_pids_used_count": _cgroup("pids", "used"),
    "cgroup_cpu_quota_cpus": lambda roots: cgroups.cpu_quota(roots.proc, roots.sys),
    "libc": lambda _: os.confstr("CS_GNU_LIBC_VERSION"),
    "python_version": lambda _: sys.version.split()[0],
    "python_implementation": lambda _: sys.implementation.name,
    "python_compiler": lambda _: sys.version.rpartition("[")[2].rstrip("]"),
    "python_debug_build": lambda _: hasattr(sys, "gettotalrefcount"),
    "python_gil": lambda _: bool(getattr(sys, "_is_gil_enabled", lambda: True)()),
    "user_is_root": lambda _: os.geteuid() == 0,
    **{
        f"rlimit_{name}_{side}_{_RLIMIT_UNITS[name]}": _rlimit(name, index)
        for name in RLIMIT_TITLES
        for index, side in enumerate(("soft", "hard"))
    },
    **{f"sysctl.{name}": _sysctl(name) for name in _SYSCTLS},
}


def _safely(reader: Reader, roots: Roots) -> Fact:
    try:
        return reader(roots)
    except (OSError, ValueError, LookupError):
        return None  # this kernel or this user cannot tell: unknown, not an error


def facts(*, proc_root: Path = PROC, sys_root: Path = SYS, files_root: Path = Path("/")) -> dict[str, Fact]:
    """All facts as a flat mapping that JSON can hold, in the order of FACTS; some 10 ms."""
    roots = Roots(proc_root, sys_root, files_root)
    return {key: _safely(reader, roots) for key, reader in FACTS.items()}
