"""The contract: options, columns, rows; and that every packaged experiment keeps to it."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from c10k_probe.experiments.connections import geometric_steps
from hypothesis import given
from hypothesis import strategies as st
from mock_experiment import MockParameters, MockRow

from c10k_probe import stats, units
from c10k_probe.exits import ExitCode, UsageError
from c10k_probe.experiment import AnyExperiment, Cell, Row, column, columns, estimate, flatten, key_of, spread
from c10k_probe.parameters import Option, build_parameters, default_text, option_name, options_of, parse_option
from c10k_probe.registry import documentation, find_experiments

STATE = ["status", "reason", "grade", "grade_reason"]
PACKAGED = find_experiments()
every_experiment = pytest.mark.parametrize("experiment", PACKAGED.values(), ids=PACKAGED.keys())
OPTIONS = {name: option for name, _, option in options_of(MockParameters) if option.dimension != "flag"}

# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("n", "10k", 10_000),
        ("n", " 5 ", 5),
        ("size", "64KiB", 65_536),
        ("wait", "250ms", 250_000_000),
        ("colour", "green", "green"),
        ("colour", " green ", "green"),
        ("colours", "blue", ("blue",)),
        ("colours", "blue, red", ("blue", "red")),
        ("counts", "1,2,100", (1, 2, 100)),
        ("note", "any thing", "any thing"),
    ],
)
def test_options_are_parsed(name: str, text: str, value: object) -> None:
    assert parse_option(name, OPTIONS[name], text) == value


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("n", "many", ("--n", "'many'", "10k")),
        ("n", "", ("--n", "''", "10k")),
        ("n", "1.5", ("--n", "'1.5'", "whole number")),
        ("n", "5s", ("--n", "'5s'", "unknown unit", "k, m, g")),
        ("n", "0", ("--n", "0", "out of range", "at least 1")),
        ("n", "-3", ("--n", "-3", "out of range", "at least 1")),
        ("n", "20k", ("--n", "20k", "out of range", "at most 10k")),
        ("size", "big", ("--size", "'big'", "64MiB")),
        ("size", "0", ("--size", "out of range", "at least 1B")),
        ("size", "5s", ("--size", "unknown unit", "KiB")),
        ("wait", "soon", ("--wait", "'soon'", "500ms")),
        ("colour", "pink", ("--colour", "'pink'", "red, green")),
        ("colour", "Red", ("--colour", "'Red'", "red, green")),
        ("colour", "red,green", ("--colour", "'red,green'", "red, green")),
        ("colours", "red,pink", ("--colours", "'pink'", "red, green, blue")),
        ("colours", "", ("--colours", "''", "red, green, blue")),
        ("colours", "red,", ("--colours", "''", "red, green, blue")),
        ("colours", "red,red", ("--colours", "'red,red'", "twice", "once")),
        ("counts", "1,101", ("--counts", "101", "at most 100")),
        ("counts", "10,1e1", ("--counts", "twice")),
        ("colour", "a\nb", ("--colour", "red, green")),
        ("n", "0\nk", ("--n",)),
    ],
)
def test_bad_input_gets_one_line_with_flag_reason_and_what_is_allowed(
    name: str, text: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError) as caught:
        parse_option(name, OPTIONS[name], text)
    message = str(caught.value)
    assert caught.value.code == ExitCode.USAGE
    assert message.startswith(f"{option_name(name)}: ")
    assert "\n" not in message
    for word in words:
        assert word in message


@given(st.text(max_size=12), st.sampled_from(sorted(OPTIONS)))
def test_any_text_is_a_value_or_a_usage_error(text: str, name: str) -> None:
    try:
        parse_option(name, OPTIONS[name], text)
    except UsageError as error:
        assert option_name(name) in str(error)


def test_option_names() -> None:
    assert option_name("spawn_rate") == "--spawn-rate"
    assert option_name("n") == "--n"


def test_defaults_quick_values_and_what_was_given() -> None:
    build = build_parameters
    assert build(MockParameters, {}, quick=False) == MockParameters()
    assert build(MockParameters, {}, quick=True) == MockParameters(n=10)
    assert build(MockParameters, {"n": "7"}, quick=True) == MockParameters(n=7)
    assert build(MockParameters, {"n": None, "colour": "green"}, quick=False) == MockParameters(colour="green")
    with pytest.raises(UsageError, match="--n"):
        build(MockParameters, {"n": "0"}, quick=True)


@pytest.mark.parametrize(("given_value", "expected"), [(None, False), (False, False), (True, True)])
def test_a_switch_is_on_when_it_is_given(given_value: bool | None, expected: bool) -> None:
    """The command line hands over True or False and no text."""
    for quick in (False, True):
        assert build_parameters(MockParameters, {"often": given_value}, quick=quick).often is expected  # type: ignore[dict-item]


def test_only_key_columns_are_steps_of_a_ramp() -> None:
    marked = {item.name: (item.key, item.ramp) for item in columns(MockRow)}
    assert marked["step"] == (True, True)
    assert marked["cell"] == (True, False)
    assert marked["value_ns"] == marked["status"] == (False, False)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n", "1k"),
        ("size", "4KiB"),
        ("wait", "1s"),
        ("colour", "red"),
        ("colours", "red,green"),
        ("counts", "1,10"),
        ("note", ""),
    ],
)
def test_defaults_are_shown_as_one_would_type_them(name: str, text: str) -> None:
    default = getattr(MockParameters(), name)
    assert default_text(default, OPTIONS[name]) == text
    assert parse_option(name, OPTIONS[name], text) == default


# --- rows -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RichRow(Row):
    """One of each kind of column, the keys not in front."""

    rss_bytes: int | None = column("memory")
    method: str = column("which way", key=True)
    cycle: stats.Summary | None = spread("cycle", "whole life")
    cycle_ratio: stats.Interval | None = estimate("cycle_ratio", "over the base")
    price_bytes_per_connection: stats.Interval | None = estimate("price_bytes_per_connection", "slope")
    ramp_s: float | None = column("time")
    step_count: int = column("step", key=True)


RICH_NAMES = [
    "rss_bytes",
    "method",
    *(f"cycle_{part}_ns" for part in ("p50", "p50_lo", "p50_hi", "p90", "p99", "min", "max")),
    "cycle_ratio",
    "cycle_lo_ratio",
    "cycle_hi_ratio",
    "price_bytes_per_connection",
    "price_lo_bytes_per_connection",
    "price_hi_bytes_per_connection",
    "ramp_s",
    "step_count",
    *STATE,
]
SUMMARY = stats.Summary(stats.Interval(5.0, 4.0, 6.0), 7.0, None, 1.0, 9.0, 100)


def test_columns_come_in_the_order_they_were_declared_and_state_last() -> None:
    assert [item.name for item in columns(RichRow)] == RICH_NAMES


def test_kinds_keys_and_help_of_columns() -> None:
    found = {item.name: item for item in columns(RichRow)}
    assert [found[name].kind for name in ("rss_bytes", "method", "cycle_p50_ns", "cycle_ratio", "ramp_s")] == [
        "int",
        "str",
        "float",
        "float",
        "float",
    ]
    assert [name for name, item in found.items() if item.key] == ["method", "step_count"]
    assert all(item.help for item in found.values())
    assert found["cycle_p99_ns"].help == "whole life: 99th percentile of all samples"


def test_a_measured_row_is_flattened_in_that_order() -> None:
    row = RichRow(
        rss_bytes=1, method="fork", cycle=SUMMARY, cycle_ratio=stats.Interval(2.0, 1.5, 2.5), ramp_s=0.5, step_count=3
    )
    flat = flatten(row)
    assert list(flat) == RICH_NAMES
    assert list(flat.values()) == [
        *(1, "fork"),
        *(5.0, 4.0, 6.0, 7.0, None, 1.0, 9.0),
        *(2.0, 1.5, 2.5),
        *(None, None, None),
        *(0.5, 3),
        *("ok", "", "ok", ""),
    ]


def test_what_was_not_measured_is_none_never_zero() -> None:
    flat = flatten(RichRow(method="fork", step_count=3, status="skipped", reason="no", grade="void"))
    assert {name for name, value in flat.items() if value is None} == set(RICH_NAMES) - {"method", "step_count", *STATE}
    assert (flat["status"], flat["reason"], flat["grade"], flat["grade_reason"]) == ("skipped", "no", "void", "")


def test_rows_with_the_same_key_are_the_same_row() -> None:
    assert key_of(RichRow(method="fork", step_count=3)) == ("fork", 3)
    assert key_of(RichRow(method="fork", step_count=3, rss_bytes=5)) == ("fork", 3)
    assert key_of(MockRow(cell="a", step=None)) == ("a", None)


def test_a_row_without_its_key_is_refused() -> None:
    with pytest.raises(TypeError):
        RichRow(rss_bytes=1)  # type: ignore[call-arg]


def test_the_name_of_a_cell_is_its_key() -> None:
    assert Cell({"method": "fork", "step_count": 3}).name == "fork 3"


# --- every packaged experiment --------------------------------------------------------------------------------------


def test_there_are_experiments() -> None:
    assert {"fork-latency", "connections"} <= PACKAGED.keys()


def defaults(experiment: AnyExperiment) -> Any:
    return build_parameters(experiment.parameters_type, {}, quick=False)


@every_experiment
def test_name_question_version_and_repeats(experiment: AnyExperiment) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", experiment.name)
    assert experiment.question.endswith("?")
    assert "\n" not in experiment.question
    assert experiment.version >= 1
    assert experiment.repeats >= experiment.quick_repeats >= 1


@every_experiment
def test_docstring_says_what_is_timed_and_what_is_not(experiment: AnyExperiment) -> None:
    text = documentation(experiment)
    for word in ("Question", "Timed", "Not timed", "Clock", "Known bias", "Sources"):
        assert re.search(rf"\b{word}\b", text), f"the docstring of {experiment.name} lacks {word}"


@every_experiment
def test_numbers_end_in_their_unit(experiment: AnyExperiment) -> None:
    for item in columns(experiment.row_type):
        assert item.kind in ("str", "int", "float")
        assert item.help
        if not item.key and item.kind != "str":
            assert units.column_suffix(item.name), f"{item.name} of {experiment.name} has no unit"


@every_experiment
def test_state_columns_come_last_and_names_are_unique(experiment: AnyExperiment) -> None:
    names = [item.name for item in columns(experiment.row_type)]
    assert names[-4:] == STATE
    assert len(names) == len(set(names))
    assert any(item.key for item in columns(experiment.row_type))


@every_experiment
def test_flatten_and_columns_agree(experiment: AnyExperiment) -> None:
    keys = {item.name: None for item in columns(experiment.row_type) if item.key}
    row = experiment.row_type(**keys)
    assert list(flatten(row)) == [item.name for item in columns(experiment.row_type)]


@every_experiment
def test_views_name_columns_that_exist(experiment: AnyExperiment) -> None:
    known = {item.name: item for item in columns(experiment.row_type)}
    assert experiment.views, f"{experiment.name} shows nothing"
    for view in experiment.views:
        for name in (view.column, view.low, view.high):
            assert name == "" or name in known, f"{experiment.name} shows {name}, which is no column"
        assert bool(view.low) == bool(view.high)
        assert not known[view.column].key
        assert view.header
        assert view.priority >= 1
    for group in {view.group for view in experiment.views}:
        assert min(view.priority for view in experiment.views if view.group == group) == 1


@every_experiment
def test_defaults_and_quick_values_keep_to_their_own_rules(experiment: AnyExperiment) -> None:
    for name, default, option in options_of(experiment.parameters_type):
        assert isinstance(option, Option)
        assert option.help
        assert option.dimension in (*units.SCALES, "text", "flag", "amount") or option.choices
        if option.dimension == "flag":
            assert default is False  # a switch can only switch on
            assert option.quick is None
            continue
        if default is None:  # not given
            assert default_text(default, option) == ""
        for value in (value for value in (default, option.quick) if value is not None):
            assert parse_option(name, option, default_text(value, option)) == value


@every_experiment
@pytest.mark.parametrize("quick", [False, True])
def test_cells_are_there_and_their_keys_are_key_columns(experiment: AnyExperiment, quick: bool) -> None:
    parameters = build_parameters(experiment.parameters_type, {}, quick=quick)
    experiment.check(parameters)
    cells = experiment.cells(parameters)
    keys = {item.name for item in columns(experiment.row_type) if item.key}
    assert cells
    assert len({cell.name for cell in cells}) == len(cells)
    for cell in cells:
        assert cell.key
        assert set(cell.key) <= keys
        assert cell.weight > 0
        assert all(need >= 0 for need in dataclasses.astuple(cell.needs))


@every_experiment
def test_nothing_measured_gives_no_rows(experiment: AnyExperiment) -> None:
    assert list(experiment.summarise(defaults(experiment), [], seed=1)) == []


@every_experiment
def test_judges_answer_no_rows_with_a_verdict(experiment: AnyExperiment) -> None:
    for judge in experiment.judges:
        verdict = judge([], [])
        assert all((verdict.claim, verdict.restatement, verdict.rule, verdict.verdict, verdict.evidence))


# --- arithmetic of the packaged experiments -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "steps", "expected"),
    [
        (1, 10, [1]),
        (1, 1, [1]),
        (1000, 1, [1000]),
        (500, 5, [31, 62, 125, 250, 500]),
        (10_000, 4, [1250, 2500, 5000, 10_000]),
        (3, 100, [1, 2, 3]),
    ],
)
def test_steps_of_a_geometric_ramp(to: int, steps: int, expected: list[int]) -> None:
    assert geometric_steps(to, steps) == expected


@given(st.integers(1, 1_000_000), st.integers(1, 100))
def test_any_geometric_ramp_grows_and_ends_exactly(to: int, steps: int) -> None:
    ramp = geometric_steps(to, steps)
    assert ramp == sorted(set(ramp))
    assert ramp[0] >= 1
    assert ramp[-1] == to
    assert len(ramp) <= steps
    assert all(after <= 2 * before + 1 for before, after in pairwise(ramp))
