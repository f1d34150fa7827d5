"""Helpers that do right and every kind of wrong: small scripts that stand in for the C programs."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from c10k_probe import native
from c10k_probe.native import Helper, HelperCallFailed, HelperError, HelperMissing, HelperUnsupported

HELLO = '{"type":"hello","protocol":1,"helper":"fake","linking":"dynamic"}'
END = '{"type":"end","samples_count":2,"dropped_count":0}'
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Writes a helper named ``fake``: shell lines, or Python with ``python=True``."""
    monkeypatch.setenv(native.HELPERS_VARIABLE, str(tmp_path))

    def write(*lines: str, name: str = "fake", python: bool = False, mode: int = 0o755) -> Path:
        path = tmp_path / name
        first = f"#!{sys.executable} -IS" if python else "#!/bin/sh"
        path.write_text("\n".join((first, *lines)) + "\n")
        path.chmod(mode)
        return path

    return write


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is noticed soon."""
    for method in (Helper.expect, Helper.receive, Helper.finish):
        monkeypatch.setattr(method, "__defaults__", (0.2,))
    monkeypatch.setattr(Helper.ask, "__defaults__", (0.2,))
    monkeypatch.setattr(Helper.__init__, "__defaults__", (*(Helper.__init__.__defaults__ or ())[:-1], 0.2))
    monkeypatch.setattr(native, "_FAREWELL_S", 0.2)


def say(*messages: str) -> list[str]:
    """Shell lines that print these."""
    return [f"echo '{message}'" for message in messages]


def living(session: int) -> list[int]:
    """Processes of a session that are still there after a moment for those that are about to die."""
    for pid in members(session):
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            select.select([descriptor], [], [], 1.0)
            os.close(descriptor)
    return members(session)


def members(session: int) -> list[int]:
    """Processes of a session (zombies are none)."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] not in "ZX":
                    found.append(int(folder.name))
    return found


@pytest.fixture(autouse=True, scope="module")
def little_to_collect() -> Iterator[None]:
    """What the session's other tests have left is not looked at, at each collection anew."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """Whatever a test did: no helper is known as running, no descriptor is left open."""
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert not native._running
    gc.collect()  # what an exception still refers to
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


# --- all is well ----------------------------------------------------------------------------------------------------


def test_messages_arrive_exactly(make: Make) -> None:
    make(*say(HELLO, '{"type":"samples","return_ns":[1,22,333],"text":"µ"}', END))
    with Helper("fake") as helper:
        assert helper.hello["linking"] == "dynamic"
        assert helper.expect("samples") == {"type": "samples", "return_ns": [1, 22, 333], "text": "µ"}
        assert helper.finish() == {"type": "end", "samples_count": 2, "dropped_count": 0}
        pid = helper.pid
    assert living(pid) == []


def test_a_message_may_come_in_pieces_and_be_long(make: Make) -> None:
    make(
        "import os, json",
        f"text = '{HELLO}\\n' + json.dumps(dict(type='samples', return_ns=list(range(60000)))) + '\\n{END}\\n'",
        "for start in range(0, len(text), 4999):",
        "    os.write(1, text[start : start + 4999].encode())",
        python=True,
    )
    with Helper("fake") as helper:
        assert helper.expect("samples")["return_ns"] == list(range(60000))
        helper.finish()


def test_arguments_and_linking_reach_the_program(make: Make) -> None:
    make(*say(HELLO), """echo "{\\"type\\":\\"args\\",\\"text\\":\\"$0 $*\\"}" """, *say(END), name="fake-static")
    with Helper("fake", ["--n", 5], linking="static") as helper:
        assert helper.name == "fake-static"
        assert helper.expect("args")["text"].endswith("/fake-static --n 5")
        helper.finish()


def test_questions_and_answers(make: Make) -> None:
    """Commands are lines on stdin; their end is the order to leave."""
    make(
        *say(HELLO),
        """while read -r line; do echo "{\\"type\\":\\"answer\\",\\"to\\":\\"$line\\"}"; done""",
        *say(END),
    )
    with Helper("fake") as helper:
        assert [helper.ask(text, "answer")["to"] for text in ("ramp 5", "status")] == ["ramp 5", "status"]
        assert helper.finish()["type"] == "end"


def test_walls_are_kept_and_do_not_disturb(make: Make) -> None:
    walls = [f'{{"type":"wall","call":"accept4","errno":24,"name":"EMFILE","open_count":{count}}}' for count in (1, 2)]
    make(*say(HELLO, walls[0], '{"type":"samples"}', walls[1], '{"type":"ready"}'), "read -r line", *say(END))
    with Helper("fake") as helper:
        helper.expect("samples")
        helper.expect("ready")
        assert [wall["open_count"] for wall in helper.walls()] == [1, 2]
        assert [wall["open_count"] for wall in helper.walls()] == [1, 2]
        helper.finish()


def test_walls_waiting_in_the_pipe_are_read(make: Make) -> None:
    walls = [f'{{"type":"wall","open_count":{count}}}' for count in (3, 4)]
    make(*say(HELLO, '{"type":"ready"}', *walls), "read -r x")
    with Helper("fake") as helper:
        helper.expect("ready")
        while len(helper.walls()) < 2:
            helper._selector.select(0.1)
        assert [wall["open_count"] for wall in helper.walls()] == [3, 4]


def test_asking_for_walls_loses_no_other_message(make: Make) -> None:
    """What failed, and why, must still be told to whoever waits for an answer."""
    make(*say(HELLO, '{"type":"ready"} ', '{"type":"wall","open_count":3}', '{"type":"error","call":"fork"}'), "exit 1")
    with Helper("fake") as helper:
        os.waitid(os.P_PID, helper.pid, os.WEXITED | os.WNOWAIT)  # all of it is in the pipe
        helper.expect("ready")
        assert [wall["open_count"] for wall in helper.walls()] == [3]
        with pytest.raises(HelperCallFailed):
            helper.expect("samples")


def test_it_leads_a_session_of_its_own(make: Make) -> None:
    make(*say(HELLO), "read -r x")
    with Helper("fake") as helper:
        assert os.getsid(helper.pid) == helper.pid != os.getsid(0)


def test_it_runs_on_the_cpus_it_is_given(make: Make) -> None:
    cpu = min(os.sched_getaffinity(0))
    make(*say(HELLO), "read -r x")
    with Helper("fake", cpus={cpu}) as helper:
        assert os.sched_getaffinity(helper.pid) == {cpu}


# --- it cannot be started -------------------------------------------------------------------------------------------


def test_missing(make: Make, tmp_path: Path) -> None:
    with pytest.raises(HelperMissing, match=r"fake is missing in .*pip install") as caught:
        Helper("fake")
    assert str(tmp_path) in str(caught.value)


def test_not_executable(make: Make) -> None:
    make(*say(HELLO), mode=0o644)
    with pytest.raises(HelperMissing, match="fake is missing"):
        Helper("fake")


@pytest.mark.parametrize("how", ["folder", "format"])
def test_cannot_be_started(make: Make, tmp_path: Path, how: str) -> None:
    if how == "folder":
        (tmp_path / "fake").mkdir()
    else:
        (tmp_path / "fake").write_bytes(b"\x7fELF rubbish")
        (tmp_path / "fake").chmod(0o755)
    with pytest.raises(HelperMissing, match=r"helper fake cannot be started: (Permission denied|Exec format error)"):
        Helper("fake")


def test_the_folder_of_the_package_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(native.HELPERS_VARIABLE, raising=False)
    assert native.folder().name == "_bin"


# --- it talks rubbish -----------------------------------------------------------------------------------------------


def test_another_protocol(make: Make) -> None:
    make(*say(HELLO.replace('"protocol":1', '"protocol":2'), END))
    with pytest.raises(HelperError, match=r"fake speaks protocol 2, this is 1; .*pip install"):
        Helper("fake")


@pytest.mark.parametrize(
    "line", ["Segmentation fault", "[1,2]", "5", '{"no":"type"}', '{"type":5}', '{"type":"sam', "", '{"type":"x"} {}']
)
def test_a_line_that_is_not_its_protocol(make: Make, line: str) -> None:
    make(*say(HELLO), f"echo '{line}'", *say(END))
    with Helper("fake") as helper, pytest.raises(HelperError, match="fake printed what is not its protocol") as caught:
        helper.receive()
    assert line[:10] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text(make: Make) -> None:
    make(*say(HELLO), r"printf '\377\376\001\n'")
    with Helper("fake") as helper, pytest.raises(HelperError, match=r"not its protocol: '\\+xff"):
        helper.receive()


def test_rubbish_instead_of_hello(make: Make) -> None:
    make("echo Usage: fake")
    with pytest.raises(HelperError, match="not its protocol: 'Usage: fake'"):
        Helper("fake")


def test_a_long_rubbish_line_is_shortened(make: Make) -> None:
    make(*say(HELLO, "x" * 5000))
    with Helper("fake") as helper, pytest.raises(HelperError) as caught:
        helper.receive()
    assert len(str(caught.value)) < 250


def test_a_line_without_an_end(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_LONGEST_LINE_BYTES", 1 << 17)
    make(f"echo '{HELLO}'; exec cat /dev/zero")
    with Helper("fake") as helper, pytest.raises(HelperError, match="a line without an end"):
        helper.receive()
    assert living(helper.pid) == []


def test_a_message_out_of_turn(make: Make) -> None:
    make(*say(HELLO, '{"type":"facts"}'))
    with Helper("fake") as helper, pytest.raises(HelperError, match="fake sent 'facts' where 'samples' was due"):
        helper.expect("samples")


# --- it says nothing, or dies ---------------------------------------------------------------------------------------


def test_silence_instead_of_hello(make: Make, impatient: None) -> None:
    make("exec sleep 300")
    with pytest.raises(HelperError, match=r"fake said nothing for [\d.]+ s and was killed"):
        Helper("fake")


def test_silence_later_and_nothing_is_left(make: Make, impatient: None) -> None:
    make(*say(HELLO), "sleep 300 & sleep 300")
    with Helper("fake") as helper, pytest.raises(HelperError, match="fake said nothing for"):
        helper.expect("samples")
    assert living(helper.pid) == []


@pytest.mark.parametrize("number", ["SEGV", "KILL", "ABRT"])
def test_killed_by_a_signal(make: Make, number: str) -> None:
    make(*say(HELLO), "ulimit -c 0", f"kill -{number} $$")
    with Helper("fake") as helper, pytest.raises(HelperError, match=f"fake was killed by SIG{number}"):
        helper.expect("samples")


@pytest.mark.parametrize("code", [0, 1, 2])
def test_exit_without_an_end_message(make: Make, code: int) -> None:
    make(*say(HELLO), f"exit {code}")
    with Helper("fake") as helper, pytest.raises(HelperError, match=rf"without its end message, exit code {code}$"):
        helper.finish()


def test_the_last_line_of_stderr_is_told(make: Make) -> None:
    make(*say(HELLO), "echo first >&2; echo 'fake: --n: bad value' >&2; echo >&2; exit 2")
    with Helper("fake") as helper, pytest.raises(HelperError, match=r"exit code 2: fake: --n: bad value$"):
        helper.expect("samples")


def test_nothing_at_all(make: Make) -> None:
    make("echo no such option >&2; exit 2")
    with pytest.raises(HelperError, match="fake ended without its end message, exit code 2: no such option"):
        Helper("fake")


def test_unsupported_with_its_reason(make: Make) -> None:
    make(*say(HELLO, '{"type":"unsupported","reason":"clone3 is not in this kernel"}'), "exit 77")
    with Helper("fake") as helper, pytest.raises(HelperUnsupported, match=r"^fake: clone3 is not in this kernel$"):
        helper.expect("samples")


def test_exit_77_without_a_message(make: Make) -> None:
    make(*say(HELLO), "echo seccomp says no >&2; exit 77")
    with Helper("fake") as helper, pytest.raises(HelperUnsupported, match="exit code 77: seccomp says no"):
        helper.expect("samples")


def test_a_call_that_failed(make: Make) -> None:
    message = (
        '{"type":"error","helper":"fake","call":"fork","arguments":"","errno":11,"name":"EAGAIN",'
        '"message":"Resource temporarily unavailable"}'
    )
    make(*say(HELLO, message), "exit 1")
    with Helper("fake") as helper, pytest.raises(HelperCallFailed) as caught:
        helper.expect("samples")
    error = caught.value
    assert str(error) == "fake: fork() failed: Resource temporarily unavailable"
    assert (error.call, error.errno_name, error.message["errno"]) == ("fork", "EAGAIN", 11)


def test_an_exit_code_after_the_end_message(make: Make) -> None:
    make(*say(HELLO, END), "exit 3")
    with Helper("fake") as helper, pytest.raises(HelperError, match="fake exited with 3 after its end message"):
        helper.finish()


def test_it_stays_after_the_end_message(make: Make, impatient: None) -> None:
    make(*say(HELLO, END), "exec sleep 300")
    with Helper("fake") as helper, pytest.raises(HelperError, match="did not exit"):
        helper.finish()
    assert living(helper.pid) == []


def test_it_closes_its_output_and_goes_on(make: Make, impatient: None) -> None:
    make(*say(HELLO), "exec sleep 300 >/dev/null")
    with Helper("fake") as helper, pytest.raises(HelperError, match="closed its output and went on running"):
        helper.expect("samples")
    assert living(helper.pid) == []


def test_a_command_to_one_that_is_gone(make: Make) -> None:
    make(*say(HELLO), "echo out of memory >&2; exit 4")
    with Helper("fake") as helper:
        os.waitid(os.P_PID, helper.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(HelperError, match="exit code 4: out of memory"):
            helper.send("ramp 5")


# --- nothing is left ------------------------------------------------------------------------------------------------

CHILD = "sleep 300 >/dev/null 2>&1 </dev/null &"  # keeps none of the pipes open


@pytest.mark.parametrize("last", ["kill -SEGV $$", "exit 1", "exit 0", "exec sleep 300"])
def test_children_of_a_helper_go_with_it(make: Make, impatient: None, last: str) -> None:
    make(*say(HELLO), CHILD, *say('{"type":"ready"}'), "ulimit -c 0", last)
    try:
        with Helper("fake") as helper:
            helper.expect("ready", 10.0)
            with contextlib.suppress(HelperError):
                helper.finish()
        assert living(helper.pid) == []
    finally:
        for pid in members(helper.pid):
            os.kill(pid, signal.SIGKILL)


def test_an_exception_of_ours_ends_it(make: Make) -> None:
    make(*say(HELLO), CHILD, "exec sleep 300")
    with pytest.raises(ZeroDivisionError), Helper("fake") as helper:
        raise ZeroDivisionError
    assert living(helper.pid) == []


def test_kill_may_be_called_twice(make: Make) -> None:
    make(*say(HELLO), "exec sleep 300")
    helper = Helper("fake")
    helper.kill()
    helper.kill()
    assert living(helper.pid) == []


def test_one_that_was_killed_can_be_asked_to_leave_and_says_no_more(make: Make) -> None:
    make(*say(HELLO), "read line", *say(END))

    class One(native.Helpers):
        def __init__(self) -> None:
            super().__init__()
            self._start("fake", (), None)
            self.helper = self._helpers[0]

    with One() as made:
        made.kill()
        for ask in (lambda: made.helper.send("more"), made.helper.receive, made.helper.finish):
            with pytest.raises(HelperError, match="fake was killed"):
                ask()
        assert made.helper.walls() == []


def test_kill_all(make: Make) -> None:
    make(*say(HELLO), CHILD, "exec sleep 300")
    helpers = [Helper("fake") for _ in range(3)]
    native.kill_all()
    for helper in helpers:
        os.waitid(os.P_PID, helper.pid, os.WEXITED | os.WNOWAIT)
        helper.kill()
        assert living(helper.pid) == []


def test_facts_of_builds_say_what_is_missing(make: Make) -> None:
    for name in native.HELPERS[:-1]:
        make(*say(HELLO, END), name=name)
    found = native.build_facts(["dynamic"])
    assert list(found) == list(native.HELPERS)
    assert found[native.HELPERS[0]]["protocol"] == 1
    assert "missing" in found[native.HELPERS[-1]]["error"]
