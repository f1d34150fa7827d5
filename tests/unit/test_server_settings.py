"""What is told of a real server's settings: as they stand in the configuration that is written for it."""

from __future__ import annotations

import pytest

from c10k_probe.servers import REAL_SERVERS
from c10k_probe.servers.guarded import Recipe
from c10k_probe.servers.real import Place, settings_in

PATHS = {"nginx": "nginx", "apache2": "apache2", "mod_php": "mod_php.so", "php-fpm": "php-fpm", "node": "node"}


def place(capacity_count: int = 10_000, workers_count: int | None = None, *, takes_silent: bool = False) -> Place:
    return Place(1234, "token", 511, takes_silent, capacity_count, workers_count)


def told(name: str, where: Place) -> dict[str, str]:
    model = REAL_SERVERS[name]
    text = settings_in(model.recipe(PATHS, where), model.settings)
    return dict(part.split("=") for part in text.split())


def test_nginx_has_slots_for_all_and_the_sixteenth_that_it_keeps_free() -> None:
    slots_count = int(told("nginx", place())["worker_connections"])
    assert slots_count - slots_count // 16 > 10_000 + 2
    assert told("nginx", place(workers_count=3))["worker_processes"] == "3"


def test_time_outs_of_connections_that_were_never_used_are_raised_where_such_are_held() -> None:
    assert "client_header_timeout" not in told("nginx", place())
    assert told("nginx", place(takes_silent=True))["client_header_timeout"] == "1h"
    for name in ("apache-prefork-php", "apache-event"):
        texts = {
            silent: REAL_SERVERS[name].recipe(PATHS, place(takes_silent=silent)).files["apache.conf"]
            for silent in (False, True)
        }
        assert ["AcceptFilter http none" in texts[silent] for silent in (False, True)] == [False, True]


def test_apache_has_a_process_for_each_unless_workers_are_asked_for() -> None:
    assert told("apache-prefork-php", place())["MaxRequestWorkers"] == "10000"
    few = told("apache-prefork-php", place(workers_count=7))
    assert (few["MaxRequestWorkers"], few["ServerLimit"], few["KeepAliveTimeout"]) == ("7", "7", "3600")


def test_apaches_event_module_may_hold_all_of_them() -> None:
    known = told("apache-event", place())
    assert int(known["MaxRequestWorkers"]) * int(known["AsyncRequestWorkerFactor"]) >= 2 * 10_000


def test_what_is_not_in_the_configuration_is_left_out() -> None:
    recipe = Recipe(("x",), {"conf": "LongName 5\nName\t7;\n"})
    assert settings_in(recipe, ("Name", "Missing", "spoken=0")) == "Name=7 spoken=0"


@pytest.mark.parametrize("name", REAL_SERVERS)
def test_the_setting_that_workers_raise_is_one_that_is_told(name: str) -> None:
    model = REAL_SERVERS[name]
    assert not model.raised_by_workers or model.raised_by_workers in model.settings
    assert not model.raised_by_workers or "workers" in model.takes
