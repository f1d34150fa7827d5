"""Facts of made-up and real machines, and the table of system parts."""

from __future__ import annotations

import gzip
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import cannot_run
from observing import output, write

from c10k_probe import machine, parts
from c10k_probe.machine import Counters, Fact
from c10k_probe.observe import cgroups, procfs


def facts_of(root: Path) -> dict[str, Fact]:
    return machine.facts(proc_root=root / "proc", sys_root=root / "sys", files_root=root)


def test_facts_are_flat_and_fit_json() -> None:
    found = machine.facts()
    assert list(found) == list(machine.FACTS)
    assert json.loads(json.dumps(found)) == found


def test_nothing_private_is_in_the_facts(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", f"0::/docker/0123456789abcdef/{os.uname().nodename}/x\n")
    write(tmp_path / "proc/sys/kernel/hostname", "secret-host\n")
    text = json.dumps(facts_of(tmp_path))
    assert "secret-host" not in text and "0123456789abcdef" not in text
    assert facts_of(tmp_path)["cgroup_path"] == "/docker/<id>/<host>/x"
    values = [str(value) for value in machine.facts().values()]
    home = str(Path.home())
    assert not any(secret in value for value in values for secret in (home, sys.prefix, sys.executable))


# What does not come from the file system is known everywhere; all else is unknown on an empty one.
ALWAYS_KNOWN = {
    "architecture",
    "clock_coarse_resolution_ns",
    "container",
    "libc",
    "page_size_bytes",
    "python_compiler",
    "python_debug_build",
    "python_gil",
    "python_implementation",
    "python_version",
    "user_is_root",
}


def test_missing_is_none_and_never_zero(tmp_path: Path) -> None:
    known = {key for key, value in facts_of(tmp_path).items() if value is not None}
    assert known <= ALWAYS_KNOWN


def test_a_folder_in_place_of_a_file_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "proc/meminfo").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").mkdir(parents=True)
    found = facts_of(tmp_path)
    assert found["memory_total_bytes"] is None and found["cgroup_version"] is None


def test_kernel_config_from_proc_or_from_boot(tmp_path: Path) -> None:
    write(tmp_path / "proc/sys/kernel/osrelease", "6.1.0-18-amd64\n")
    write(tmp_path / "boot/config-6.1.0-18-amd64", "CONFIG_HZ=250\nCONFIG_PREEMPT_VOLUNTARY=y\n")
    found = facts_of(tmp_path)
    assert (found["kernel_tick_hz"], found["preemption"], found["preemption_dynamic"]) == (
        250,
        "voluntary",
        False,
    )
    config = b"# CONFIG_HZ_250 is not set\nCONFIG_HZ=1000\nCONFIG_PREEMPT_DYNAMIC=y\n"
    (tmp_path / "proc/config.gz").write_bytes(gzip.compress(config))
    found = facts_of(tmp_path)
    assert (found["kernel_tick_hz"], found["preemption_dynamic"]) == (1000, True)
    (tmp_path / "proc/config.gz").write_bytes(gzip.compress(config)[:20])
    assert facts_of(tmp_path)["kernel_tick_hz"] == 250


def test_preemption_in_force_comes_before_the_build(tmp_path: Path) -> None:
    write(tmp_path / "proc/cmdline", "quiet preempt=full mitigations=off\n")
    assert facts_of(tmp_path)["preemption"] == "full"
    assert facts_of(tmp_path)["cpu_mitigations_off"] is True
    write(tmp_path / "sys/kernel/debug/sched/preempt", "none (voluntary) full\n")
    write(tmp_path / "sys/kernel/debug/sched/base_slice_ns", "2800000\n")
    assert facts_of(tmp_path)["preemption"] == "voluntary"
    assert facts_of(tmp_path)["sched_base_slice_ns"] == 2800000


def test_cpu_facts(tmp_path: Path) -> None:
    cpu = tmp_path / "sys/devices/system/cpu"
    write(cpu / "online", "0-3,8\n")
    write(cpu / "smt/active", "1\n")
    write(cpu / "cpu0/cpufreq/scaling_governor", "performance\n")
    write(cpu / "cpu1/cpufreq/scaling_governor", "powersave\n")
    write(cpu / "intel_pstate/no_turbo", "1\n")
    write(cpu / "vulnerabilities/mds", "Not affected\n")
    write(cpu / "vulnerabilities/spectre_v1", "Mitigation: barriers\n")
    write(tmp_path / "proc/self/status", "Name:\tx\nCpus_allowed_list:\t1,3\n")
    found = facts_of(tmp_path)
    assert (found["cpu_online_count"], found["cpu_affinity_count"]) == (5, 2)
    assert (found["cpu_smt_active"], found["cpu_boost"]) == (True, False)
    assert found["cpu_governor"] == "performance, powersave"
    assert found["cpu_mitigations"] == "spectre_v1: Mitigation: barriers"


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("processor\t: 0\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\nmodel name\t: other\n", "AMD EPYC"),
        ("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n", "arm64 implementer 0x41 part 0xd0c"),
        ("nonsense\n", None),
    ],
)
def test_cpu_model(tmp_path: Path, text: str, model: str | None) -> None:
    write(tmp_path / "proc/cpuinfo", text)
    assert facts_of(tmp_path)["cpu_model"] == model


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"proc/cpuinfo": "flags\t: fpu hypervisor\n"}, "hypervisor"),
        ({"proc/cpuinfo": "flags\t: fpu\n"}, "none"),
        ({"sys/hypervisor/type": "xen\n"}, "xen"),
        ({"proc/sys/kernel/osrelease": "5.15-microsoft-standard-WSL2\n"}, "wsl"),
        ({"sys/class/dmi/id/sys_vendor": "QEMU\n"}, "kvm or qemu"),
        ({"sys/class/dmi/id/sys_vendor": "Dell Inc.\n"}, "none"),
        (
            {
                "sys/class/dmi/id/sys_vendor": "Microsoft Corporation\n",
                "sys/class/dmi/id/product_name": "Virtual Machine\n",
            },
            "hyper-v",
        ),
        (
            {
                "sys/class/dmi/id/sys_vendor": "Microsoft Corporation\n",
                "sys/class/dmi/id/product_name": "Surface Laptop\n",
            },
            "none",
        ),
    ],
)
def test_virtualisation(tmp_path: Path, files: dict[str, str], kind: str) -> None:
    for name, text in files.items():
        write(tmp_path / name, text)
    assert facts_of(tmp_path)["virtualisation"] == kind


def test_sysctls_and_limits(tmp_path: Path) -> None:
    write(tmp_path / "proc/sys/net/ipv4/tcp_mem", "1\t2\t3\n")
    write(tmp_path / "proc/sys/net/core/somaxconn", "4096\n")
    write(tmp_path / "proc/self/limits", "Max open files            1024   unlimited   files\n")
    found = facts_of(tmp_path)
    assert found["sysctl.net.ipv4.tcp_mem"] == "1 2 3"
    assert found["sysctl.net.core.somaxconn"] == 4096
    assert found["rlimit_nofile_soft_count"] == 1024
    assert found["rlimit_nofile_hard_count"] == "unlimited"
    assert found["rlimit_stack_soft_bytes"] is None


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("0::/user.slice\n", "v2"),
        ("4:memory:/\n3:cpu,cpuacct:/\n1:name=systemd:/\n", "v1"),
        ("4:memory:/\n0::/\n", "hybrid"),
        ("1:name=systemd:/\n0::/\n", "v2"),
    ],
)
def test_cgroup_version(tmp_path: Path, text: str, version: str) -> None:
    write(tmp_path / "proc/self/cgroup", text)
    assert facts_of(tmp_path)["cgroup_version"] == version


def test_cpu_quota_of_both_versions(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/a/b\n")
    write(tmp_path / "sys/fs/cgroup/a/b/cpu.max", "max 100000\n")
    assert facts_of(tmp_path)["cgroup_cpu_quota_cpus"] == "unlimited"
    write(tmp_path / "sys/fs/cgroup/a/cpu.max", "150000 100000\n")
    assert facts_of(tmp_path)["cgroup_cpu_quota_cpus"] == 1.5
    write(tmp_path / "proc/self/cgroup", "3:cpu,cpuacct:/g\n")
    write(tmp_path / "sys/fs/cgroup/cpu/g/cpu.cfs_quota_us", "50000\n")
    write(tmp_path / "sys/fs/cgroup/cpu/g/cpu.cfs_period_us", "100000\n")
    assert facts_of(tmp_path)["cgroup_cpu_quota_cpus"] == 0.5


def test_a_group_outside_what_is_visible_falls_back_to_the_top(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/../../other\n")
    write(tmp_path / "sys/fs/cgroup/pids.max", "7\n")
    level = cgroups.tightest("pids", tmp_path / "proc", tmp_path / "sys")
    assert level is not None and level.limit == 7


def test_facts_agree_with_other_ways_to_ask() -> None:
    found = machine.facts()
    assert found["kernel_release"] == output("uname", "-r").strip()
    assert found["architecture"] == output("uname", "-m").strip()
    assert found["cpu_affinity_count"] == len(os.sched_getaffinity(0))
    assert found["python_version"] == platform.python_version()
    assert found["libc"] == " ".join(platform.libc_ver())
    assert found["user_is_root"] == (output("id", "-u").strip() == "0")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for side, limit in (("soft", soft), ("hard", hard)):
        expected = "unlimited" if limit == resource.RLIM_INFINITY else limit
        assert found[f"rlimit_nofile_{side}_count"] == expected


def test_memory_agrees_with_free() -> None:
    lines = output("free", "-b").splitlines()
    found = machine.facts()
    assert found["memory_total_bytes"] == int(lines[1].split()[1])
    assert found["swap_total_bytes"] == int(lines[2].split()[1])


def test_sysctls_agree_with_sysctl() -> None:
    for name in ("kernel.pid_max", "net.core.somaxconn", "net.ipv4.ip_local_port_range"):
        assert str(machine.facts()[f"sysctl.{name}"]).split() == output("sysctl", "-n", name).split()


def test_coarse_clock_is_one_tick_where_the_tick_is_known() -> None:
    found = machine.facts()
    if found["kernel_tick_hz"] is None:
        cannot_run("the kernel does not show its configuration")
    assert isinstance(found["kernel_tick_hz"], int)
    assert found["clock_coarse_resolution_ns"] == pytest.approx(1e9 / found["kernel_tick_hz"], rel=0.01)


def test_rooms_are_cheap_to_import() -> None:
    """What the rooms may not pull in."""
    program = (
        "import sys; from c10k_probe import machine, limits, parts;"
        "from c10k_probe.observe import tree, memory, sockets;"
        "print(*(name for name in ('rich', 'typer', 'numpy', 'psutil', 'subprocess', 'gzip', 'socket')"
        " if name in sys.modules))"
    )
    package = str(Path(machine.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": package}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == []


def test_small_files(tmp_path: Path) -> None:
    write(tmp_path / "status", "Name:\tx\nnonvoluntary:\t7\nvoluntary:\t5\nVmPTE:\t  40 kB")
    data = (tmp_path / "status").read_bytes()
    assert procfs.raw_field(data, b"\nvoluntary:") == 5
    assert procfs.raw_field(data, b"\nVmPTE:") == 40
    assert procfs.raw_field(data, b"\nName:") is None
    assert procfs.selected_word("always [madvise] never") == "madvise"
    assert procfs.selected_word(None) is None
    assert procfs.read_text(tmp_path / "missing") is None
    write(tmp_path / "empty", " \n")
    assert procfs.read_text(tmp_path / "empty") is None


@pytest.mark.parametrize(
    ("busy_s", "steal_s", "words"),
    [
        (1.0, 0.0, None),
        (1.51, 0.0, None),
        (1.6, 0.0, "other processes used 5.8 % of a core"),
        (1.0, 0.5, "the hypervisor took 2.5 %"),
    ],
)
def test_noise_gate(busy_s: float, steal_s: float, words: str | None) -> None:
    before = Counters(100.0, cpu_total_s=50.0, cpu_busy_s=10.0, cpu_steal_s=1.0)
    after = Counters(110.0, cpu_total_s=70.0, cpu_busy_s=10.0 + busy_s, cpu_steal_s=1.0 + steal_s)
    reason = machine.noise_reason(machine.counters_delta(before, after), own_cpu_s=1.0)
    assert (reason is None) if words is None else (reason is not None and words in reason)


def test_the_kernels_own_threads_are_not_others(tmp_path: Path) -> None:
    (tmp_path / "2/task/2").mkdir(parents=True)
    (tmp_path / "2/task/2/children").write_text("3 41 77 ")
    for pid, user, system in ((3, 0, 100), (41, 7, 200)):  # 77 has ended meanwhile
        (tmp_path / str(pid)).mkdir()
        rest = f"S 2 0 0 0 -1 69238880 0 0 0 0 {user} {system} 0 0 20 0 1 0 5 0 0"
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (kworker/0:1 (odd) name) {rest}\n")
    assert machine.read_counters(proc_root=tmp_path).cpu_kernel_threads_s == pytest.approx(3.07)
    delta = machine.Counters(time_s=10.0, cpu_busy_s=9.0, cpu_interrupt_s=0.5, cpu_kernel_threads_s=1.5)
    assert machine.foreign_cpu_pct(delta, own_cpu_s=6.0) == pytest.approx(9.8)  # 1 s less two ticks
    assert machine.noise_reason(delta, own_cpu_s=7.0) is None


def test_unknown_counters_make_no_noise() -> None:
    delta = machine.counters_delta(Counters(1.0), Counters(2.0))
    assert machine.steal_pct(delta) is None and machine.foreign_cpu_pct(delta, 0.0) is None
    assert machine.noise_reason(delta, 0.0) is None


def test_foreign_cpu_sees_a_process_that_burns() -> None:
    before = machine.read_counters()
    spent_s = time.process_time()
    program = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", program], check=True)
    delta = machine.counters_delta(before, machine.read_counters())
    share_pct = machine.foreign_cpu_pct(delta, time.process_time() - spent_s)
    assert share_pct is not None
    assert share_pct * delta.time_s / 100 > 0.3


def test_parts_are_described_once_and_found_where_they_are() -> None:
    found = {part.name: part for part in parts.find_parts()}
    assert len(found) == len(parts.PARTS)
    assert all((part.path is not None) == part.found for part in found.values())
    assert all("apt-get install" in part.command for part in found.values())
    assert found["strace"].found == (shutil.which("strace") is not None)
    assert found["strace"].used_by and found["ss"].used_by
    assert found["bcc"].command.endswith("python3-bpfcc")


def test_a_program_in_the_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "wrk", "#!/bin/sh\n")
    (tmp_path / "wrk").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {part.name: part for part in parts.find_parts()}
    assert found["wrk"].path == str(tmp_path / "wrk")


def fake_python(folder: Path, origin: Path) -> str:
    program = folder / "python3"
    write(program, f"#!/bin/sh\necho {origin}\n")
    program.chmod(0o755)
    return str(program)


def test_a_module_of_the_same_name_is_not_taken_for_bcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = tmp_path / "dist-packages/bcc/__init__.py"
    write(origin, "")
    monkeypatch.setattr(parts, "_SYSTEM_PYTHON", fake_python(tmp_path, origin))
    assert not next(part for part in parts.find_parts() if part.name == "bcc").found
    write(origin.parent / "libbcc.py", "")
    assert next(part for part in parts.find_parts() if part.name == "bcc").path == str(origin.parent)
    monkeypatch.setattr(parts, "_SYSTEM_PYTHON", str(tmp_path / "none"))
    assert not next(part for part in parts.find_parts() if part.name == "bcc").found
