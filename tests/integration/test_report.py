"""The audit report on a day of decisions in a real log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from altair.utils import schemapi
from sqlalchemy import Engine

from policies.context import Problem, ProblemKind, ProblemSource
from policies.engine import decide
from storage.database import open_engine, upgrade
from storage.decisions import SqlDecisionStore
from storage.reports import charts, timeline
from storage.reports.findings import minute_grid
from storage.reports.minutes import read_minutes
from storage.reports.report import AuditReport, PolicyRun, read_audit, render_html
from tests.log_builder import MIDNIGHT, OBJECTIVE, OUTAGE, SURGE_AT, World, fill_log, policy_run
from tests.situations import NOON, flat_forecast, situation

UNTIL = MIDNIGHT + timedelta(days=1)
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>'\"&"
OPTIMUM = 1_150.0


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, World]]:
    """A day of decisions, one every 30 s."""
    engine = open_engine(f"sqlite:///{tmp_path_factory.mktemp('day') / 'daybreak.db'}")
    upgrade(engine)
    yield engine, fill_log(SqlDecisionStore(engine), interval_seconds=30)
    engine.dispose()


@pytest.fixture(scope="module")
def report(day: tuple[Engine, World]) -> AuditReport:
    engine, world = day
    return read_audit(
        engine,
        "grammar",
        MIDNIGHT,
        UNTIL,
        objective=OBJECTIVE,
        runs=three_runs(engine, world),
        clairvoyant_pod_hours=OPTIMUM,
    )


def three_runs(engine: Engine, world: World) -> tuple[PolicyRun, ...]:
    """Ours as logged, a reactive fleet four minutes late, and a fixed one."""
    minutes = read_minutes(engine, "grammar", MIDNIGHT, UNTIL)
    ours = minute_grid(minutes, minutes.ready, MIDNIGHT, UNTIL)
    need = np.ceil(world.traffic.values[:1440] / OBJECTIVE.qps_per_replica)
    late = np.concatenate([need[:4], need[:-4]]) * 1.1
    return (
        policy_run(world, "predictive", "predictive", ours, OPTIMUM),
        policy_run(world, "reactive", "asymmetric_concurrency", np.ceil(late), OPTIMUM),
        policy_run(world, "static peak", "static", np.full(1440, need.max()), OPTIMUM),
    )


class Page(HTMLParser):
    """The tags, texts and attributes of a document."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_inert(html: str) -> None:
    """Nothing to run and nothing to fetch."""
    page = Page(html)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    links = [value for name, value in page.attributes if name in ("href", "src", "xlink:href")]
    assert set(links) == {"data:,"}
    assert "@import" not in html
    addresses = set(re.findall(r"https?://[^\"'\s<>]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "default-src 'none'" in html


def test_a_report_is_one_inert_file_with_its_numbers(report: AuditReport) -> None:
    html = render_html(report)
    assert_inert(html)
    text = Page(html).text
    ours, reactive, static = report.runs
    for run in (ours, reactive, static):
        assert f"{run.pod_hours:,.0f}" in text
        assert run.label in text
    saved = static.pod_hours - ours.pod_hours
    assert f"{saved:,.0f} GPU-hours saved, {saved * 2.5:,.0f} at 2.5 per GPU-hour" in text
    assert "The worst minute" in text
    assert html.count('role="img"') == 16
    assert html.count("<caption>") == 8
    assert len(html) < 1_500_000


def test_ids_in_the_file_are_unique(report: AuditReport) -> None:
    html = render_html(report)
    ids = re.findall(r'\sid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)


def test_the_surge_is_the_worst_minute_and_was_not_foreseen(report: AuditReport) -> None:
    assert len(report.worst_minutes) == 1
    for worst in (report.worst, *report.worst_minutes):
        assert worst is not None
        assert abs(worst.at - SURGE_AT) < timedelta(minutes=12)
        assert worst.missing_replicas is not None
        assert worst.missing_replicas > 0
    assert "Demand had risen by" in report.worst_minutes[0].cause
    assert "not foreseen" in report.worst_minutes[0].cause


def test_the_outage_of_metrics_is_one_period_of_doubt(report: AuditReport) -> None:
    assert [(p.since, p.until, p.source, p.kind) for p in report.problems] == [
        (*OUTAGE, "demand", "Stale")
    ]


def test_a_doubt_that_lasts_to_the_end_counts_its_last_minute(day: tuple[Engine, World]) -> None:
    until = OUTAGE[0] + timedelta(minutes=5)
    found = read_audit(day[0], "grammar", MIDNIGHT, until, objective=OBJECTIVE)
    assert [(period.since, period.until) for period in found.problems] == [(OUTAGE[0], until)]


def test_the_forecast_is_judged_where_it_was_made_for(report: AuditReport) -> None:
    found = report.forecast
    assert found is not None
    assert 1_300 < found.minutes <= 1_440
    assert found.covered_ratio is not None
    assert 0.97 < found.covered_ratio < 1.0
    assert 0.0 < found.error_ratio < 0.05


def test_without_comparisons_the_log_speaks_for_itself(day: tuple[Engine, World]) -> None:
    alone = read_audit(day[0], "grammar", MIDNIGHT, UNTIL, objective=OBJECTIVE)
    ours = alone.runs[0]
    line = alone.line
    assert ours.pod_hours == pytest.approx(float(line.provisioned.mean()) * 24, rel=0.01)
    assert ours.bad_ratio is None
    html = render_html(alone)
    assert_inert(html)
    assert "GPU-hours used" in html
    assert html.count('role="img"') == 12


def test_a_stretch_without_decisions_is_refused(day: tuple[Engine, World]) -> None:
    with pytest.raises(ValueError, match="no decision of 'grammar'"):
        read_audit(day[0], "grammar", UNTIL, UNTIL + timedelta(days=1), objective=OBJECTIVE)


def test_hostile_names_are_text(tmp_path: Path, report: AuditReport) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'daybreak.db'}")
    upgrade(engine)
    world = fill_log(SqlDecisionStore(engine), HOSTILE, hours=1.0)
    found = read_audit(
        engine, HOSTILE, MIDNIGHT, MIDNIGHT + timedelta(hours=1), objective=OBJECTIVE
    )
    runs = tuple(replace(run, label=HOSTILE, policy=HOSTILE) for run in report.runs)
    for hostile in (found, replace(report, runs=runs, title=HOSTILE, workload=HOSTILE)):
        html = render_html(hostile)
        assert_inert(html)
        assert HOSTILE in Page(html).text
    assert len(world.recent)
    engine.dispose()


def test_a_timeline_is_thinned_without_losing_its_peaks(day: tuple[Engine, World]) -> None:
    engine = day[0]
    whole = timeline.timeline(engine, "grammar", MIDNIGHT, UNTIL)
    thin = timeline.timeline(engine, "grammar", MIDNIGHT, UNTIL, max_points=100)
    assert len(whole) == 2_880
    assert 90 <= len(thin) <= 100
    assert np.nanmax(thin.demand_qps) == np.nanmax(whole.demand_qps)
    assert np.nanmax(thin.latency_p99_seconds) == np.nanmax(whole.latency_p99_seconds)
    assert thin.time[-1] == whole.time[-1]
    assert timeline.problem_periods(thin)


def test_events_and_reasons_agree_with_the_timeline(report: AuditReport) -> None:
    assert sum(reason.decisions for reason in report.reasons) == 2_880
    assert sum(report.minutes.decisions) == 2_880
    assert all(event.before != event.after for event in report.events)
    chain = [event.after for event in report.events]
    assert [event.before for event in report.events[1:]] == chain[:-1]


def test_queries_answer_alike_on_each_database(engine: Engine) -> None:
    store = SqlDecisionStore(engine)
    fill_log(store, "a", hours=1.0)
    fill_log(store, "b", hours=0.5)
    assert timeline.workload_names(engine) == ("a", "b")
    line = timeline.timeline(engine, "a", MIDNIGHT, UNTIL, max_points=20)
    assert len(line) == 20
    assert len(timeline.last_decisions(engine, "b", 5)) == 5
    assert timeline.last_decisions(engine, "c", 5) == ()
    assert timeline.last_context(engine, "c") is None
    newest = timeline.last_decisions(engine, "a", 1)[0]
    assert newest.at == MIDNIGHT + timedelta(minutes=59)
    assert newest.steps[-1].replicas == newest.desired
    assert timeline.scale_events(engine, "a", MIDNIGHT, UNTIL)
    assert len(timeline.timeline(engine, "c", MIDNIGHT, UNTIL)) == 0


def test_a_message_may_hold_the_separator(engine: Engine) -> None:
    message = "a; b: forecast off; demand up"
    problems = (
        Problem(ProblemSource.FORECAST, ProblemKind.FORECAST_UNTRUSTED, message),
        Problem(ProblemSource.DEMAND, ProblemKind.PARTIAL, "two of three series"),
    )
    context = replace(situation(forecast=flat_forecast(9e3)), problems=problems)
    SqlDecisionStore(engine).record(context, decide(context))
    assert timeline.last_decisions(engine, "grammar", 1)[0].problems == (
        ("forecast", "ForecastUntrusted", message),
        ("demand", "Partial", "two of three series"),
    )


def test_a_single_decision_without_demand_can_be_drawn(engine: Engine) -> None:
    SqlDecisionStore(engine).record(situation(demand=None), decide(situation(demand=None)))
    line = timeline.timeline(engine, "grammar", NOON, NOON + timedelta(seconds=1))
    for svg in (
        charts.traffic(line, 1_000.0),
        charts.replicas(line, 1_000.0),
        charts.reasons(line),
        charts.latency([charts.LatencyPath("p", line.time, line.latency_p99_seconds)], None),
    ):
        assert svg.startswith("<svg")
        assert "NaN" not in svg


@pytest.mark.parametrize("minutes", [1, 5, 14, 16, 60, 600])
@pytest.mark.parametrize("layout", charts.LAYOUTS.values(), ids=list(charts.LAYOUTS))
def test_no_two_ticks_of_a_time_axis_are_named_alike(minutes: int, layout: charts.Layout) -> None:
    since = MIDNIGHT.timestamp() + 9 * 3600
    chart = charts.over_table("bins", charts.time_axis((since, since + 60 * minutes), layout))
    rows = {"bins": [{"t": since * 1000}, {"t": (since + 60 * minutes) * 1000}]}
    svg = charts.picture(chart.mark_point(), rows, layout, "a time axis")
    named = re.findall(r">(\d\d:\d\d(?::\d\d)?)<", svg)
    assert len(named) >= 2
    assert len(set(named)) == len(named)


def test_a_page_is_the_same_where_charts_are_not_checked(report: AuditReport) -> None:
    """The command leaves the check to the tests, which therefore must do it."""
    # Asked for: two threads that draw at once, as a server's, can leave altair's switch either way.
    with schemapi.debug_mode(True):
        checked = render_html(report)
    with charts.unchecked():
        assert not schemapi.DEBUG_MODE
        assert render_html(report) == checked
