"""Which cells servers has for what is asked, and with which settings its servers are started."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from c10k_probe.experiments import _servers_design as design

from c10k_probe.experiment import Experiment
from c10k_probe.parameters import build_parameters
from c10k_probe.registry import find_experiments

SERVERS: Experiment[Any] = find_experiments()["servers"]
ARTICLE = {"apache-prefork-php", "node", "tornado"}
NULL = "epoll"


def cells(**given: str | None) -> dict[tuple[Any, ...], Any]:
    parameters = build_parameters(SERVERS.parameters_type, given, quick=False)
    SERVERS.check(parameters)
    names = ("arm", "load", "keep_alive", "server")
    found = SERVERS.cells(parameters)
    assert len({cell.name for cell in found}) == len(found)
    return {tuple(cell.key[name] for name in names): cell for cell in found}


def servers_of(found: dict[tuple[Any, ...], Any], *way: str) -> set[str]:
    return {key[-1] for key in found if key[: len(way)] == way}


def test_as_article_is_ab_on_the_three_and_the_null_server() -> None:
    found = cells(as_article="true")
    assert {key[:3] for key in found} == {("article", "ab", "off")}
    assert servers_of(found, "article") == {*ARTICLE, NULL}
    assert {cell.launches for cell in found.values()} == {1}


def test_fair_is_wrk_for_all_kept_for_some_and_an_open_loop() -> None:
    found = cells(fair="true")
    kept, off = servers_of(found, "fair", "wrk", "on"), servers_of(found, "fair", "wrk", "off")
    assert kept == {*ARTICLE, "nginx", NULL}
    assert kept < off
    assert {"apache-event", "node-jitless", "python-http-server", "asyncio", "python-threading"} < off
    assert servers_of(found, "fair", "open loop", "on") == {*ARTICLE, "nginx", "apache-event", NULL}
    assert servers_of(found, "fair", "open loop", "off") == set(design.PLACES)
    observed = {key[1]: cell.key["observed"] for key, cell in found.items()}
    assert observed == {"wrk": "on", "open loop": "off"}


def test_all_three_arms_unless_one_is_asked_for() -> None:
    assert Counter(key[0] for key in cells()).keys() == {"article", "fair", "inside"}
    loads = {(key[1], key[3]) for key in cells(inside="true")}
    assert loads == {
        ("held connections", "apache-prefork-php"),
        ("worker threads", "node"),
        ("files", "node"),
        ("wrk", "node"),
    }
    assert {key[0] for key in cells(inside="true", as_article="true")} == {"article", "inside"}


def test_whoever_names_a_server_sees_all_of_it() -> None:
    found = cells(fair="true", server="fork,node")
    assert servers_of(found, "fair", "wrk", "on") == servers_of(found, "fair", "wrk", "off") == {"fork", "node", NULL}
    assert servers_of(found, "fair", "open loop", "on") == {"node", NULL}  # what auto means there
    assert servers_of(found, "fair", "open loop", "off") == {"fork"}
    asked = cells(fair="true", server="fork,node", open_server="fork", keep_alive="off")
    assert servers_of(asked, "fair", "open loop", "on") == {"fork", NULL}
    assert servers_of(asked, "fair", "wrk", "on") == set()
    without = cells(fair="true", open_server="none")
    assert {key[1] for key in without} == {"wrk"}


def test_rates_are_those_asked_for_and_the_tables_own() -> None:
    parameters = build_parameters(SERVERS.parameters_type, {"open_rate": "30,90"}, quick=False)
    assert design.open_rates_pct(parameters, "on") == [30, 90]
    assert design.open_rates_pct(parameters, "off") == [design.TABLE_RATE_PCT]


@pytest.mark.parametrize("name", ["apache-prefork-php", "apache-event", "nginx-php-fpm"])
def test_a_fair_pool_has_a_worker_for_each_connection_as_far_as_memory_allows(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And two for our own questions, which else waited behind the connections; as installed, the program's choice."""
    monkeypatch.setattr(design, "read_meminfo", lambda: {"MemAvailable": 64 << 30})
    options, needs = design.options_of(name, "fair", 1000)
    assert (options.workers_count, options.backlog_count, options.is_as_installed) == (1002, 4096, False)
    assert needs.tasks_count >= (0 if name == "apache-prefork-php" else 1002)
    monkeypatch.setattr(design, "read_meminfo", lambda: {"MemAvailable": 100 << 20})
    limited, _ = design.options_of(name, "fair", 1000)
    assert limited.workers_count is not None
    assert 1 <= limited.workers_count < 100
    installed, _ = design.options_of(name, "article", 1000)
    assert (installed.workers_count, installed.is_as_installed) == (None, True)


def test_a_server_without_a_pool_has_none() -> None:
    assert design.options_of("nginx", "fair", 1000)[0].workers_count is None
    assert design.options_of("node", "fair", 1000)[0].workers_count is None
    assert design.options_of("thread-pool", "fair", 1000)[0].workers_count == 1000
