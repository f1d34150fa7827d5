"""Walls: read from a made-up kernel, and checked against real walls that a process runs into."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
from conftest import cannot_run
from hypothesis import given
from hypothesis import strategies as st

from c10k_probe import limits
from c10k_probe.limits import Needs, Wall
from c10k_probe.observe.walls import WALLS

KIB = 1024
PAGE = os.sysconf("SC_PAGESIZE")
NAMES = [row.name for row in WALLS]

LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max stack size            8388608              unlimited            bytes
Max processes             5000                 6000                 processes
Max open files            1024                 20000                files
Max address space         unlimited            unlimited            bytes
"""
STATUS = "Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nCapEff:\t{cap}\nCapBnd:\t000001ffffffffff\nThreads:\t7\n"
SYSCTLS = {
    "fs/nr_open": "1048576",
    "fs/file-max": "100000",
    "fs/file-nr": "413\t0\t100000",
    "fs/epoll/max_user_watches": "500000",
    "kernel/pid_max": "32768",
    "kernel/threads-max": "190000",
    "vm/max_map_count": "65530",
    "vm/overcommit_memory": "0",
    "net/core/somaxconn": "4096",
    "net/ipv4/ip_local_port_range": "32768\t60999",
    "net/ipv4/ip_local_reserved_ports": "80,40000-40099,60990-61010",
    "net/ipv4/tcp_mem": "1000\t2000\t3000",
    "net/netfilter/nf_conntrack_max": "262144",
    "net/netfilter/nf_conntrack_count": "12",
}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make_proc(root: Path, *, uid: int = 1000, cap: str = "0000000000000000", **sysctls: str) -> Path:
    write(root / "self/limits", LIMITS)
    write(root / "self/status", STATUS.format(uid=uid, cap=cap))
    write(root / "self/uid_map", "         0          0 4294967295\n")
    write(root / "42/status", STATUS.format(uid=uid, cap=cap))
    write(root / "43/status", STATUS.format(uid=uid + 1, cap=cap))
    write(root / "net/sockstat", "sockets: used 17\nTCP: inuse 1 orphan 0 tw 2 alloc 1 mem 7\nUDP: inuse 0 mem 9\n")
    write(root / "loadavg", "0.1 0.2 0.3 1/285 99\n")
    write(root / "meminfo", f"MemTotal: {8 * KIB * KIB} kB\nMemAvailable: {6 * KIB * KIB} kB\n")
    for name, text in (SYSCTLS | {key.replace("__", "/"): text for key, text in sysctls.items()}).items():
        write(root / "sys" / name, text + "\n")
    return root


def by_name(proc: Path, sys_root: Path | None = None) -> dict[str, Wall]:
    return {wall.name: wall for wall in limits.walls(proc_root=proc, sys_root=sys_root or proc / "no-sys")}


def make_wall(name: str, limit: int | None, used: int | None = None) -> Wall:
    return Wall(name, "administrative", limit, used, "x", "machine", "test")


def test_every_row_counts_against_a_field_of_needs() -> None:
    known = {field.name for field in fields(Needs)}
    assert {row.need for row in WALLS} == known
    assert len(set(NAMES)) == len(NAMES)


def test_walls_of_a_made_up_kernel(tmp_path: Path) -> None:
    found = by_name(make_proc(tmp_path))
    assert {name: (wall.limit_count, wall.used_count) for name, wall in found.items()} == {
        "descriptors": (20000, 3),
        "fd-setsize": (1024, 3),
        "descriptors-system": (100000, 413),
        "ports": (28232 - 100 - 10, None),
        "user-tasks": (5000, 7),
        "pids": (32768 - 300, 285),
        "threads": (190000, 285),
        "maps": (65530, None),
        "backlog": (4096, None),
        "memory": (8 * 2**30 - int(0.1 * 8 * 2**30), 2 * 2**30),
        "tcp-memory": (3000 * PAGE, 7 * PAGE),
        "conntrack": (262144, 12),
        "epoll-watches": (500000, None),
        "address-space": (2**47, None),
    }
    assert found["ports"].lift == 'sudo sysctl -w net.ipv4.ip_local_port_range="1024 65535"'
    assert found["tcp-memory"].lift == 'sudo sysctl -w net.ipv4.tcp_mem="2000 4000 6000"'
    assert found["memory"].kind == "architectural" and found["memory"].lift is None


def test_nothing_readable_is_nothing_known(tmp_path: Path) -> None:
    found = by_name(tmp_path)
    assert set(found) == {"fd-setsize", "address-space"}


def test_rubbish_is_unknown_not_an_error(tmp_path: Path) -> None:
    proc = make_proc(tmp_path, net__ipv4__ip_local_port_range="many", kernel__pid_max="", fs__file__max="x")
    write(proc / "sys/net/core/somaxconn", "a b c")
    assert not {"ports", "pids", "backlog"} & set(by_name(proc))


def test_root_is_not_bound_by_its_number_of_tasks(tmp_path: Path) -> None:
    found = by_name(make_proc(tmp_path, uid=0, cap="000001ffffffffff"))
    assert found["user-tasks"].limit_count is None
    assert found["descriptors-system"].limit_count is None
    assert found["threads"].lift == "sysctl -w kernel.threads-max=380000"


def test_root_of_a_user_namespace_is_bound(tmp_path: Path) -> None:
    proc = make_proc(tmp_path, uid=0, cap="000001ffffffffff")
    write(proc / "self/uid_map", "0 1000 1\n")
    found = by_name(proc)
    assert found["user-tasks"].limit_count == 5000
    assert found["descriptors-system"].limit_count == 100000


def test_a_dropped_capability_leaves_no_way_to_lift_descriptors(tmp_path: Path) -> None:
    assert by_name(make_proc(tmp_path))["descriptors"].lift == "sudo prlimit --pid $$ --nofile=1048576:1048576"
    status = (tmp_path / "self/status").read_text()
    write(tmp_path / "self/status", status.replace("000001ffffffffff", "000001fffeffffff"))
    assert by_name(tmp_path)["descriptors"].lift is None


def test_the_whole_port_range_is_architectural(tmp_path: Path) -> None:
    ports = by_name(make_proc(tmp_path, net__ipv4__ip_local_port_range="1024 65535"))["ports"]
    assert (ports.kind, ports.lift) == ("architectural", None)


def test_strict_overcommit_adds_a_wall(tmp_path: Path) -> None:
    proc = make_proc(tmp_path, vm__overcommit_memory="2")
    write(proc / "meminfo", "MemTotal: 4096 kB\nCommitLimit: 2048 kB\nCommitted_AS: 1024 kB\n")
    commit = by_name(proc)["commit"]
    assert (commit.limit_count, commit.used_count) == (2048 * KIB, 1024 * KIB)


def test_the_tightest_group_on_the_way_up_counts_v2(tmp_path: Path) -> None:
    proc = make_proc(tmp_path / "proc")
    write(proc / "self/cgroup", "0::/a/b\n")
    write(proc / "self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    group = tmp_path / "sys/fs/cgroup/a"
    write(group / "b/pids.max", "max\n")
    write(group / "pids.max", "500\n")
    write(group / "pids.current", "20\n")
    write(group / "b/memory.max", f"{2**40}\n")
    write(group / "b/memory.current", f"{2**30}\n")
    write(group / "memory.max", f"{4 * 2**30}\n")
    write(group / "memory.current", f"{2**30}\n")
    write(group / "memory.stat", f"anon 5\ninactive_file {2**29}\n")
    found = by_name(proc, tmp_path / "sys")
    assert (found["cgroup-pids"].limit_count, found["cgroup-pids"].used_count) == (500, 20)
    assert found["cgroup-pids"].lift == f"echo max | sudo tee {group}/pids.max"
    memory = found["cgroup-memory"]
    assert (memory.limit_count, memory.used_count) == (4 * 2**30 - 2**29, 2**29)


def test_groups_v1_in_a_container_that_sees_only_its_part(tmp_path: Path) -> None:
    proc = make_proc(tmp_path / "proc")
    write(proc / "self/cgroup", "4:memory:/docker/abc\n3:pids:/docker/abc\n")
    mounts = "30 23 0:26 /docker/abc /sys/fs/cgroup/{0} ro - cgroup cgroup rw,{0}\n"
    write(proc / "self/mountinfo", mounts.format("memory") + mounts.format("pids"))
    write(tmp_path / "sys/fs/cgroup/pids/pids.max", "64\n")
    write(tmp_path / "sys/fs/cgroup/pids/pids.current", "4\n")
    write(tmp_path / "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    write(tmp_path / "sys/fs/cgroup/memory/memory.usage_in_bytes", "1000\n")
    found = by_name(proc, tmp_path / "sys")
    assert found["cgroup-pids"].room_count == 60
    assert found["cgroup-memory"].limit_count is None


def test_predict_names_the_count_and_the_wall() -> None:
    walls = [make_wall("descriptors", 103, 3), make_wall("pids", 1000, 10), make_wall("maps", None)]
    per_unit = Needs(descriptors_count=1, tasks_count=1, mappings_count=2)
    prediction = limits.predict(per_unit, Needs(descriptors_count=2), walls)
    assert (prediction.count, prediction.wall) == (98, walls[0])
    assert limits.predict(Needs(tasks_count=1), Needs(), walls).count == 990
    assert limits.predict(Needs(mappings_count=1), Needs(), walls) == limits.Prediction(None, None)


def test_predict_is_zero_when_the_fixed_part_does_not_fit() -> None:
    walls = [make_wall("memory", 100, 50)]
    assert limits.predict(Needs(), Needs(memory_bytes=51), walls).count == 0
    assert limits.predict(Needs(memory_bytes=1), Needs(memory_bytes=51), walls).count == 0
    assert limits.predict(Needs(), Needs(memory_bytes=50), walls).count is None


amounts = st.integers(min_value=0, max_value=10**6)


@given(limit=amounts, used=amounts, fixed=amounts, each=st.integers(min_value=1, max_value=1000))
def test_a_predicted_count_fits_and_one_more_does_not(limit: int, used: int, fixed: int, each: int) -> None:
    walls = [make_wall("threads", limit, used), make_wall("backlog", 10)]
    fixed_needs, per_unit = Needs(tasks_count=fixed), Needs(tasks_count=each)
    count = limits.predict(per_unit, fixed_needs, walls).count
    assert count is not None
    if count > 0:
        assert limits.check(fixed_needs.plus(per_unit.times(count)), walls) is None
    exceeded = limits.check(fixed_needs.plus(per_unit.times(count + 1)), walls)
    assert exceeded is not None and exceeded.name == "threads"


def test_check_names_the_tightest_of_several() -> None:
    walls = [make_wall("descriptors", 100), make_wall("cgroup-pids", 20), make_wall("pids", 50)]
    needs = Needs(descriptors_count=150, tasks_count=150)
    assert limits.check(needs, walls) == walls[1]
    assert limits.check(Needs(descriptors_count=100), walls) is None


@pytest.mark.parametrize(
    ("call", "errno_name", "name"),
    [
        ("accept4", "EMFILE", "descriptors"),
        ("socket", "EMFILE", "descriptors"),
        ("socket", "ENFILE", "descriptors-system"),
        ("connect", "EADDRNOTAVAIL", "ports"),
        ("bind", "EADDRINUSE", "ports"),
        ("connect", "ETIMEDOUT", "backlog"),
        ("connect", "EINPROGRESS", "backlog"),
        ("mmap", "ENOMEM", "maps"),
        ("pthread_create", "EAGAIN", "maps"),
        ("fork", "EAGAIN", "user-tasks"),
        ("clone3", "EAGAIN", "user-tasks"),
        ("fork", "ENOMEM", "memory"),
        ("sendto", "ENOBUFS", "memory"),
        ("epoll_ctl", "ENOSPC", "epoll-watches"),
        ("connect", "ECONNREFUSED", None),
        ("recv", "EAGAIN", None),
    ],
)
def test_diagnose_of_a_quiet_machine(tmp_path: Path, call: str, errno_name: str, name: str | None) -> None:
    walls = [
        replace(wall, used_count=900) if wall.name == "user-tasks" else wall
        for wall in by_name(make_proc(tmp_path)).values()
    ]
    broken = limits.diagnose(call, errno_name, walls=walls)
    assert (broken.name if broken else None) == name


def test_diagnose_names_the_fullest() -> None:
    walls = [make_wall("cgroup-pids", None, 9), make_wall("pids", 100, 60), make_wall("threads", 100, 99)]
    broken = limits.diagnose("fork", "EAGAIN", walls=walls)
    assert broken is not None and broken.name == "threads"
    full = [make_wall("backlog", 10), make_wall("conntrack", 100, 100)]
    broken = limits.diagnose("connect", "ETIMEDOUT", walls=full)
    assert broken is not None and broken.name == "conntrack"
    assert limits.diagnose("fork", "EAGAIN", walls=[make_wall("cgroup-pids", None)]) is None


@pytest.mark.parametrize(("used", "name"), [(99, "tcp-memory"), (89, None), (None, None)])
def test_a_time_out_is_of_tcps_memory_only_when_that_is_full(used: int | None, name: str | None) -> None:
    broken = limits.diagnose("recv", "ETIMEDOUT", walls=[make_wall("tcp-memory", 100, used)])
    assert (broken.name if broken else None) == name


def test_one_wall_of_a_process() -> None:
    wall = limits.read_wall("descriptors", os.getpid())
    assert wall == next(item for item in limits.walls(pid=os.getpid()) if item.name == "descriptors")
    assert limits.read_wall("descriptors", 2**22 + 1) is None


def test_reserve() -> None:
    assert limits.reserve_bytes(100 * 2**30) == 10 * 2**30
    assert limits.reserve_bytes(4 * 2**30) == 512 * 2**20
    assert limits.reserve_bytes(2**30) == 256 * 2**20


def test_memory_guard(tmp_path: Path) -> None:
    proc = make_proc(tmp_path / "proc")
    room = 6 * 2**30 - int(0.1 * 8 * 2**30)
    assert limits.memory_guard(room - 2**20, proc_root=proc, sys_root=tmp_path) is None
    reason = limits.memory_guard(room + 2**20, proc_root=proc, sys_root=tmp_path)
    assert reason is not None and "machine" in reason and "\n" not in reason
    write(proc / "self/cgroup", "0::/\n")
    write(tmp_path / "fs/cgroup/memory.max", f"{2**30}\n")
    write(tmp_path / "fs/cgroup/memory.current", f"{2**29}\n")
    reason = limits.memory_guard(2**29, proc_root=proc, sys_root=tmp_path)
    assert reason is not None and "control group" in reason
    assert limits.memory_guard(10**18, proc_root=tmp_path / "none", sys_root=tmp_path) is None


def test_the_guard_speaks_up_when_the_reserve_is_touched_already(tmp_path: Path) -> None:
    proc = make_proc(tmp_path)
    write(proc / "meminfo", "MemTotal: 8388608 kB\nMemAvailable: 100 kB\n")
    assert limits.memory_guard(-5, proc_root=proc, sys_root=tmp_path) is not None


def test_this_machine_has_the_common_walls() -> None:
    found = {wall.name: wall for wall in limits.walls()}
    assert {"descriptors", "ports", "pids", "threads", "maps", "backlog", "memory"} <= set(found)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = found["descriptors"].limit_count
    assert limit is None or limit <= hard or hard == resource.RLIM_INFINITY


# Processes that run into a wall on purpose: they say when they are ready, then how many they got and the errno.
OPEN_ALL = """
import os, sys
print("ready", flush=True); sys.stdin.readline()
count = 0
try:
    while True:
        os.dup(0); count += 1
except OSError as error:
    print(count, error.errno, flush=True)
sys.stdin.readline()
"""
FORK_ALL = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NPROC, (12, 12))
os.setresuid(54321, 54321, 54321)  # only now: it may not reach this Python
print("ready", flush=True); sys.stdin.readline()
children = []
try:
    while len(children) < 40:
        child = os.fork()
        if not child:
            sys.stdin.readline(); os._exit(0)
        children.append(child)
    print(len(children), 0, flush=True)
except OSError as error:
    print(len(children), error.errno, flush=True)
sys.stdin.readline()
for child in children:
    os.kill(child, 9); os.waitpid(child, 0)
"""
MAP_ALL = """
import mmap, sys
print("ready", flush=True); sys.stdin.readline()
maps = []
try:
    while len(maps) < 300000:
        maps.append(mmap.mmap(-1, 4096))
    print(len(maps), 0, flush=True)
except OSError as error:
    print(len(maps), error.errno, flush=True)
sys.stdin.readline()
"""


def run_into(program: str) -> tuple[list[Wall], list[Wall], int, str]:
    """Walls of the process before, walls of it when it has failed, how many it got, the name of the errno."""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin and process.stdout
        process.stdout.readline()
        before = limits.walls(pid=process.pid)
        print(file=process.stdin, flush=True)
        count, number = map(int, process.stdout.readline().split())
        after = limits.walls(pid=process.pid)
        print(file=process.stdin, flush=True)
        process.stdin.close()
    return before, after, count, errno.errorcode.get(number, "OK")


IN_A_TABLE_OF_ITS_OWN = """
import ctypes, threading
import os
opened, done = threading.Event(), threading.Event()
def run():
    ctypes.CDLL(None, use_errno=True).unshare(0x400)  # CLONE_FILES
    input()
    for _ in range(50): os.dup(0)
    opened.set()
    done.wait()
thread = threading.Thread(target=run)
thread.start()
print(flush=True)
opened.wait()
print(50, 0, flush=True)
input()
done.set()
"""


def test_descriptors_used_are_those_of_the_fullest_table() -> None:
    """A thread with a table of its own has descriptors that the first thread's folder does not show."""
    if Path("/proc/self/fd").stat().st_size == 0:
        cannot_run("a kernel whose /proc/PID/fd has a size (Linux 6.2)")
    before, after, count, _ = run_into(IN_A_TABLE_OF_ITS_OWN)
    used = [next(wall for wall in walls if wall.name == "descriptors").used_count for walls in (before, after)]
    assert used[0] is not None and used[0] < 20
    assert used[1] == used[0] + count
    select = [next(wall for wall in walls if wall.name == "fd-setsize").used_count for walls in (before, after)]
    assert select == used


def test_descriptors_end_where_predicted() -> None:
    program = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n{OPEN_ALL}"
    before, after, count, errno_name = run_into(program)
    prediction = limits.predict(Needs(descriptors_count=1), Needs(), before)
    assert (prediction.count, errno_name) == (count, "EMFILE")
    broken = limits.diagnose("dup", errno_name, walls=after)
    assert broken is not None and (broken.name, broken.room_count) == ("descriptors", 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become a user that runs nothing else")
def test_tasks_of_a_user_end_where_predicted() -> None:
    before, after, count, errno_name = run_into(FORK_ALL)
    prediction = limits.predict(Needs(tasks_count=1), Needs(), before)
    assert (prediction.count, errno_name) == (count, "EAGAIN")
    broken = limits.diagnose("fork", errno_name, walls=after)
    assert broken is not None and (broken.name, broken.room_count) == ("user-tasks", 0)


def test_mappings_end_where_predicted() -> None:
    maps = next(wall for wall in limits.walls() if wall.name == "maps")
    if maps.limit_count is None or maps.limit_count > 100_000:
        pytest.skip("needs vm.max_map_count of at most 100,000")
    before, after, count, errno_name = run_into(MAP_ALL)
    prediction = limits.predict(Needs(mappings_count=1), Needs(), before)
    # The interpreter's own heap maps a little too; [vsyscall] is listed and is no mapping.
    assert errno_name == "ENOMEM" and prediction.count is not None
    assert abs(prediction.count - count) < 0.02 * count
    broken = limits.diagnose("mmap", errno_name, walls=after)
    assert broken is not None and broken.name == "maps"
