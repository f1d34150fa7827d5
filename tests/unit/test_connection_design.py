"""The design of connections: options that nothing would heed are refused, the others reach the server."""

from __future__ import annotations

from typing import Any

import pytest
from c10k_probe.experiments._connection_design import (
    STATES,
    ConnectionsParameters,
    cells,
    check,
    data_needs,
    server_options,
)

from c10k_probe.exits import UsageError
from c10k_probe.limits import Wall
from c10k_probe.servers import CLIENT_END, MODELS, ServerOptions, predict


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"stack": 65536, "model": ("epoll",)},
            "--stack is heeded by no chosen --model or --server; those that heed it: .*thread",
        ),
        ({"unread": 100}, "--unread is of backlogged connections; add --state backlogged"),
        ({"latency_bound": 10**6}, "--latency-bound belongs to the search; add --memory-budget"),
        ({"memory_budget": 1 << 30, "state": STATES}, "leave out --state"),
        ({"memory_budget": 1 << 30, "probe_rate": 0}, "needs latencies"),
        ({"memory_budget": 1 << 30, "rest": 10**9}, "leave one of them out"),
        ({"edge": True, "server": ("nginx",)}, "--edge is heeded by no chosen"),
        ({"server": ("nginx",), "protocol": "echo"}, "real servers speak http alone; leave out --protocol"),
        ({"server": ("nginx",), "state": STATES}, "over HTTP choose --state idle,used"),
        ({"protocol": "http", "state": ("backlogged",)}, "over HTTP choose --state idle,used"),
        ({"server_command": "serve"}, "has no {port}"),
        ({"server_command": "no-such-program {port}"}, "there is no program 'no-such-program'"),
    ],
)
def test_options_without_an_effect_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        check(ConnectionsParameters(**changes))


def test_options_with_an_effect_are_taken() -> None:
    for changes in (
        {},
        {"stack": 65536, "model": ("epoll", "thread")},
        {"unread": 100, "state": STATES},
        {"memory_budget": 1 << 30, "latency_bound": 10**6},
    ):
        check(ConnectionsParameters(**changes))  # type: ignore[arg-type]


def test_a_cell_for_each_model_and_state() -> None:
    asked = ConnectionsParameters(model=("epoll", "fork"), state=STATES)
    keys = [tuple(cell.key.values()) for cell in cells(asked)]
    assert sorted(keys) == sorted((model, state) for model in ("epoll", "fork") for state in STATES)


def test_real_servers_stand_beside_models_or_alone() -> None:
    """What is not named is not measured; one protocol in a run."""
    assert ConnectionsParameters().models == ("epoll", "thread", "fork")
    assert ConnectionsParameters().spoken == "echo"
    alone = ConnectionsParameters(server=("nginx", "node"))
    assert (alone.models, alone.spoken) == (("nginx", "node"), "http")
    own = ConnectionsParameters(server_command="python3 {port}", model=("epoll",))
    assert (own.models, own.spoken) == (("epoll", "command"), "http")
    assert [cell.key["model"] for cell in cells(own)] == ["epoll", "command"]
    assert ConnectionsParameters(protocol="http").spoken == "http"


def test_a_search_without_to_ends_at_its_budget() -> None:
    assert ConnectionsParameters().most == 10_000
    assert ConnectionsParameters(memory_budget=1 << 30).most == 1_000_000
    assert ConnectionsParameters(memory_budget=1 << 30, to=70).most == 70


def test_a_real_server_is_configured_for_what_it_is_to_hold() -> None:
    asked = ConnectionsParameters(server=("nginx",), memory_budget=1 << 30)
    options = server_options(asked, 300, "idle")
    assert (options.capacity_count, options.protocol, options.takes_silent) == (300, "http", True)
    assert server_options(ConnectionsParameters()).takes_silent is False


def test_what_lies_unread_counts_against_the_memory_of_tcp() -> None:
    full = Wall("tcp-memory", "administrative", 10 << 20, 0, "bytes", "machine", "", None)
    asked = ConnectionsParameters(state=STATES, unread=1 << 20)
    counts = {
        state: predict(MODELS["epoll"], [full], more=data_needs(asked, state)).count for state in ("used", "backlogged")
    }
    assert counts == {"used": None, "backlogged": 10}


def test_options_reach_the_server() -> None:
    options = server_options(ConnectionsParameters(to=70_000, stack=65536, workers=3, edge=True))
    assert (options.stack_bytes, options.workers_count, options.is_edge_triggered) == (65536, 3, True)
    assert options.capacity_count == 70_000


def test_the_prediction_is_by_what_both_ends_take() -> None:
    """Of memory both ends take their part; descriptors bind a model that cannot spread them."""
    memory = Wall("memory", "architectural", 10**9, 0, "bytes", "machine", "made up", None)
    thread = MODELS["thread"]
    each = thread.per_connection.memory_bytes + CLIENT_END.memory_bytes
    found = predict(thread, [memory])
    assert (found.count, found.wall) == (int(10**9 // each), memory)
    descriptors = Wall("descriptors", "administrative", 1_000, 0, "descriptors", "process", "made up", "lift")
    found = predict(thread, [memory, descriptors])
    assert (found.count, found.wall) == (1_000 - int(thread.fixed.descriptors_count), descriptors)


def test_a_pool_binds_where_it_is_smaller_than_the_limits() -> None:
    """Its workers, whether they were counted by the user or by the model; a spread of descriptors is no wall."""
    descriptors = Wall("descriptors", "administrative", 1_000, 0, "descriptors", "process", "made up", "lift")
    of_pool = predict(MODELS["thread-pool"], [descriptors], ServerOptions(workers_count=7))
    assert of_pool.count == 7 and of_pool.wall is not None
    assert (of_pool.wall.name, of_pool.wall.kind, of_pool.wall.lift) == ("workers", "administrative", "--workers N")
    default = predict(MODELS["thread-pool"], []).count
    assert default is not None and default > 7
    found = predict(MODELS["thread-pool"], [descriptors], ServerOptions(workers_count=5_000)).wall
    assert found is descriptors
    assert predict(MODELS["epoll"], [descriptors]).count is None
