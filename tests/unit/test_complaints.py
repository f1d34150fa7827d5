"""What servers say when a limit stops them: lines as nginx, httpd, Python and Node.js write them."""

from __future__ import annotations

import pytest

from c10k_probe.servers.complaints import hits, setting_wall

NGINX = "2026/11/25 13:12:33 [warn] 24641#24641: 4388 worker_connections are not enough, reusing connections"
APACHE = "[Wed Nov 25 13:00:00.1 2026] [mpm_prefork:error] [pid 9] AH00161: server reached MaxRequestWorkers setting"


@pytest.mark.parametrize(
    ("line", "call", "name"),
    [
        ("2026/11/25 13:12:57 [crit] 2#2: accept4() failed (24: Too many open files)", "accept", "EMFILE"),
        ("(24)Too many open files: AH00049: accept", "accept", "EMFILE"),
        ("OSError: [Errno 24] Too many open files", "accept", "EMFILE"),
        ("Error: listen EMFILE: too many open files", "accept", "EMFILE"),
        ("2026/11/25 13:12:57 [crit] 2#2: accept4() failed (23: Too many open files in system)", "accept", "ENFILE"),
        ("(11)Resource temporarily unavailable: AH00159: fork: Unable to fork new process", "fork", "EAGAIN"),
        ("RuntimeError: can't start new thread", "fork", "EAGAIN"),
        ("FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory", "mmap", "ENOMEM"),
    ],
)
def test_a_call_that_failed(line: str, call: str, name: str) -> None:
    [hit] = hits(f"something else\n{line}\n{line}\n")
    assert (hit["call"], hit["name"]) == (call, name)
    assert "setting" not in hit


def test_a_setting_of_its_own_with_its_number() -> None:
    first, second = hits(f"{NGINX}\n{APACHE}\n{NGINX}\n")
    assert (first["setting"], first["limit"]) == ("worker_connections", 4388)
    assert first["message"] == "4388 worker_connections are not enough, reusing connections"  # not when, nor who
    assert (second["setting"], second["limit"]) == ("MaxRequestWorkers", None)
    assert second["message"].startswith("AH00161: ")
    wall = setting_wall("worker_connections", 4388, "--workers N")
    assert (wall.kind, wall.limit_count, wall.lift) == ("administrative", 4388, "--workers N")


@pytest.mark.parametrize(
    "text", ["", "2026/11/25 13:12:57 [notice] 2#2: start worker process 7", "24 connections, 23 files", "\n\n"]
)
def test_what_is_no_complaint(text: str) -> None:
    assert list(hits(text)) == []
