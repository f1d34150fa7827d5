"""``doctor --install`` with programs that stand for apt-get, systemctl and update-rc.d, on a machine made for the test.

What stands for apt-get asks the policy as a package's scripts would, enables two services, and brings tools.
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command import run_inside, wait_for

from c10k_probe import parts
from c10k_probe.cli import doctor_apt, doctor_install
from c10k_probe.cli.doctor_keeper import MARK
from c10k_probe.exits import UsageError, UserError
from c10k_probe.parts import PARTS

APT = """#!/bin/sh
echo "$*" >> {here}/log
case "$*" in *print-uris*)
    case "$*" in *pkg-none*) echo "E: Unable to locate package pkg-none" >&2; exit 100;; esac
    case "$*" in *broken*) echo "E: held packages" >&2; exit 100;; esac
    echo "The following NEW packages will be installed:"
    echo "  lib-x pkg-a"
    echo "  pkg-b"
    echo "Need to get 1,536 B/2 kB of archives."
    echo "After this operation, 3,072 kB of additional disk space will be used."
    echo "'http://x/a.deb' a.deb 512 MD5Sum:0"
    echo "'http://x/b.deb' b.deb 1024 MD5Sum:0"
    exit 0;;
*update*) echo "W: old" >&2; [ -e {here}/no-lists ] && echo "E: no network" >&2 && exit 100; exit 0;;
esac
{policy} nginx start
echo "answer $?" >> {here}/log
cp {policy} {here}/policy-of-then
printf '%s enabled enabled\\n' a.service nginx.service ssh.service > {here}/enabled
ln -s ../init.d/old {here}/etc/rc2.d/S01old
[ -p {here}/gate ] && echo "at the gate" >> {here}/log && read word < {here}/gate
echo "Setting up"
[ -e {here}/no-space ] && echo "E: no space" >&2 && exit 100
[ -e {here}/empty ] || touch {bin}/tool-a {bin}/tool-b
chmod 755 {bin}/*
"""
SYSTEMCTL = """#!/bin/sh
if [ "$1" = list-unit-files ]; then cat {here}/enabled; exit 0; fi
echo "systemctl $*" >> {here}/log
[ "$2" = disable ] && grep -v "^$3 " {here}/enabled > {here}/less && mv {here}/less {here}/enabled
exit 0
"""
UPDATE_RC = """#!/bin/sh
echo "update-rc.d $*" >> {here}/log
rm {here}/etc/rc2.d/S01$1
"""
OWN_POLICY = "#!/bin/sh\nexit 104\n"
DISABLED = ["systemctl --quiet disable a.service", "systemctl --quiet disable nginx.service", "update-rc.d old disable"]


class Machine:
    """The made machine: its folder, its policy, and what was asked of the programs."""

    def __init__(self, here: Path) -> None:
        self.here, self.bin, self.policy = here, here / "bin", here / "policy-rc.d"
        self.bin.mkdir()
        (here / "etc/rc2.d").mkdir(parents=True)
        (here / "enabled").write_text("ssh.service enabled enabled\n")
        for name, text in (("apt-get", APT), ("systemctl", SYSTEMCTL), ("update-rc.d", UPDATE_RC)):
            (self.bin / name).write_text(text.format(here=here, bin=self.bin, policy=self.policy))
            (self.bin / name).chmod(0o755)

    def log(self) -> list[str]:
        """Command lines without the options of apt; a machine that systemd runs is asked to stop the units, too."""
        log = self.here / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        lines = [line.replace(" ".join(doctor_apt._OPTIONS) + " ", "") for line in lines]
        return [line for line in lines if "--quiet stop" not in line]

    def own_policy(self) -> None:
        """Give it a policy of its own."""
        self.policy.write_text(OWN_POLICY)
        self.policy.chmod(0o755)

    def is_as_before(self, policy: str | None) -> bool:
        """Whether the policy is this again, nothing lies beside it, and only what was enabled before is."""
        there = [path.name for path in self.here.glob("policy-rc.d*")]
        return (
            there == ([] if policy is None else ["policy-rc.d"])
            and (policy is None or self.policy.read_text() == policy)
            and (self.here / "enabled").read_text() == "ssh.service enabled enabled\n"
            and not list((self.here / "etc/rc2.d").iterdir())
        )


PLANS = [f"--print-uris install {names}" for names in ("pkg-a pkg-b pkg-none", "pkg-a pkg-b")]
INSTALLED = ["-q install pkg-a pkg-b", "answer 101"]
ROWS = (("one", "pkg-a", "tool-a"), ("two", "pkg-b", "tool-b"), ("rare", "pkg-none", "tool-c"))


def set_up(machine: Machine, put: Callable[[object, str, object], None]) -> None:
    """Make this process see the machine."""
    rows = tuple(parts._Row(name, "", package, parts._executable(tool)) for name, package, tool in ROWS)
    put(parts, "PARTS", rows)
    put(doctor_apt, "POLICY", machine.policy)
    put(doctor_apt, "ETC", machine.here / "etc")
    put(os, "geteuid", lambda: 0)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    set_up(made, monkeypatch.setattr)
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    return made


@pytest.mark.parametrize("policy", [None, OWN_POLICY])
def test_all_comes_and_no_service_with_it(
    machine: Machine, capfd: pytest.CaptureFixture[str], policy: str | None
) -> None:
    """Starts are forbidden meanwhile, whatever the machine's own policy says; the policy comes back, in its mode."""
    if policy:
        machine.own_policy()
    assert doctor_install.install_parts(yes=True, dry_run=False) == 0
    assert machine.log() == [*PLANS, "-q update", *PLANS, *INSTALLED, *DISABLED]
    assert machine.is_as_before(policy)
    assert policy is None or machine.policy.stat().st_mode & 0o777 == 0o755
    said, told = capfd.readouterr()
    lines = said.splitlines()
    assert lines[:4] == ["missing:", "  one   pkg-a", "  two   pkg-b", "  rare  pkg-none (apt has no such package)"]
    assert lines[4:6] == ["with what they need: lib-x", "to fetch: 1.50 KiB, on the disk: 2.93 MiB"]
    assert "disabled again: a.service nginx.service old" in said
    assert "now here: one, two\nnot among this distribution's packages: pkg-none\n" in said
    assert "Setting up" in told
    # what was asked meanwhile, left by a kill of all: it forbids nothing, and asks the machine's own
    left = machine.here / "policy-of-then"
    assert MARK in left.read_text()
    assert subprocess.run([left, "nginx", "start"], check=False).returncode == 0


def test_what_a_crash_has_left_is_put_right(machine: Machine) -> None:
    """Ours and the machine's own beside it: ours asks that one, and the next run puts it back."""
    kept = machine.here / "policy-rc.d.before-c10k-probe"
    machine.own_policy()
    doctor_install.install_parts(yes=True, dry_run=False)
    machine.policy.rename(kept)
    (machine.here / "policy-of-then").rename(machine.policy)
    assert subprocess.run([machine.policy, "nginx", "start"], check=False).returncode == 104
    (machine.bin / "tool-b").unlink()
    assert doctor_install.install_parts(yes=True, dry_run=False) == 0
    assert machine.is_as_before(OWN_POLICY)


def test_nothing_is_missing(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("tool-a", "tool-b", "tool-c"):
        (machine.bin / name).touch(0o755)
    assert doctor_install.install_parts(yes=False, dry_run=False) == 0
    assert capsys.readouterr().out == "every optional part is here; nothing to install\n"
    assert machine.log() == []


@pytest.mark.parametrize(
    ("what", "words", "log"),
    [
        (
            "no-space",
            ("apt-get failed (exit 100): E: no space", "apt-get install", "pkg-a pkg-b"),
            [*INSTALLED, *DISABLED],
        ),
        ("no-lists", ("apt-get update failed (exit 100): E: no network", "apt-get update"), []),
        ("empty", ("these are still missing: one, two",), [*INSTALLED, *DISABLED]),
    ],
)
def test_apt_fails(machine: Machine, what: str, words: tuple[str, ...], log: list[str]) -> None:
    """One line with apt's last one and what to type; services are put back all the same."""
    (machine.here / what).touch()
    with pytest.raises(UserError) as error:
        doctor_install.install_parts(yes=True, dry_run=False)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)
    assert error.value.code == 1
    after = machine.log()[machine.log().index("-q update") + 1 :]
    assert [line for line in after if line not in PLANS] == log
    assert machine.is_as_before(None)


def test_no_plan_and_no_policy(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages that cannot go together, and a folder that cannot be written: nothing is installed."""
    with pytest.raises(UserError, match=r"cannot plan \(exit 100\): E: held packages; .* broken"):
        doctor_apt.make_plan(["broken"])
    monkeypatch.setattr(doctor_apt, "POLICY", machine.here / "no-folder/policy-rc.d")
    with pytest.raises(UserError, match=r"nothing was installed: No such file or directory: .*no-folder"):
        doctor_install.install_parts(yes=True, dry_run=False)
    assert "-q install pkg-a pkg-b" not in machine.log()


def test_refused_before_anything(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """No terminal to ask on, no root, no apt: one line each that says what to type; apt is not asked."""
    with open(os.devnull) as nobody:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdin", nobody)
        with pytest.raises(UsageError, match="stdin is no terminal; add --yes"):
            doctor_install.install_parts(yes=False, dry_run=False)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(UserError, match=r"needs root; type: sudo /.* doctor --install --yes$"):
            doctor_install.install_parts(yes=True, dry_run=False)
    (machine.bin / "apt-get").unlink()
    monkeypatch.setenv("PATH", str(machine.bin))
    with pytest.raises(UserError, match=r"there is no apt-get here; .*: one, two, rare$"):
        doctor_install.install_parts(yes=True, dry_run=False)
    assert machine.log() == []


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("doctor --yes", "doctor --install --yes"),
        ("doctor --dry-run", "doctor --install --dry-run"),
        ("doctor --install --json", "--json"),
        ("doctor --install --yes --dry-run", "leave one of them out"),
    ],
)
def test_options_that_do_not_go_together(tmp_path: Path, line: str, word: str) -> None:
    finished = run_inside(*line.split(), cwd=tmp_path)
    assert (finished.code, finished.stdout) == (2, "")
    assert word in finished.stderr


def test_a_dry_run_needs_no_root(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert doctor_install.install_parts(yes=False, dry_run=True) == 0
    assert machine.log() == PLANS
    assert "to fetch: 1.50 KiB" in capsys.readouterr().out


@pytest.mark.parametrize(("answer", "comes"), [("n", False), ("", False), ("y", True), ("Yes", True)])
def test_it_asks(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    answer: str,
    comes: bool,
) -> None:
    """Only yes is yes; the plan stands before the question."""
    master, slave = pty.openpty()
    with open(slave) as terminal:  # noqa: PTH123
        os.write(master, f"{answer}\n".encode())
        monkeypatch.setattr(sys, "stdin", terminal)
        assert doctor_install.install_parts(yes=False, dry_run=False) == 0
    os.close(master)
    said = capfd.readouterr().out
    assert 0 < said.index("to fetch") < said.index("install? [y/N]")
    assert ("nothing was changed" in said) is not comes
    assert ("-q install pkg-a pkg-b" in machine.log()) is comes


# a program that sees the machine and runs the command, as `c10k-probe` would
PROGRAM = """
import sys
from pathlib import Path
sys.path[:0] = {paths!r}
import test_doctor_install as made
machine = object.__new__(made.Machine)
machine.here, machine.policy = Path({here!r}), Path({here!r}) / "policy-rc.d"
made.set_up(machine, setattr)
from c10k_probe.cli import main
main(["doctor", "--install", "--yes"])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_or_killed(machine: Machine, number: signal.Signals) -> None:
    """Apt is not left halfway; when it has ended, all is put back, by whom is left."""
    machine.own_policy()
    os.mkfifo(machine.here / "gate")
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    program = PROGRAM.format(paths=paths, here=str(machine.here))
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as command:
        wait_for(lambda: "at the gate" in machine.log(), "apt at work")
        assert MARK in machine.policy.read_text()
        command.send_signal(number)
        if number != signal.SIGINT:
            assert command.wait() == -number
        assert subprocess.run([machine.policy, "nginx", "start"], check=False).returncode == 101
        (machine.here / "gate").write_text("go\n")
        assert command.wait() == (130 if number == signal.SIGINT else -number)
    wait_for(lambda: machine.is_as_before(OWN_POLICY), "policy and services as before")
    assert (machine.bin / "tool-a").exists()
    assert set(DISABLED) <= set(machine.log())


def test_every_part_has_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's name on Debian, Ubuntu's on Ubuntu and what was made from it."""
    headers, perf = (next(row for row in PARTS if row.name == name) for name in ("kernel headers", "perf"))
    assert all(row.package for row in PARTS)
    assert callable(headers.package)
    assert callable(perf.package)
    for system, names in (
        ({"ID": "debian"}, ("linux-headers-arm64", "linux-perf")),
        ({"ID": "ubuntu", "ID_LIKE": "debian"}, ("linux-headers-generic", "linux-tools-generic")),
        ({"ID": "mint", "ID_LIKE": "ubuntu debian"}, ("linux-headers-generic", "linux-tools-generic")),
    ):
        monkeypatch.setattr(parts.platform, "freedesktop_os_release", lambda system=system: system)
        monkeypatch.setattr(os, "uname", lambda: type("Names", (), {"machine": "aarch64"}))
        assert (headers.package(), perf.package()) == names
