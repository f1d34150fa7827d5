"""The axes of a chart: range, ticks, titles with their unit."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from c10k_probe.charts.axes import make_axis, stem, value_text


@given(
    st.sampled_from(("a_ns", "a_bytes", "a_count", "a_ratio", "a_per_s", "a_pct", "a_s", "plain")),
    st.lists(st.floats(1e-3, 1e15), min_size=1, max_size=5),
    st.integers(2, 12),
    st.booleans(),
)
@example("a_count", [1.0], 5, False)
@example("a_ns", [1e9, 1e9 + 1], 8, True)
@example("a_count", [0.25], 3, True)
@example("a_count", [1.49, 1.51], 5, True)
@example("a_ns", [999999999999667.0, 999999999999669.0], 2, True)
def test_ticks_are_few_ordered_within_the_axis_and_told_apart(
    column: str, values: list[float], most: int, log: bool
) -> None:
    axis = make_axis(column, values, most, log=log)
    places = [tick.value for tick in axis.ticks]
    is_one_place = max(values) < min(values) * (1 + 1e-12)  # its margin, a share of that, is below a float's precision
    assert axis.low < min(values) or axis.low == min(values) == 0 or is_one_place or not log
    assert axis.low <= min(values) <= max(values) <= axis.high
    assert places == sorted(set(places))
    assert len(places) <= most
    assert places or most == 2 or not log
    assert all(axis.low * (1 - 1e-6) <= place <= axis.high * (1 + 1e-6) for place in places)
    if max(values) > min(values) * 1.01:
        assert len({tick.label for tick in axis.ticks}) == len(places)


@pytest.mark.parametrize(
    ("column", "values", "log", "title", "labels"),
    [
        ("echo_p50_ns", [0, 50_000], False, "echo p50 (µs)", ["0", "20", "40"]),
        ("echo_p50_ns", [1e3, 1e6], True, "echo p50 (log)", ["1 µs", "10 µs", "100 µs", "1 ms"]),
        ("rss_bytes", [2**20, 2**24], True, "rss (MiB, log)", ["1", "2", "4", "8", "16"]),
        ("rss_bytes", [0, 2**21], False, "rss (MiB)", ["0", "0.5", "1", "1.5", "2"]),
        ("open_count", [10, 10_000], True, "open (count, log)", ["10", "100", "1,000", "10,000"]),
        ("alive_count", [0, 2], False, "alive (count)", ["0", "1", "2"]),
        ("connect_rate_per_s", [0, 30_000], False, "connect rate (1/s)", ["0", "10,000", "20,000", "30,000"]),
        ("cycle_ratio", [0, 4], False, "cycle ratio (×)", ["0", "1", "2", "3", "4"]),
        ("server_bytes_per_connection", [0, 4096], False, "server per connection (KiB)", ["0", "1", "2", "3", "4"]),
    ],
)
def test_axes(column: str, values: list[float], log: bool, title: str, labels: list[str]) -> None:
    axis = make_axis(column, values, 5, log=log)
    assert (axis.title, [tick.label for tick in axis.ticks]) == (title, labels)


def test_linear_values_start_at_zero_where_they_are_compared_by_length() -> None:
    assert make_axis("a_ns", [90.0, 100.0], 5, log=False).low > 0
    assert make_axis("a_ns", [90.0, 100.0], 5, log=False, from_zero=True).low == 0
    assert make_axis("a_ns", [-5.0, 100.0], 5, log=False, from_zero=True).low < -5


def test_share() -> None:
    linear, log = make_axis("a", [0.0, 100.0], 5, log=False), make_axis("a", [1.0, 100.0], 5, log=True)
    assert linear.share(linear.low) == 0
    assert linear.share(linear.high) == 1
    assert log.share(10) == pytest.approx(0.5)
    assert log.share(-1) == 0
    assert log.share(1e9) == 1


@pytest.mark.parametrize(
    ("column", "values", "labels"),
    [
        ("alive_count", [0, 100, 400, 1000], ["0", "100", "200", "500"]),
        ("rss_bytes", [0, 2**20, 2**27], ["0", "1", "4", "16", "64"]),
        ("alive_count", [0, 5], ["0"]),
    ],
)
def test_a_logarithmic_axis_can_begin_at_zero(column: str, values: list[float], labels: list[str]) -> None:
    """Linear up to the smallest other value; its part is as wide as half a decade."""
    axis = make_axis(column, values, 6, log=True)
    assert (axis.log, axis.low, axis.linear_to) == (True, 0, values[1])
    assert [tick.label for tick in axis.ticks][: len(labels)] == labels
    assert axis.share(0) == 0
    assert axis.share(values[1] / 2) == pytest.approx(axis.share(values[1]) / 2)
    shares = [axis.share(value) for value in values]
    assert shares == sorted(set(shares))
    decade = axis.share(values[1] * 10**0.1) - axis.share(values[1])
    assert decade == pytest.approx(axis.share(values[1]) / 5)


def test_a_logarithmic_axis_of_nothing_is_linear() -> None:
    assert make_axis("alive_count", [0.0], 5, log=True).log is False


def test_words() -> None:
    assert (stem("echo_p50_ns"), stem("model"), stem("cycle_ratio")) == ("echo p50", "model", "cycle ratio")
    assert value_text("rss_bytes", 64 * 2**20) == "64 MiB"
    assert value_text("alive_count", 10_000) == "10,000"
