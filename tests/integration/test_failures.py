"""Helpers that crash, hang, print rubbish or are missing: one line says what, the others are measured, exit code."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import kernel
import pytest
from command import (
    Finished,
    complaint_of,
    environment,
    living,
    only_run_folder,
    rows_of,
    run,
    run_here,
    run_inside,
    started,
)

from c10k_probe import native, results

SHELL = '#!/bin/sh\ncase "$*" in *--hello*) exec {real} "$@";; esac\n'
NOISE = "the machine was not quiet"
# name -> what the fake does when it is to measure, and what the warning must say
FAKES: Mapping[str, tuple[str, str]] = {
    "crash": ("kill -SEGV $$", "was killed by SIGSEGV"),
    "rubbish": ("echo 'Segmentation violation, says the fake'", "not its protocol: 'Segmentation violation"),
    "binary": (r"printf '\377\376\000\n'", "not its protocol"),
    "wrong shape": ("echo '[1, 2]'", "not its protocol"),
    "silent end": ("exit 0", "ended without its end message"),
    "bad exit": ("echo 'out of luck' >&2; exit 9", "exit code 9: out of luck"),
    "no end": ('{real} "$@" | grep -v \'"end"\'', "ended without its end message"),
    "old protocol": ('{real} "$@" | sed s/\'"protocol":1\'/\'"protocol":0\'/', "speaks protocol 0"),
    "failed call": (
        '{real} --hello | head -n 1; echo \'{{"type":"error","call":"fork","arguments":"","errno":11,"name":"EAGAIN",'
        '"message":"Resource temporarily unavailable"}}\'; exit 1',
        "fork() failed: Resource temporarily unavailable",
    ),
}
UNSUPPORTED = '{real} --hello | head -n 1; echo \'{{"type":"unsupported","reason":"no such call here"}}\'; exit 77'
HelperFolder = Callable[..., Path]


@pytest.fixture
def helpers(tmp_path: Path) -> HelperFolder:
    """Makes a folder of helpers: those named are replaced by a shell script, the others are the real ones."""

    def make(**scripts: str) -> Path:
        folder = tmp_path / "helpers"
        folder.mkdir()
        for real in native.folder().iterdir():
            body = scripts.get(real.name.replace("-", "_"))
            path = folder / real.name
            if body is None:
                path.symlink_to(real)
            else:
                path.write_text((SHELL + body + "\n").format(real=real), encoding="utf-8")
                path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return folder

    return make


def measured_with(folder: Path, cwd: Path, *arguments: object) -> Finished:
    """fork-latency, small, with CSV on stdout and the helpers of a folder."""
    small = ["--n", 10, "--repeats", 2, "--method", "fork", "--csv", "-"]
    return run("fork-latency", *small, *arguments, cwd=cwd, changes={native.HELPERS_VARIABLE: str(folder)})


def warnings_of(text: str) -> list[str]:
    """The warning lines of plain output, but for that of a machine that is not quiet, as one that runs tests is not."""
    warnings = [line for line in text.splitlines() if line.startswith("warning: ")]
    return [line for line in warnings if NOISE not in line]


@pytest.mark.parametrize("kind", FAKES)
def test_one_bad_helper_costs_its_own_cells_alone(helpers: HelperFolder, tmp_path: Path, kind: str) -> None:
    """The static build is bad: its row says so, the dynamic one is measured to the last sample, exit 3."""
    body, said = FAKES[kind]
    finished = measured_with(helpers(fork_latency_static=body), tmp_path)
    assert finished.code == 3, finished.stderr
    assert "Traceback" not in finished.stderr
    (warning,) = warnings_of(finished.stderr)
    assert "fork static" in warning
    assert said in warning
    rows = {row["linking"]: row for row in rows_of(finished.stdout)}
    assert (rows["dynamic"]["status"], rows["dynamic"]["n_count"]) == ("ok", "10")
    assert (rows["static"]["status"], rows["static"]["grade"], rows["static"]["n_count"]) == ("failed", "void", "")
    assert said in rows["static"]["reason"]
    stored = results.load(only_run_folder(tmp_path))
    assert (stored.state, stored.facts["exit_code"]) == ("finished", 3)
    assert len([warning for warning in stored.facts["warnings"] if NOISE not in warning["seen"]]) == 1


def test_all_helpers_bad(helpers: HelperFolder, tmp_path: Path) -> None:
    """When nothing could be measured the code is 1, and each cell has a row and a warning."""
    body, _ = FAKES["crash"]
    finished = measured_with(helpers(fork_latency=body, fork_latency_static=body), tmp_path)
    assert finished.code == 1
    assert [row["status"] for row in rows_of(finished.stdout)] == ["failed", "failed"]
    assert len(warnings_of(finished.stderr)) == 2


def test_a_helper_that_fails_later_keeps_its_samples(helpers: HelperFolder, tmp_path: Path) -> None:
    """The first launch works, the second crashes: five samples stay in the row, which says that it failed."""
    body = f'if [ -e {tmp_path}/once ]; then kill -SEGV $$; fi; touch {tmp_path}/once; exec {{real}} "$@"'
    finished = measured_with(helpers(fork_latency_static=body), tmp_path)
    assert finished.code == 3
    rows = {row["linking"]: row for row in rows_of(finished.stdout)}
    assert (rows["static"]["status"], rows["static"]["n_count"]) == ("failed", "5")
    assert "SIGSEGV" in rows["static"]["reason"]
    assert float(rows["static"]["cycle_p50_ns"]) > 0


def test_not_supported_here(helpers: HelperFolder, tmp_path: Path) -> None:
    """One cell that this machine cannot do is skipped and the run is well; when it is all of them, exit 77."""
    folder = helpers(fork_latency=UNSUPPORTED, fork_latency_static=UNSUPPORTED)
    finished = measured_with(folder, tmp_path)
    assert finished.code == 77, finished.stderr
    rows = rows_of(finished.stdout)
    assert [row["status"] for row in rows] == ["skipped", "skipped"]
    assert all("no such call here" in row["reason"] for row in rows)
    (folder / "fork_latency").unlink()
    (folder / "fork_latency").symlink_to(native.find("fork_latency"))
    finished = measured_with(folder, tmp_path)
    assert finished.code == 0, finished.stderr
    assert sorted(row["status"] for row in rows_of(finished.stdout)) == ["ok", "skipped"]


def test_a_hanging_helper(
    helpers: HelperFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Silence ends: the helper and what it started are killed, the others are measured, exit 3."""
    folder = helpers(fork_latency_static="sleep 1000 & sleep 1000")
    patience = (*(native.Helper.__init__.__defaults__ or ())[:-1], 0.5)
    monkeypatch.setattr(native.Helper.__init__, "__defaults__", patience)
    mark = tmp_path.name
    for name, value in environment(mark, {native.HELPERS_VARIABLE: str(folder)}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    code = run_here("fork-latency", "--n", 10, "--repeats", 2, "--method", "fork", "--csv", "-")
    out, err = capfd.readouterr()
    assert code == 3, err
    (warning,) = warnings_of(err)
    assert "fork static" in warning
    assert "said nothing" in warning
    assert {row["linking"]: row["n_count"] for row in rows_of(out)} == {"dynamic": "10", "static": ""}
    assert living(mark) == []


@pytest.mark.parametrize("experiment", ["fork-latency", "connections"])
def test_missing_helpers(tmp_path: Path, experiment: str) -> None:
    """Without helpers nothing is measured; every cell says which one is missing, where, and what to do."""
    changes = {native.HELPERS_VARIABLE: str(tmp_path / "nowhere")}
    finished = run_inside(experiment, "--quick", cwd=tmp_path, changes=changes)
    assert finished.code == 1
    assert "Traceback" not in finished.stderr
    warnings = warnings_of(finished.stderr)
    assert warnings
    for warning in warnings:
        assert "is missing" in warning
        assert str(tmp_path / "nowhere") in warning
        assert "install" in warning
    assert results.load(only_run_folder(tmp_path)).state == "finished"


def test_a_helper_that_is_not_executable(helpers: HelperFolder, tmp_path: Path) -> None:
    """The same for one that may not be started."""
    folder = helpers(fork_latency_static="exit 0")
    (folder / "fork_latency-static").chmod(0o644)
    finished = measured_with(folder, tmp_path)
    assert finished.code == 3
    (warning,) = warnings_of(finished.stderr)
    assert "fork_latency-static" in warning


def test_a_helper_of_another_machine(helpers: HelperFolder, tmp_path: Path) -> None:
    """A file that the kernel refuses to execute is said to be one."""
    folder = helpers(fork_latency_static="exit 0")
    (folder / "fork_latency-static").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(57))
    finished = measured_with(folder, tmp_path)
    assert finished.code == 3
    (warning,) = warnings_of(finished.stderr)
    assert "Exec format error" in warning


@pytest.mark.parametrize("helper", ["reference_server", "connection_holder"])
def test_either_end_of_connections_may_crash(helpers: HelperFolder, tmp_path: Path, helper: str) -> None:
    """A server or client that dies in the middle of a ramp fails its cell in one line; nothing is left."""
    crash = '{real} "$@" & helper=$!; read line; kill -SEGV $helper; wait $helper; kill -SEGV $$'
    folder = helpers(**{helper: crash})
    arguments = ["connections", "--to", 20, "--model", "epoll", "--probe-time", "20ms", "--csv", "-"]
    finished = run(*arguments, cwd=tmp_path, changes={native.HELPERS_VARIABLE: str(folder)})
    assert finished.code == 1, finished.stderr
    assert "Traceback" not in finished.stderr
    (row,) = rows_of(finished.stdout)
    assert (row["status"], row["open_count"]) == ("failed", "")
    assert helper in row["reason"]


@pytest.mark.parametrize("program", ["reference_server", "connection_holder"])
def test_an_end_that_dies_in_mid_ramp_is_named(tmp_path: Path, program: str) -> None:
    """Rows before it are kept; the last says who ended and how, not only what the other end saw of it."""
    arguments = ["connections", "--to", 6000, "--steps", 12, "--model", "epoll", "--probe-time", "20ms", "--csv", "-"]
    with started(*arguments, cwd=tmp_path) as command:
        command.until(lambda: command.stdout.count("\n") > 2, "two rows")
        pid = command.until(lambda: kernel.leader_running(program, command.living()), program)
        os.kill(pid, signal.SIGKILL)
        finished = command.finish()
        assert command.living() == []
    assert finished.code == 3, finished.stderr
    assert "Traceback" not in finished.stderr
    *before, last = rows_of(finished.stdout)
    assert {row["status"] for row in before} == {"ok"}
    assert last["status"] == "failed"
    assert f"{program} was killed by SIGKILL" in last["reason"]


def test_doctor_tells_of_a_missing_helper(tmp_path: Path) -> None:
    """The doctor examines what is there and says what is not."""
    finished = run("doctor", cwd=tmp_path, changes={native.HELPERS_VARIABLE: str(tmp_path)})
    assert finished.code == 0, finished.stderr
    assert "is missing" in " ".join(finished.stdout.split())


def test_an_unknown_variable_folder_does_not_stop_help(tmp_path: Path) -> None:
    """Help and list need no helper."""
    changes = {native.HELPERS_VARIABLE: str(tmp_path / "nowhere")}
    assert run_inside("--help", cwd=tmp_path, changes=changes).code == 0
    assert run_inside("list", cwd=tmp_path, changes=changes).code == 0
    refused = run_inside("fork-latency", "--n", 0, cwd=tmp_path, changes=changes)
    assert (refused.code, "--n" in complaint_of(refused)) == (2, True)
