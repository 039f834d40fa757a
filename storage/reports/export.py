"""An audit for machines: JSON with every figure, CSV with every minute.

Pure: reports in, documents and text out. A text that others wrote is made harmless in a cell: one
line, and nothing that a spreadsheet would take for a formula.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

import numpy as np

from storage.reports.audit import AuditReport, PolicyRun
from storage.reports.words import printable

FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")
CELL_LONGEST = 500
COLUMNS = (
    "workload",
    "minute",
    "demand_qps",
    "demand_peak_qps",
    "needed",
    "ready",
    "starting",
    "draining",
    "asked_for",
    "p99_seconds",
    "errors_qps",
    "forecast_low_qps",
    "forecast_median_qps",
    "forecast_high_qps",
    "forecast_trusted_ratio",
    "policy",
    "reason",
    "problems",
)


def audit_document(report: AuditReport) -> dict[str, Any]:
    """One workload's audit; what is not known is null."""
    price = report.objective.price_per_pod_hour
    return {
        "workload": report.workload,
        "since": report.since.isoformat(),
        "until": report.until.isoformat(),
        "policies": list(report.policies),
        "objective": plain(asdict(report.objective)),
        "clairvoyant_pod_hours": report.clairvoyant_pod_hours,
        "cost": None if price is None else report.runs[0].pod_hours * price,
        "compliance": _compliance(report),
        "runs": [_run(run) for run in report.runs],
        "reproduction": _reproduction(report),
        "waterfall": [asdict(one) for one in report.waterfall],
        "forecast": _forecast(report),
        "coverage": [asdict(one) for one in report.coverage],
        "reasons": {one.reason: one.decisions for one in report.reasons},
        "events": [plain(asdict(event)) for event in report.events],
        "overrides": [plain(asdict(row)) for row in report.overrides],
        "problems": [plain(asdict(period)) for period in report.problems],
        "worst_minutes": [plain(asdict(minute)) for minute in report.worst_minutes],
    }


def plain(value: Any) -> Any:
    """Times as ISO-8601, figures that are not finite as null."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def csv_header() -> str:
    return _csv([COLUMNS])


def minutes_csv(report: AuditReport) -> str:
    """One line a minute; times in UTC, an empty cell where nothing was known."""
    return _csv(_lines(report))


def _csv(lines: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def cell(text: str) -> str:
    """A text for a cell: a sign that begins a formula is kept from doing so by an apostrophe."""
    shown = printable(text, CELL_LONGEST)
    return f"'{shown}" if text.startswith(FORMULA_SIGNS) else shown


def _lines(report: AuditReport) -> Iterable[Sequence[object]]:
    minutes, name = report.minutes, cell(report.workload)
    figures = (
        minutes.demand_qps,
        minutes.demand_peak_qps,
        minutes.need,
        minutes.ready,
        minutes.starting,
        minutes.draining,
        minutes.desired,
        minutes.latency_p99_seconds,
        minutes.errors_qps,
        minutes.forecast_low_qps,
        minutes.forecast_median_qps,
        minutes.forecast_high_qps,
        minutes.trusted / minutes.decisions,
    )
    table = np.column_stack(figures).tolist()
    for index, row in enumerate(table):
        yield (
            name,
            minutes.at(index).isoformat(),
            *("" if math.isnan(value) else f"{value:.10g}" for value in row),
            cell(minutes.policy[index]),
            report.line.reason[index],
            cell(minutes.problems[index]),
        )


def _compliance(report: AuditReport) -> dict[str, Any]:
    found = report.compliance
    derived = {
        "bad_ratio": found.bad_ratio,
        "budget_requests": found.budget_requests,
        "burn": found.burn,
        "met": found.met,
    }
    document: dict[str, Any] = plain(asdict(found) | derived)
    return document | {"estimate": "exact" if found.exact else "at most"}


def _run(run: PolicyRun) -> dict[str, Any]:
    """Without its arrays: the minutes are the CSV's."""
    named = {one.name: getattr(run, one.name) for one in fields(run)}
    kept = {name: value for name, value in named.items() if not isinstance(value, np.ndarray)}
    document: dict[str, Any] = plain(kept)
    return document | {"parameters": None if run.parameters is None else dict(run.parameters)}


def _reproduction(report: AuditReport) -> dict[str, Any] | None:
    found = report.reproduction
    if found is None:
        return None
    ratios = {
        "difference_ratio": found.difference_ratio,
        "once_a_minute_ratio": found.once_a_minute_ratio,
    }
    document: dict[str, Any] = plain(asdict(found) | ratios)
    return document


def _forecast(report: AuditReport) -> dict[str, Any] | None:
    found = report.forecast
    return None if found is None else asdict(found) | {"skill": found.skill}
