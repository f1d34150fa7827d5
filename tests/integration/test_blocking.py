"""``blocking`` as a user meets it: counts that agree, times that add up, backends that break, input that is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import complaint_of, rows_of, run

SMALL = ("blocking", "--part", "plateau", "--repeats", 1, "--delay", "50ms", "--workers", 4, "--csv", "-")
DELAY_NS = 50e6


@pytest.mark.alone
def test_where_a_request_spends_its_time(tmp_path: Path) -> None:
    """Counts of both sides agree; a worker waits for the backend, what is beyond the places waits in the queue."""
    models = "epoll,epoll-await,prefork,thread,fork,asyncio-blocking,asyncio-pool"
    finished = run(*SMALL, "--model", models, "--concurrency", "2,16", cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    rows = {(row["model"], int(row["concurrency_count"])): row for row in rows_of(finished.stdout)}
    assert len(rows) == 7 * 2
    for (model, count), row in rows.items():
        places = int(row["places_count"])
        assert (row["status"], row["failed_count"], row["backend_failed_count"]) == ("ok", "0", "0")
        assert row["backend_asked_count"] == row["server_asked_count"] != "0"
        assert float(row["line_per_s"]) == pytest.approx(min(count, places) * 20)
        # where the window begins a wait may have been counted and its request not yet: of one place's six, one
        assert DELAY_NS * 0.8 <= float(row["backend_wait_ns"]) <= float(row["in_worker_ns"]) * 1.2
        assert float(row["in_worker_ns"]) >= DELAY_NS
        if model != "fork" or row["memory_bytes"]:  # a reading in which a process ended is none
            assert int(row["memory_bytes"]) > 0
        if count > 2 * places:
            assert float(row["queue_ns"]) > DELAY_NS, model  # at least one that came before it
        assert [row[name] for name in ("added_ns", "blocked_ns", "in_worker_over_full_ratio")] == ["", "", ""]


def test_a_backend_that_breaks_shows(tmp_path: Path) -> None:
    given = (*SMALL, "--model", "thread-pool,epoll-await", "--concurrency", 8)
    for row in rows_of(run(*given, "--fault", "reset", "--fault-after", 20, cwd=tmp_path).stdout):
        assert int(row["backend_failed_count"]) > 0
        assert "the backend failed" in row["grade_reason"]
        assert row["backend_asked_count"] == row["server_asked_count"]
    died = run(*given, "--fault", "die", "--fault-after", 20, cwd=tmp_path)
    assert died.code == 1
    assert {(row["status"], row["reason"]) for row in rows_of(died.stdout)} == {
        ("failed", "backend was killed by SIGKILL")
    }


@pytest.mark.alone
def test_a_backend_that_never_answers(tmp_path: Path) -> None:
    """No line to compare with, no answer, and every request given up by the server."""
    given = ("--part", "plateau", "--delay", "never", "--model", "thread-pool", "--workers", 4)
    finished = run("blocking", *given, "--concurrency", 4, "--repeats", 1, "--csv", "-", cwd=tmp_path)
    assert finished.code == 0, finished.stderr
    for row in rows_of(finished.stdout):
        assert (row["delay_ns"], row["line_per_s"], row["of_line_ratio"]) == ("never", "", "")
        assert int(row["failed_count"]) > 0
        assert float(row["requests_per_s"]) == float(row["requests_per_cpu_s"]) == 0  # an excuse is no answer
        assert row["backend_failed_count"] == row["backend_asked_count"] == row["server_asked_count"]


def test_bad_input_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    """The rest of it by ``tests/unit``."""
    finished = run("blocking", "--fault-after", 5, cwd=tmp_path)
    assert finished.code == 2
    assert "--fault-after says when --fault begins" in complaint_of(finished)
    assert not (tmp_path / "results").exists()
