"""Each demonstration really happens, its careful sister does not, and nothing is left of either."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

from c10k_probe.experiments.demonstrations import DEMONSTRATIONS
from conftest import cannot_run
from integration.command import run

from c10k_probe.servers.real import find_parts

MS = 1_000_000


def left_behind() -> set[Path]:
    """Folders of programs."""
    return set(Path(tempfile.gettempdir()).glob("c10k-probe-demonstration-*"))


def test_each_is_seen_and_leaves_nothing(tmp_path: Path) -> None:
    try:
        find_parts("node")()
    except Exception as error:
        cannot_run(str(error))
    before = left_behind()
    finished = run("demonstrations", "--patience", "300ms", "--json", "-", cwd=tmp_path)

    assert finished.code == 0, finished.stderr
    records = [json.loads(line) for line in finished.stdout.splitlines()]
    rows = {item["demonstration"]: item for item in records if item["type"] == "row"}
    assert rows.keys() == DEMONSTRATIONS.keys()
    unsure = {name for name, item in rows.items() if item["is_seen"] != "yes"}
    assert all("others took" in rows[name]["grade_reason"] for name in unsure), "a busy machine may hide one"
    for item in rows.values():
        if item["shows"] == "deadlock":
            assert (item["watched_ns"], item["delay_ns"], item["careful"]) == (300 * MS, None, "got through")
            assert 0 <= item["cpu_ns"] <= 3 * MS
            first, second = re.findall(r"(\w+ \d) waits for (\w+ \d), which (\w+ \d) has", item["waits"])
            assert (first[0], first[2]) == (second[2], second[0]), "each has what the other waits for"
            assert {first[1][-1], second[1][-1]} == {"1", "2"}
        elif item["shows"] == "lost-update":
            assert 0 < item["lost_count"] < item["updates_count"]
        else:
            assert item["delay_ns"] > 50 * MS
            assert item["watched_ns"] is None
    held = [item["delay_ns"] for name, item in rows.items() if name.endswith(("starved", "read", "while"))]
    assert min(held) >= 190 * MS, "held for --hold, 200 ms, at least"
    assert left_behind() == before
