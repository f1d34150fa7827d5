"""What the table and the plain lines share: a value with its interval as text, and which rows stand for all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from c10k_probe.events import ReadingsTaken, RowMeasured, RunStarted
from c10k_probe.experiment import Finding, Scalar, Verdict, View
from c10k_probe.fits import Fit
from c10k_probe.sinks.progress import duration_text
from c10k_probe.units import column_suffix, format_column, label

_SHORT = ("cpu", "pss", "rss")  # written in capitals
IntervalStyle = Literal["ends", "percent", "none"]


def expected_text(start: RunStarted) -> str:
    """What a run will take, in a few words before it begins; empty where that is not known."""
    if start.expected_s is None:
        return ""
    launches = "" if start.blocks_count == 1 else f", up to {start.blocks_count} launches of each"
    return f"about {duration_text(start.expected_s)}: {start.cells_count} cases{launches}; Ctrl-C keeps what is there"


def interval_text(
    column: str, middle: Scalar, low: Scalar = None, high: Scalar = None, style: IntervalStyle = "ends"
) -> str:
    """``52.1 µs [51.8 µs, 52.9 µs]``, or ``52.1 µs ±1.1%``, or without its interval; empty where nothing is known."""
    text = format_column(column, middle)
    if not text or style == "none" or not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        return text
    if style == "percent" and isinstance(middle, (int, float)) and middle:
        half_pct = (high - low) / 2 / abs(middle) * 100
        return f"{text} ±{half_pct:.1f}%" if half_pct < 10 else f"{text} ±{half_pct:.0f}%"
    return f"{text} [{format_column(column, low)}, {format_column(column, high)}]"


def rows_text(count: int) -> str:
    """``1 row``, ``2 rows``."""
    return f"{count:,} row{'' if count == 1 else 's'}"


def view_text(view: View, row: RowMeasured, style: IntervalStyle = "ends") -> str:
    """The text of one view of a row; nothing where the row is traced and the view is not, or the other way round."""
    if view.traced != row.is_traced:
        return ""
    middle, low, high = (row.values.get(name) for name in (view.column, view.low, view.high))
    return interval_text(view.column, middle, low, high, style)


def fit_text(fit: Fit) -> str:
    """A cost model as one line: the constant, then each term with what one more of it costs and its interval."""
    first, *others = fit.coefficients
    column = f"x_{fit.response.rsplit('_', 1)[-1]}"
    parts = [interval_text(column, first.middle, first.low, first.high)]
    for term, factor in zip(fit.terms, others, strict=True):
        parts.append(f"{interval_text(column, factor.middle, factor.low, factor.high)} per {term_text(term)}")
    quality = f"R² {fit.r_squared:.3f}, scatter ±{fit.scatter * 100:.0f} %, {fit.points_count} cells"
    return f"{fit.name} {fit.response.rsplit('_', 1)[0]} = {' + '.join(parts)} ({quality})"


def finding_text(finding: Finding) -> str:
    """``epoll overtakes poll, 1 active: watched 61 [48, 80]``; without a value only why there is none."""
    number = finding_value(finding)
    parts = (f"{finding_name(finding)} {number}" if number else "", finding.note)
    return f"{finding.subject}: {', '.join(part for part in parts if part)}"


def finding_name(finding: Finding) -> str:
    """What was found, as the header of a column."""
    return finding.column.removesuffix(column_suffix(finding.column) or "").replace("_", " ")


def reading_name(column: str) -> str:
    """What is read, as a word or two: ``tree_pss_bytes`` -> ``tree PSS``."""
    words = column.removesuffix(column_suffix(column) or "").split("_")
    return " ".join(word.upper() if word in _SHORT else word for word in words)


def readings_text(event: ReadingsTaken) -> str:
    """The newest value of each series: ``tree CPU 99.0 %, processes 12``."""
    newest: dict[str, float] = {}
    for reading in event.readings:
        newest |= reading.values
    return ", ".join(f"{reading_name(name)} {format_column(name, value)}" for name, value in newest.items())


def finding_value(finding: Finding) -> str:
    """The number with its interval; empty without one."""
    value = finding.value
    return "" if value is None else interval_text(finding.column, value.middle, value.low, value.high)


def term_text(term: str) -> str:
    """``rss_mib`` -> ``MiB of rss``, ``mappings`` -> ``mapping``."""
    if term.endswith("_mib"):
        return f"MiB of {term.removesuffix('_mib').replace('_', ' ')}"
    return term.removesuffix("s")


def has_values(view_list: Iterable[View], rows: Iterable[RowMeasured]) -> bool:
    """Whether any of these views shows anything in these rows; a table of nothing is not shown."""
    shown = [(view.column, view.traced) for view in view_list]
    return any(row.values.get(name) is not None and row.is_traced == traced for row in rows for name, traced in shown)


def is_told(view_list: Iterable[View], row: RowMeasured) -> bool:
    """Whether the main table shows a row: when it has a value there, or has not been measured as it should."""
    views = list(view_list)
    return not views or row.values["status"] != "ok" or has_values(views, [row])


def undecided_text(verdicts: Iterable[Verdict]) -> str:
    """The claims that this run did not measure, in one line; each one's reason stands in ``run.json``."""
    names = [verdict.claim for verdict in verdicts]
    return f"not judged in this run: {', '.join(names)} (what each needs: see verdicts in run.json)" if names else ""


def case_text(names: Sequence[str], row: RowMeasured) -> str:
    """What a row is about, in words; a word that only says which of the numbers is meant is left out."""
    texts = [text for text in (label(name, row.values[name]) for name in names) if text]
    return " ".join(
        text
        for text in texts
        if not any(other.startswith(f"{text.replace('_', ' ')} ") for other in texts if other is not text)
    )


def groups(start: RunStarted) -> list[str]:
    """The groups of views, in the order in which they were declared; the first is the main table."""
    return list(dict.fromkeys(view.group for view in start.views)) or [""]


def last_of_each(start: RunStarted, rows: Iterable[RowMeasured]) -> list[RowMeasured]:
    """Of a ramp its last measured step, of anything else every row; rows without numbers do not count."""
    texts = [column.name for column in start.columns if column.key and not column.ramp]
    numbers = [column.name for column in start.columns if not column.key and column.kind != "str"]
    measured = [row for row in rows if any(row.values[name] is not None for name in numbers)]
    return list({tuple(row.values[name] for name in texts): row for row in measured}.values())


def telling_keys(start: RunStarted, rows: Sequence[RowMeasured]) -> list[str]:
    """The key columns that tell rows apart; one that is the same everywhere takes no space, the first always stays."""
    keys = [column.name for column in start.columns if column.key]
    return [name for index, name in enumerate(keys) if index == 0 or len({row.values[name] for row in rows}) > 1]
