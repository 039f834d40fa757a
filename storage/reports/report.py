"""The audit report: one HTML file that needs no network, no script and no explanation.

Knows the page, for one workload or for many. Its policy for what a browser may load is: nothing.
Every text is escaped, since names of workloads and policies come from files that others write.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from storage.reports import audit_charts, charts, summary, words
from storage.reports.audit import AuditReport, PolicyRun, read_audit
from storage.reports.findings import Objective
from storage.reports.timeline import ProblemPeriod, ScaleEvent

__all__ = [
    "AuditReport",
    "FleetRow",
    "Objective",
    "PolicyRun",
    "fleet_row",
    "read_audit",
    "render_fleet",
    "render_html",
    "stylesheet",
]

CLOSE_UP = timedelta(minutes=40)
"""How much of the time before and after the worst minute is drawn."""
SHOWN_EVENTS = 20
SHOWN_PROBLEMS = 50
SHOWN_WORKLOADS = 10
"""Workloads of which a report of many tells everything; the others are rows of its table."""
WEEKLY_AFTER = timedelta(days=1, hours=1)

_pages = Environment(
    loader=PackageLoader("storage.reports"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_pages.filters.update(
    count=summary.count,
    seconds=summary.seconds,
    share=summary.share,
    signed_share=summary.signed_share,
    clock=summary.clock,
    stretch=summary.stretch,
    burn=summary.burn,
    reproduction_sentence=summary.reproduction_sentence,
    method_sentence=summary.method_sentence,
    budget_sentence=summary.budget_sentence,
    judged_sentence=summary.judged_sentence,
    duration=summary.duration,
    reason_words=words.reason_words,
    family=words.family,
    outcome_words=words.outcome_words,
    problem_words=words.problem_words,
    override_words=words.override_words,
    printable=words.printable,
)


@dataclass(frozen=True, slots=True)
class FleetRow:
    """One workload in the table of a report of many."""

    workload: str
    since: datetime
    until: datetime
    pod_hours: float
    clairvoyant_pod_hours: float | None
    cost: float | None
    excess: float | None
    burn: float | None
    met: bool | None
    minutes_over: int
    changes: int
    covered: timedelta

    @property
    def urgency(self) -> tuple[float, float, str]:
        """Of two rows the lower comes first: by error budget, then by GPU-hours."""
        return (-(self.burn or 0.0), -self.pod_hours, self.workload)


def render_html(report: AuditReport, helper: Executor | None = None) -> str:
    """The whole report of one workload as one HTML document; a helper draws half the pictures."""
    page = _pages.get_template("report.html.j2")
    return page.render(view=_view(report, helper=helper), close_up=_close_up_minutes())


def render_fleet(rows: Sequence[FleetRow], reports: Sequence[AuditReport]) -> str:
    """The report of many workloads: all of them in a table, and of the most urgent everything."""
    ranked = sorted(rows, key=lambda row: row.urgency)
    shown = sorted(reports, key=lambda report: fleet_row(report).urgency)[:SHOWN_WORKLOADS]
    anchors = {report.workload: f"workload-{index + 1}" for index, report in enumerate(shown)}
    return _pages.get_template("fleet.html.j2").render(
        title=f"Scaling audit: {len(rows)} workloads",
        headline=summary.fleet_headline(ranked),
        rows=ranked,
        anchors=anchors,
        priced=any(row.cost is not None for row in rows),
        views=[_view(report, anchors[report.workload]) for report in shown],
        close_up=_close_up_minutes(),
    )


def fleet_row(report: AuditReport) -> FleetRow:
    ours, price = report.runs[0], report.objective.price_per_pod_hour
    return FleetRow(
        workload=report.workload,
        since=report.since,
        until=report.until,
        pod_hours=ours.pod_hours,
        clairvoyant_pod_hours=report.clairvoyant_pod_hours,
        cost=None if price is None else ours.pod_hours * price,
        excess=ours.excess,
        burn=report.compliance.burn,
        met=report.compliance.met,
        minutes_over=report.compliance.minutes_over,
        changes=len(report.events),
        covered=summary.covered(report.minutes),
    )


def stylesheet() -> str:
    """The look that the report and the live page share."""
    path = resources.files("storage.reports") / "templates" / "page.css.j2"
    return path.read_text(encoding="utf-8")


def _close_up_minutes() -> int:
    return 2 * CLOSE_UP // timedelta(minutes=1)


def _view(report: AuditReport, anchor: str = "", helper: Executor | None = None) -> dict[str, Any]:
    """What the page shows of one workload; `anchor` keeps the ids of its pictures apart."""
    return {
        "report": report,
        "anchor": anchor,
        "headline": summary.headline(report),
        "figures": summary.figures(report),
        "comparisons": summary.comparisons(report),
        "pictures": _pictures(report, anchor, helper),
        "worst": report.worst,
        "worst_sentence": ""
        if report.worst is None
        else summary.worst_sentence(report.worst, report.objective),
        "explained": [
            (run.label, words.policy_words(run.policy) + summary.set_up(run, report.objective))
            for run in report.runs[1:]
        ],
        "events": _largest(report.events),
        "event_reasons": _by_reason(report.events),
        "doubtful": doubtful(report.problems),
        "problems": report.problems[:SHOWN_PROBLEMS],
        "decisions": sum(reason.decisions for reason in report.reasons),
    }


def _pictures(report: AuditReport, anchor: str, helper: Executor | None) -> dict[str, Markup]:
    """Each chart in a wide and a narrow form, of which the page shows the one that fits."""
    found: dict[str, Markup] = {}
    layouts = list(charts.LAYOUTS.values())
    draw: list[Callable[[], dict[str, str]]] = [partial(_drawn, report, one) for one in layouts]
    if helper is not None:
        # No chart shows a context, and those of a month weigh more than all else.
        bare = replace(report, minutes=replace(report.minutes, contexts=()))
        draw[-1] = helper.submit(_drawn_unchecked, bare, layouts[-1]).result
    for layout, drawn in zip(layouts, draw, strict=True):
        for name, svg in drawn().items():
            own = re.sub(r'(id="|url\(#)', rf"\1{anchor}-", svg) if anchor else svg
            box = Markup('<div class="{}">').format(layout.name) + Markup(own) + Markup("</div>")  # noqa: S704
            found[name] = found.get(name, Markup("")) + box
    return found


def _drawn_unchecked(report: AuditReport, layout: charts.Layout) -> dict[str, str]:
    """In a helper: the same charts are drawn, and where it is asked for checked, by the caller."""
    with charts.unchecked():
        return _drawn(report, layout)


def _drawn(report: AuditReport, layout: charts.Layout) -> dict[str, str]:
    line, qps = report.line, report.objective.qps_per_replica
    found = {
        "traffic": charts.traffic(line, qps, layout),
        "replicas": charts.replicas(line, qps, layout),
        "reasons": charts.reasons(line, layout),
    }
    worst = report.worst
    if worst is not None:
        near = line.between(worst.at - CLOSE_UP, worst.at + CLOSE_UP)
        if len(near):
            found["worst"] = charts.traffic(near, qps, layout, close_up=True)
    measured = [run for run in report.runs if run.minutes_p99_over_slo is not None]
    if measured:
        paths = [charts.LatencyPath(run.label, run.time, run.p99_by_minute) for run in measured]
        found["latency"] = charts.latency(paths, report.objective.slo_seconds, layout)
    if len(report.runs) > 1:
        bars = [charts.Bar(run.label, run.pod_hours) for run in report.runs]
        found["cost"] = charts.cost(bars, report.clairvoyant_pod_hours, layout)
    return found | _drawn_once(report, layout)


def _drawn_once(report: AuditReport, layout: charts.Layout) -> dict[str, str]:
    """What is drawn only where it has something to say."""
    found = {}
    if report.waterfall:
        found["waterfall"] = audit_charts.waterfall(report.waterfall, layout)
    if report.compliance.burn:
        found["budget"] = audit_charts.budget(report.minutes, report.objective, layout)
    if report.until - report.since > WEEKLY_AFTER:
        found["week"] = audit_charts.hours_of_week(report.minutes, layout)
    return found


def _largest(events: tuple[ScaleEvent, ...]) -> list[ScaleEvent]:
    """The events that moved most replicas, in the order of time."""
    ranked = sorted(events, key=lambda event: -abs(event.after - event.before))
    return sorted(ranked[:SHOWN_EVENTS], key=lambda event: event.at)


@dataclass(frozen=True, slots=True)
class _ReasonChanges:
    """What one reason moved: how often and by how many replicas, up and down."""

    reason: str
    ups: int
    downs: int
    added: int
    removed: int


def _by_reason(events: tuple[ScaleEvent, ...]) -> list[_ReasonChanges]:
    """The reason that moved most replicas first."""
    steps: dict[str, list[int]] = {}
    for event in events:
        steps.setdefault(event.reason, []).append(event.after - event.before)
    found = [
        _ReasonChanges(
            reason,
            sum(step > 0 for step in moved),
            sum(step < 0 for step in moved),
            sum(step for step in moved if step > 0),
            -sum(step for step in moved if step < 0),
        )
        for reason, moved in steps.items()
    ]
    return sorted(found, key=lambda one: (-one.added - one.removed, one.reason))


def doubtful(periods: tuple[ProblemPeriod, ...]) -> timedelta:
    """How long any input was in doubt; two at a time count once."""
    total, reached = timedelta(), datetime.min.replace(tzinfo=UTC)
    for one in sorted(periods, key=lambda period: period.since):
        total += max(timedelta(), one.until - max(one.since, reached))
        reached = max(reached, one.until)
    return total
