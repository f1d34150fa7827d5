"""From how many slow clients on fewer than 90 % are served: searched between what was measured, by fresh launches.

Several counts between the most clients under which innocents were served and the fewest under which they were not are
tried at a time, those of all servers side by side, until the two are next to each other, or within 10 %. Then both are
launched again: what holds in one launch need not in the next.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from c10k_probe import limits, native, stats
from c10k_probe.experiment import Bench, Cell, Finding, Samples

from ._slow_design import CPU, NS_PER_S, OFF, ON, TOGETHER_COUNT, SlowParameters, ask_of, batches, is_pool, needs_of
from ._slow_measure import outcomes

SERVED_PCT = 90.0  # below it innocents are starved
STARVING = "starving_clients_count"
FINEST_STEP = 1.1  # the search ends where the two counts differ by no more than this factor, or by one
CONFIRMING_COUNT = 3  # launches of each of the two in the end
_PROBES_COUNT = 4  # counts of one sweep that are tried at a time
_LINEAR_STEP = 4  # counts are spread evenly below this ratio of the ends, and in equal ratios above it
_ROUNDS_MAX = 12
_CROWD = 4  # so many times --side-by-side servers at a time: who is served within seconds is decided here, no latency
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
    """The shares of all launches with slow clients, or without any."""
    found: dict[Sweep, dict[int, list[float]]] = {}
    for item in samples:
        share = share_pct(item)
        if item.key["kind"] != CPU and share is not None:
            found.setdefault(_sweep_of(item.key), {}).setdefault(int(item.key["clients_count"]), []).append(share)
    return found


def ends_of(shares: Shares) -> tuple[int, int] | None:
    """The fewest clients under which fewer than 90 % were served, by the median of launches, and the most below it.

    None where there are no such, or where nobody need come for it.
    """
    starved = [count for count in sorted(shares) if _middle(shares[count]) < SERVED_PCT]
    if not starved or starved[0] == 0:
        return None
    return max((count for count in shares if count < starved[0]), default=0), starved[0]


def next_counts(shares: Shares, guess_count: int | None, most_count: int = TOGETHER_COUNT) -> list[int]:
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
    missing = {count: CONFIRMING_COUNT - len(shares.get(count, ())) for count in ends if count}
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
        others = [count for count in counts if count < below or count > guess_count]
        counts = [below, guess_count, *others[: _PROBES_COUNT - 2]]
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
    """One for each kind that has something to search."""
    found = sweeps_of(samples)
    for kind in parameters.kinds:
        sweeps = {sweep: shares for sweep, shares in found.items() if sweep[1] == kind}
        keys = _keys(parameters, sweeps)
        if keys:
            weight = 3 * (parameters.served_within / NS_PER_S + 3)
            yield SearchCell({"kind": kind}, needs_of(parameters, keys), weight, launches=1, sweeps=sweeps)


def search(parameters: SlowParameters, cell: SearchCell, bench: Bench) -> Iterator[Samples]:
    """The launches of a search, in its first block."""
    if bench.block:
        return
    sweeps = {sweep: {count: list(values) for count, values in shares.items()} for sweep, shares in cell.sweeps.items()}
    numbers = itertools.count(bench.blocks_count * parameters.side_by_side)
    for done in range(_ROUNDS_MAX):
        keys = _keys(parameters, sweeps)
        if not keys:
            return
        bench.progress(done, done + 2, f"looking for where innocents starve: {_words(keys)}")
        together_count = 1 if parameters.side_by_side == 1 else _CROWD * parameters.side_by_side
        for batch in batches(keys, together_count):
            needs = needs_of(parameters, batch)
            if (wall := limits.check(needs, limits.walls())) is not None:
                bench.warn(f"the search was ended: {limits.refusal(wall, needs)}", "", "ask for fewer --clients")
                return
            asks = [ask_of(parameters, key, bench.seed + place) for place, key in enumerate(batch)]
            for key, outcome in zip(batch, outcomes(asks, bench.remaining_s), strict=True):
                number = next(numbers)
                if isinstance(outcome, native.HelperError):
                    _give_up(sweeps, key, outcome, bench)
                    continue
                whole = {"overflows_count": None, "timeouts_count": None}  # of others, too
                item = Samples(key, number, outcome.values, {**outcome.facts, **whole})
                yield item
                _put(sweeps, item)


def _sweep_of(key: Mapping[str, str | int]) -> Sweep:
    return str(key["server"]), str(key["kind"]), str(key["defence"])


def _give_up(
    sweeps: dict[Sweep, dict[int, list[float]]], key: Mapping[str, str | int], error: native.HelperError, bench: Bench
) -> None:
    """Search a sweep no further in which a launch could not go on, and say so once.

    Raises ``native.HelperError`` where it is the run's time that is over.
    """
    if bench.remaining_s() <= 0:
        raise error
    if sweeps.pop(_sweep_of(key), None) is not None:
        subject = subject_of(*_sweep_of(key))
        bench.warn(f"{subject}: the search was ended at {key['clients_count']} slow clients: {error}", "", "")


def _put(sweeps: dict[Sweep, dict[int, list[float]]], item: Samples) -> None:
    """Take what a launch came to; a sweep in which this side failed is searched no further."""
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
        for count in next_counts(shares, _guess(parameters, server, defence), TOGETHER_COUNT // len(live))
    ]


def _guess(parameters: SlowParameters, server: str, defence: str) -> int | None:
    """Of a pool: all workers taken, as often as innocents can wait until those are thrown out."""
    if not is_pool(server):
        return None
    rounds_count = 1 + (parameters.served_within // parameters.defence_timeout if defence == ON else 0)
    return parameters.workers * rounds_count


def _words(keys: Sequence[Mapping[str, str | int]]) -> str:
    """What is tried, in short."""
    found: dict[str, list[str]] = {}
    for key in keys:
        defence = "" if key["defence"] == OFF else f" ({key['defence']})"
        found.setdefault(f"{key['server']}{defence}", []).append(str(key["clients_count"]))
    return "; ".join(f"{name} {', '.join(dict.fromkeys(counts))}" for name, counts in found.items())
