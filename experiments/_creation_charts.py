"""The charts of fork-latency. The first that has something to draw and varies is the one shown unasked."""

from __future__ import annotations

from c10k_probe.experiment import Chart


def _axis_chart(name: str, axes: tuple[str, ...], what: str, x: str) -> Chart:
    """fork and the others by one axis of the parent's state, whose levels are wide apart."""
    ends, series = ("return_p50_lo_ns", "return_p50_hi_ns"), ("method", "linking")
    title = f"Return of creation by the parent's {what}"
    where = (("axis", axes),)
    return Chart(name, title, x, "return_p50_ns", *ends, series, where=where, log_x=True, log_y=True)


def _method_chart(name: str) -> Chart:
    ends = (f"{name}_p50_lo_ns", f"{name}_p50_hi_ns")
    title = f"Creation by method: {name}"
    return Chart(name, title, "method", f"{name}_p50_ns", *ends, ("linking",), where=(("axis", "base"),), log_y=True)


def _stall_chart(name: str, title: str, prefix: str) -> Chart:
    ends = (f"{prefix}_p50_lo_ns", f"{prefix}_p50_hi_ns")
    return Chart(name, title, "method", f"{prefix}_p50_ns", *ends, ("linking",), log_y=True)


_AXES = (
    ("rss", "anonymous memory", "asked_rss_bytes"),
    ("file-rss", "file mapping", "asked_file_rss_bytes"),
    ("mappings", "mappings", "asked_mappings_count"),
    ("descriptors", "descriptors", "asked_descriptors_count"),
    ("alive", "live children or threads", "asked_alive_count"),
    ("libraries", "libraries", "asked_libraries_count"),
)
CHARTS = (
    _stall_chart("stall-after", "How late the parent's first tick after a creation is", "stall_after"),
    _stall_chart("stall", "How late the parent's own ticks are", "stall"),
    Chart("stall-p99", "How late one tick in a hundred is", "method", "stall_p99_ns", series=("linking",), log_y=True),
    *map(_method_chart, ("return", "started", "cycle", "aftershock")),
    *(_axis_chart(name, ("base", name.replace("-", "_")), what, x) for name, what, x in _AXES),
    _axis_chart("huge-pages", ("rss", "huge_pages"), "memory, in huge pages or not", "asked_rss_bytes"),
    *(_axis_chart(f"given-{name}", ("given",), what, x) for name, what, x in _AXES),
)
