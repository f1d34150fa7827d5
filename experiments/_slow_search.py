"""From how many slow clients on fewer than 90 % are served: searched between what was measured, by fresh launches.

Several counts between the most clients under which innocents were served and the fewest under which they were not are
tried at a time, those of all servers side by side, until the two are next to each other, or within 10 %. Then both are
launched again: what holds in one launch need not in the next.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from c10k_probe import limits, stats
from c10k_probe.experiment import Bench, Cell, Finding, Samples
from c10k_probe.servers import ServerOptions

from ._slow_design import (
    CPU,
    NOBODY,
    NS_PER_S,
    OFF,
    ON,
    TOGETHER_COUNT,
    Key,
    SlowParameters,
    is_pool,
    launches_count,
    needs_of,
)
from ._slow_together import measured, pack, refused

SERVED_PCT = 90.0  # below it innocents are starved
STARVING = "starving_clients_count"
FINEST_STEP = 1.1  # the search ends where the two counts differ by no more than this factor, or by one
CONFIRMING_COUNT = 3  # launches of each of the two in the end, unless rows of that kind have fewer
_PROBES_COUNT = 4  # counts of one sweep that are tried at a time
_LINEAR_STEP = 4  # counts are spread evenly below this ratio of the ends, and in equal ratios above it
_ROUNDS_MAX = 12
_FULL_QUEUE = 1.05  # in the midst of the step in which it gets full
Sweep = tuple[str, str, str]  # server, kind, defence
Shares = Mapping[int, Sequence[float]]  # slow clients -> share of innocents that was served, in percent, per launch


@dataclass(frozen=True)
class SearchCell(Cell):
    """The sweeps of one kind that are to be searched, and what is known of them."""

    sweeps: Mapping[Sweep, Shares] = field(default_factory=dict)


# --- pure -------------------------------------------------------------------------------------------------------------


def share_pct(item: Samples) -> float | None:
    """Of the innocents of one launch; None where none was due, or where it is this side that failed."""
    count, served = item.facts.get("innocents_count"), item.facts.get("served_count")
    if item.facts.get("slow_failure") or item.facts.get("sender_failure"):
        return None
    return 100 * served / count if isinstance(count, int) and isinstance(served, int) and count else None


def sweeps_of(samples: Sequence[Samples]) -> dict[Sweep, dict[int, list[float]]]:
    """The shares of all launches with slow clients; what is served without any is the same for every kind."""
    found: dict[Sweep, dict[int, list[float]]] = {}
    alone: dict[tuple[str, str], list[float]] = {}
    for item in samples:
        share, (server, kind, defence) = share_pct(item), _sweep_of(item.key)
        if kind == NOBODY and share is not None:
            alone.setdefault((server, defence), []).append(share)
        elif kind != CPU and share is not None:
            found.setdefault((server, kind, defence), {}).setdefault(int(item.key["clients_count"]), []).append(share)
    for (server, _, defence), shares in found.items():
        if (server, defence) in alone:
            shares[0] = alone[server, defence]
    return found


def ends_of(shares: Shares) -> tuple[int, int] | None:
    """The fewest clients under which fewer than 90 % were served, by the median of launches, and the most below it.

    None where there are no such, or where nobody need come for it.
    """
    starved = [count for count in sorted(shares) if _middle(shares[count]) < SERVED_PCT]
    if not starved or starved[0] == 0:
        return None
    return max((count for count in shares if count < starved[0]), default=0), starved[0]


def next_counts(
    shares: Shares,
    guess_count: int | None,
    most_count: int = TOGETHER_COUNT,
    confirming_count: int = CONFIRMING_COUNT,
) -> list[int]:
    """The counts to be launched next, one as often as it is named; empty when the search is over.

    ``guess_count``: where it may be, which decides where is looked first and nothing else. ``most_count``: that they
    may be together.
    """
    ends = ends_of(shares)
    if ends is None:
        return []
    low, high = ends
    if high - low > 1 and (low == 0 or high > FINEST_STEP * low):
        return _between(low, high, guess_count, most_count)
    missing = {count: confirming_count - len(shares.get(count, ())) for count in ends if count}
    return [count for count, times in missing.items() for _ in range(times)]


def _between(low: int, high: int, guess_count: int | None, most_count: int) -> list[int]:
    probes_count = max(1, min(_PROBES_COUNT, most_count // high))
    shares = [place / (probes_count + 1) for place in range(1, probes_count + 1)]
    if low and high > _LINEAR_STEP * low:
        counts = [round(low * (high / low) ** share) for share in shares]
    else:
        counts = [round(low + (high - low) * share) for share in shares]
    if guess_count is not None and low < guess_count < high:
        below = min(guess_count - 1, int(guess_count / FINEST_STEP) + 1)  # where it is right, these two are the ends
        counts = [below, guess_count]
    return sorted({count for count in counts if low < count < high}) or [(low + high) // 2]


def subject_of(server: str, kind: str, defence: str) -> str:
    """The name under which a sweep is found."""
    return f"{server}, {kind}, defence {defence}"


def starving(subject: str, shares: Shares) -> Finding | None:
    """From how many on they starve: the fewest by the median of launches; the interval runs from the most below it
    under which every launch served 90 % to the fewest from there on under which none did."""
    most = max(shares, default=0)
    if not most:
        return None
    ends = ends_of(shares)
    if ends is None:
        is_without = 0 in shares and _middle(shares[0]) < SERVED_PCT
        words = "are served without slow clients" if is_without else f"or more served up to {most:,}"
        note = f"fewer than {SERVED_PCT:.0f} % {words}" if is_without else f"{SERVED_PCT:.0f} % {words}"
        return Finding(subject, STARVING, None, note)
    low, high = ends
    fed = [count for count in shares if count < high and min(shares[count]) >= SERVED_PCT]
    starved = [count for count in shares if count >= high and max(shares[count]) < SERVED_PCT]
    value = stats.Interval(float(high), float(max(fed)) if fed else None, float(min(starved)) if starved else None)
    note = f"fewer than {SERVED_PCT:.0f} % served in {_starved_count(shares[high])} of {len(shares[high])} launches"
    if low in shares:
        note += f"; not yet at {low:,}, in {_starved_count(shares[low])} of {len(shares[low])}"
    return Finding(subject, STARVING, value, note if low in shares else f"{note}; the fewest that was tried")


def _middle(shares: Sequence[float]) -> float:
    middle = stats.median(list(shares))
    assert middle is not None
    return middle


def _starved_count(shares: Sequence[float]) -> int:
    return sum(share < SERVED_PCT for share in shares)


# --- the search -------------------------------------------------------------------------------------------------------


def search_cells(parameters: SlowParameters, samples: Sequence[Samples]) -> Iterator[SearchCell]:
    """One for all that has something to search."""
    sweeps = sweeps_of(samples)
    keys = _keys(parameters, sweeps)
    if keys:
        kinds = ", ".join(dict.fromkeys(str(key["kind"]) for key in keys))
        batch = next(pack(parameters, keys, limits.walls()))
        weight = 3 * (parameters.served_within / NS_PER_S + 3)
        yield SearchCell({"kind": kinds}, needs_of(parameters, batch), weight, launches=1, sweeps=sweeps)


def search(parameters: SlowParameters, cell: SearchCell, bench: Bench) -> Iterator[Samples]:
    """The launches of a search, in its first block. A sweep in which one could not go on is searched no further."""
    if bench.block:
        return
    sweeps = {sweep: {count: list(values) for count, values in shares.items()} for sweep, shares in cell.sweeps.items()}
    numbers = itertools.count(bench.blocks_count * max(parameters.launches, parameters.survey_launches))
    for done in range(_ROUNDS_MAX):
        keys = _keys(parameters, sweeps)
        if not keys:
            return
        bench.progress(done, done + 2, f"looking for where innocents starve: {_words(keys)}")
        walls = limits.walls()
        for batch in pack(parameters, keys, walls):
            needs = needs_of(parameters, batch)
            if (wall := limits.check(needs, walls)) is not None:
                bench.warn(f"the search was ended: {limits.refusal(wall, needs)}", "", "ask for fewer --clients")
                yield from (refused(key, needs, wall, next(numbers)) for key in batch)
                return
            for key, item in measured(parameters, batch, bench, 1 + done):
                yield Samples(key, next(numbers), item.values, item.facts)
                _put(sweeps, item)


def _sweep_of(key: Key) -> Sweep:
    return str(key["server"]), str(key["kind"]), str(key["defence"])


def _put(sweeps: dict[Sweep, dict[int, list[float]]], item: Samples) -> None:
    """Take what a launch came to; a sweep in which one failed, or this side did, is searched no further."""
    sweep, share = _sweep_of(item.key), share_pct(item)
    if share is None:
        sweeps.pop(sweep, None)
    elif sweep in sweeps:
        sweeps[sweep].setdefault(int(item.key["clients_count"]), []).append(share)


def _keys(parameters: SlowParameters, sweeps: Mapping[Sweep, Shares]) -> list[dict[str, str | int]]:
    """What all sweeps want next."""
    live = [(sweep, shares) for sweep, shares in sweeps.items() if ends_of(shares)]
    return [
        {"server": server, "kind": kind, "clients_count": count, "defence": defence}
        for (server, kind, defence), shares in live
        for count in next_counts(
            shares,
            _guess(parameters, server, kind, defence),
            TOGETHER_COUNT // len(live),
            min(CONFIRMING_COUNT, launches_count(parameters, kind)),
        )
    ]


def _guess(parameters: SlowParameters, server: str, kind: str, defence: str) -> int | None:
    """Of a pool: all workers taken, as often as innocents can wait until those are thrown out. Connections that say
    nothing take none of Apache's: the kernel holds them, until its queue is full."""
    if not is_pool(server):
        return None
    if kind == "idle" and server.startswith("apache"):
        return round((parameters.workers + ServerOptions().backlog_count) * _FULL_QUEUE)
    rounds_count = 1 + (parameters.served_within // parameters.defence_timeout if defence == ON else 0)
    return parameters.workers * rounds_count


def _words(keys: Sequence[Mapping[str, str | int]]) -> str:
    """What is tried, in short."""
    found: dict[str, list[str]] = {}
    for key in keys:
        defence = "" if key["defence"] == OFF else f" ({key['defence']})"
        found.setdefault(f"{key['server']} {key['kind']}{defence}", []).append(str(key["clients_count"]))
    return "; ".join(f"{name} {', '.join(dict.fromkeys(counts))}" for name, counts in found.items())
