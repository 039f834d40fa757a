"""The audit report: one HTML file that needs no network, no script and no explanation.

Knows the page. Its policy for what a browser may load is: nothing. Every text is escaped, since
names of workloads and policies come from files that others write.
"""

from __future__ import annotations

from datetime import timedelta
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from storage.reports import charts, summary, words
from storage.reports.audit import AuditReport, PolicyRun, read_audit
from storage.reports.findings import Objective
from storage.reports.timeline import ScaleEvent

__all__ = ["AuditReport", "Objective", "PolicyRun", "read_audit", "render_html", "stylesheet"]

CLOSE_UP = timedelta(minutes=40)
"""How much of the time before and after the worst minute is drawn."""
SHOWN_EVENTS = 20
SHOWN_PROBLEMS = 50

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
    reason_words=words.reason_words,
    family=words.family,
    outcome_words=words.outcome_words,
    problem_words=words.problem_words,
)


def render_html(report: AuditReport) -> str:
    """The whole report as one HTML document."""
    events = _largest(report.events)
    return _pages.get_template("report.html.j2").render(
        report=report,
        ours=report.runs[0],
        headline=summary.headline(report),
        figures=summary.figures(report),
        comparisons=summary.comparisons(report),
        pictures=_pictures(report),
        worst=report.worst,
        close_up=2 * CLOSE_UP // timedelta(minutes=1),
        events=events,
        problems=report.problems[:SHOWN_PROBLEMS],
        decisions=sum(reason.decisions for reason in report.reasons),
    )


def stylesheet() -> str:
    """The look that the report and the live page share."""
    path = resources.files("storage.reports") / "templates" / "page.css.j2"
    return path.read_text(encoding="utf-8")


def _pictures(report: AuditReport) -> dict[str, Markup]:
    """Each chart in a wide and a narrow form, of which the page shows the one that fits."""
    found: dict[str, Markup] = {}
    for layout in charts.LAYOUTS.values():
        for name, svg in _drawn(report, layout).items():
            box = Markup('<div class="{}">').format(layout.name) + Markup(svg) + Markup("</div>")  # noqa: S704
            found[name] = found.get(name, Markup("")) + box
    return found


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
    return found


def _largest(events: tuple[ScaleEvent, ...]) -> list[ScaleEvent]:
    """The events that moved most replicas, in the order of time."""
    ranked = sorted(events, key=lambda event: -abs(event.after - event.before))
    return sorted(ranked[:SHOWN_EVENTS], key=lambda event: event.at)
