"""slow_clients as tcpdump sees them: the bytes on the wire are those that were asked, told, and recorded by the server.

One capture for all kinds. What is sent again counts once, by its place in the stream.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import socket
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from conftest import cannot_run

from c10k_probe import native
from native.kernel_view import wait_until
from native.test_slow_clients import REQUEST_BYTES, Recorder, ask, playing

SOURCE = "127.15.0.1"  # no other client of the project's has it
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n" + bytes(4000)
ONE = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"  # of the requests whose answers are read slowly
READ_COUNT = 10
SEGMENT = re.compile(r"IP (\S+)\.(\d+) > (\S+)\.(\d+): Flags .*? seq (\d+):(\d+),.* length (\d+)")


@dataclass
class Wire:
    """Payload by (port of the server, whether it is to the server): the bytes' numbers, and each segment's length."""

    bytes_seen: dict[tuple[int, bool], set[int]] = field(default_factory=lambda: defaultdict(set))
    lengths: dict[tuple[int, bool], list[int]] = field(default_factory=lambda: defaultdict(list))

    def count(self, port: int, *, to_server: bool) -> int:
        """Bytes of payload."""
        return len(self.bytes_seen[port, to_server])

    def take(self, line: str) -> None:
        """One line of tcpdump's; those without payload have one sequence number only."""
        if found := SEGMENT.search(line):
            source, source_port, _, port, first, last, length = found.groups()
            to_server = source == SOURCE
            key = int(port if to_server else source_port), to_server
            self.bytes_seen[key].update(range(int(first), int(last)))
            self.lengths[key].append(int(length))


@contextmanager
def capture(path: Path, ports: Iterable[int]) -> Iterator[None]:
    """tcpdump of these ports on loopback; it listens when this is entered, and the file is whole when it is left."""
    if shutil.which("tcpdump") is None:
        cannot_run("tcpdump is not installed; apt-get install tcpdump")
    wanted = " or ".join(f"port {port}" for port in ports)
    room = ["-s", "128", "-B", "8192"]  # headers are enough: a frame takes as much of the 8 MiB as it may be long
    command = [
        "tcpdump",
        "-i",
        "lo",
        "-n",
        "-S",
        "-l",
        "--immediate-mode",
        *room,
        f"tcp and host {SOURCE} and ({wanted})",
    ]
    environment = {**os.environ, "LC_ALL": "C"}
    with (
        path.open("w") as out,  # no pipe: a full one would have it miss packets
        subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True, env=environment) as tcpdump,
    ):
        try:
            assert tcpdump.stderr is not None
            lines = []
            for line in iter(tcpdump.stderr.readline, ""):
                lines.append(line.strip())
                if line.startswith("listening on "):
                    break
            else:
                cannot_run(f"tcpdump cannot capture on lo: {' '.join(lines)}")
            yield
            tcpdump.send_signal(signal.SIGINT)  # it writes what it has, and ends
            _, said_last = tcpdump.communicate(timeout=30)
            assert re.search(r"^0 packets dropped by kernel", said_last, re.MULTILINE), said_last
        finally:
            tcpdump.kill()


def test_the_bytes_on_the_wire_are_what_was_asked(tmp_path: Path) -> None:
    """All kinds at the same time, one client of each."""
    expected = {"head": REQUEST_BYTES, "body": REQUEST_BYTES, "read": REQUEST_BYTES // len(ONE) * len(ONE), "idle": 0}
    told: dict[str, dict[str, object]] = {}
    recorded: dict[str, int] = {}
    seen = tmp_path / "seen"
    with ExitStack() as recorders:
        servers = {kind: recorders.enter_context(Recorder()) for kind in expected}
        ports = {kind: recorder.port for kind, recorder in servers.items()}
        recorders.enter_context(capture(seen, ports.values()))
        with ExitStack() as stack:
            players: dict[str, tuple[Recorder, native.Helper, socket.socket]] = {}
            for kind, recorder in servers.items():
                slow = stack.enter_context(playing(recorder.port, kind))
                ask(slow, "clients 1")
                (connection,) = recorder.accept(1)
                players[kind] = recorder, slow, connection
            _, reader, connection = players["read"]
            connection.sendall(ANSWER)
            wait_until(lambda: int(str(ask(reader, "status")["received_bytes"])) >= READ_COUNT, "it reads")
            for kind, (recorder, slow, connection) in players.items():
                recorded[kind] = len(recorder.record(connection, expected[kind]))
                told[kind] = ask(slow, "clients 0")
        for kind in expected:
            left = rf"{SOURCE}\.\d+ > 127\.0\.0\.1\.{ports[kind]}: Flags \[R"
            wait_until(functools.partial(lambda left: re.search(left, seen.read_text()), left), f"{kind} has left")
    wire = Wire()
    for line in seen.read_text().splitlines():
        wire.take(line)
    for kind, expected_count in expected.items():
        sent_count = wire.count(ports[kind], to_server=True)
        assert sent_count == told[kind]["sent_bytes"] == recorded[kind] == expected_count, kind
        if kind != "read":
            assert wire.count(ports[kind], to_server=False) == told[kind]["received_bytes"] == 0, kind
    heads, bodies = wire.lengths[ports["head"], True], wire.lengths[ports["body"], True]
    assert heads.count(1) > 10, "a byte at a time"
    assert bodies[0] == REQUEST_BYTES - int(str(told["body"]["slow_bytes"])), "all of the header at once"
    assert bodies.count(1) > 10
    assert READ_COUNT <= int(str(told["read"]["received_bytes"])) <= wire.count(ports["read"], to_server=False)
    assert wire.count(ports["read"], to_server=False) < len(ANSWER), "the server could not get rid of its answer"
