"""The whole audit of a recorded day: its figures add up, and can be computed again."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from multiprocessing import freeze_support
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, text

from forecaster.forecast import QuantilePoint, WindowForecast
from policies.context import Problem, ProblemKind, ProblemSource
from policies.decision import Outcome, OutcomeKind
from policies.engine import decide
from scaler.audit import Measured, Period, audit, audits, helper_for, optimum_pod_hours
from simulator.clairvoyant import optimum_pod_slots
from storage.database import open_engine, upgrade
from storage.decisions import SqlDecisionStore
from storage.reports import charts
from storage.reports.audit import AuditReport, NoDecisionError
from storage.reports.came import came, came_by_minutes, metric_lag
from storage.reports.counterfactual import as_if, reference_settings, reproduction
from storage.reports.export import COLUMNS, audit_document, cell, csv_header, minutes_csv
from storage.reports.findings import (
    Compliance,
    Minute,
    Objective,
    bad_requests,
    compliance,
    forecast_quality,
    worst_minute,
)
from storage.reports.lookup import Reference, explained
from storage.reports.minutes import Minutes, read_minutes
from storage.reports.report import doubtful, fleet_row, render_fleet, render_html
from storage.reports.summary import budget_sentence, burn, duration, figures, share
from storage.reports.timeline import ProblemPeriod
from storage.retention import prune
from tests.integration.commands import run
from tests.integration.test_report import Page, assert_inert
from tests.log_builder import MIDNIGHT, OUTAGE, SURGE_AT, fill_log
from tests.situations import NOON, flat_forecast, situation

UNTIL = MIDNIGHT + timedelta(days=1)
HOSTILE = "=cmd()|'<script>alert(1)</script>\u202e\n\"&"


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A day of decisions, one every 20 s, and an hour of a workload with a hostile name."""
    engine = open_engine(f"sqlite:///{tmp_path_factory.mktemp('day') / 'daybreak.db'}")
    upgrade(engine)
    fill_log(SqlDecisionStore(engine), interval_seconds=20)
    fill_log(SqlDecisionStore(engine), HOSTILE, hours=1.0)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def report(day: Engine) -> AuditReport:
    return audit(day, Period("grammar", MIDNIGHT, UNTIL, price_per_pod_hour=3.0))


def test_the_policy_that_ran_is_reproduced_within_a_percent(report: AuditReport) -> None:
    found = report.reproduction
    assert found is not None
    assert abs(found.difference_ratio) < 0.01
    parts = found.draining + found.elsewhere + found.rest
    assert found.recorded - found.recomputed == pytest.approx(parts)
    assert found.recorded == report.runs[0].pod_hours


def test_what_others_changed_is_told_apart(tmp_path: Path) -> None:
    """In shadow mode somebody else decides: the difference is put down to that."""
    engine = open_engine(f"sqlite:///{tmp_path / 'daybreak.db'}")
    upgrade(engine)
    store = SqlDecisionStore(engine)
    for number in range(240):
        now = NOON + timedelta(seconds=15 * number)
        context = replace(situation(current=20, demand=9_000.0), now=now, epoch=number + 1)
        store.record_outcome(
            store.record(context, decide(context)), now, Outcome(OutcomeKind.SHADOW)
        )
    found = audit(engine, Period("grammar", NOON, NOON + timedelta(hours=1))).reproduction
    engine.dispose()
    assert found is not None
    assert found.recorded == pytest.approx(20.0)
    assert found.difference_ratio < -0.3
    assert found.elsewhere == pytest.approx(found.recorded - found.recomputed, rel=0.02)
    assert abs(found.rest) < 0.15


def test_where_nobody_else_changed_anything_nothing_is_put_down_to_it(day: Engine) -> None:
    """Not in a ramp either, in which each decision asks for more than runs."""
    ramp = Period("grammar", MIDNIGHT + timedelta(hours=6), MIDNIGHT + timedelta(hours=9))
    found = audit(day, ramp)
    assert found.reproduction is not None
    assert found.reproduction.elsewhere == 0.0
    once = as_if(found.minutes, reference_settings(found.minutes)["static"])
    assert abs(reproduction(found.minutes, once, None).elsewhere) < 0.05


def test_the_waterfall_adds_up(report: AuditReport) -> None:
    first, *between, last = report.waterfall
    assert first.pod_hours == report.clairvoyant_pod_hours
    assert last.pod_hours == pytest.approx(report.runs[0].pod_hours)
    total = first.pod_hours + sum(one.pod_hours for one in between)
    assert total == pytest.approx(last.pod_hours)


def test_the_optimum_is_the_clairvoyants(report: AuditReport) -> None:
    minutes = report.minutes
    need = np.nan_to_num(minutes.need)
    outage = np.isnan(minutes.need)
    assert outage.sum() == (OUTAGE[1] - OUTAGE[0]) / timedelta(minutes=1)
    need[outage] = need[np.flatnonzero(outage)[0] - 1]
    # A lead time of 150 s is two and a half minutes.
    slots = optimum_pod_slots(need.astype(np.int64), 2)
    assert report.clairvoyant_pod_hours == optimum_pod_hours(minutes) == slots / 60
    assert all(run.excess is not None and run.excess > 0 for run in report.runs)


def test_the_fixed_fleet_carries_every_minute(report: AuditReport) -> None:
    static = next(run for run in report.runs if run.policy == "static")
    assert (static.short_minutes, static.scale_ups) == (0, 0)
    assert static.pod_hours == static.max_replicas * 24
    assert static.max_replicas == np.nanmax(report.minutes.need)


def test_reactive_policies_come_a_cold_start_late(report: AuditReport) -> None:
    """After a jump, what they order serves a cold start later and no sooner."""
    minutes = report.minutes
    jump = replace(minutes, demand_qps=np.where(minutes.time < SURGE_AT.timestamp(), 2e4, 6e4))
    settings = reference_settings(jump)
    assert {"asymmetric_concurrency", "hpa"} <= set(settings)
    for name in ("asymmetric_concurrency", "hpa"):
        run = as_if(jump, settings[name])
        first = int(np.searchsorted(jump.time, SURGE_AT.timestamp()))
        asked = first + int(np.argmax(run.desired[first:] > run.desired[first - 1]))
        assert asked == first
        assert run.ready[asked + 1] == run.ready[asked - 1]
        assert run.ready[asked + 3] > run.ready[asked - 1]


def test_the_error_budget_counts_minutes_over_the_objective(report: AuditReport) -> None:
    found, minutes = report.compliance, report.minutes
    over = minutes.latency_p99_seconds > 1.0
    assert found.minutes_over == over.sum() > 0
    assert found.bad_requests == pytest.approx(np.nansum(minutes.demand_qps[over]) * 60)
    assert found.burn == pytest.approx(found.bad_requests / (found.requests * 1e-4))
    assert found.minutes_unknown == 12
    # So many at most: that the budget was overspent is not known.
    assert found.burn is not None
    assert (found.exact, found.burn > 1, found.met) == (False, True, None)
    assert "It may have been overspent" in render_html(report)


def test_without_latency_a_short_minute_is_a_bad_one(day: Engine) -> None:
    minutes = read_minutes(day, "grammar", MIDNIGHT, UNTIL)
    blind = replace(minutes, latency_p99_seconds=np.full(len(minutes), np.nan))
    short = np.nan_to_num(minutes.need) > minutes.ready
    assert short.any()
    found = _compliance(blind)
    assert found.bad_requests == pytest.approx(minutes.demand_qps[short].sum() * 60)
    failing = replace(blind, errors_qps=np.full(len(minutes), 1.0), ready=blind.ready + 999)
    assert _compliance(failing).bad_requests == 1440 * 60
    broken = replace(failing, errors_qps=failing.demand_qps)
    assert _compliance(broken).met is False


def _calm(report: AuditReport) -> Minutes:
    """The day with every request served in time; in the outage demand is not known."""
    return replace(report.minutes, latency_p99_seconds=np.full(len(report.minutes), 0.5))


def test_bad_minutes_count_though_demand_was_not_known(report: AuditReport) -> None:
    """At the last demand that was, so that an outage is not a perfect quarter of an hour."""
    calm = _calm(report)
    outage = np.isnan(calm.demand_qps)
    last_known = calm.demand_qps[np.flatnonzero(outage)[0] - 1]
    late = replace(calm, latency_p99_seconds=np.where(outage, 8.0, 0.5))
    found = _compliance(late)
    assert found.bad_requests == pytest.approx(last_known * 12 * 60)
    assert found.requests == pytest.approx((np.nansum(calm.demand_qps) + last_known * 12) * 60)
    assert (found.minutes_unknown, found.minutes_assumed, found.minutes_blind) == (12, 12, 0)
    assert found.met is None
    assert "12 minutes that went badly while demand was not known" in budget_sentence(found)
    failing = _compliance(replace(calm, errors_qps=np.where(outage, 5_000.0, 0.0)))
    assert failing.bad_requests == failing.failed_requests == 5_000 * 12 * 60
    assert failing.met is False


def test_where_demand_was_never_known_no_budget_is_kept(report: AuditReport) -> None:
    never = np.full(len(report.minutes), np.nan)
    unseen = replace(report.minutes, demand_qps=never, latency_p99_seconds=never)
    late, failing = np.full(len(never), 8.0), np.ones(len(never))
    found = _compliance(replace(unseen, latency_p99_seconds=late, errors_qps=failing))
    assert (found.requests, found.burn, found.met) == (0.0, None, None)
    assert found.failed_requests == 1_440 * 60
    assert "P99 was over the objective in 1,440 minutes" in budget_sentence(found)
    assert "nothing can be said" in budget_sentence(_compliance(unseen))


def test_minutes_of_which_nothing_is_known_leave_the_answer_open(report: AuditReport) -> None:
    calm = _calm(report)
    outage = np.isnan(calm.demand_qps)
    # Whose latency was measured and good needs no demand.
    assert (_compliance(calm).met, budget_sentence(_compliance(calm))) == (True, "It was kept.")
    blind = replace(calm, latency_p99_seconds=np.where(outage, np.nan, 0.5))
    found = _compliance(blind)
    assert (found.burn, found.met, found.minutes_blind) == (0.0, None, 12)
    assert "It cannot be said" in budget_sentence(found)
    assert "Of 12 of 1,440 minutes neither demand nor latency" in budget_sentence(found)
    # Twelve minutes in a day are less than a budget of 2 %.
    assert compliance(blind, Objective(1.0, 1_000.0, good_ratio=0.98), 1440).met is True


def test_requests_of_a_hole_in_the_log_are_not_made_up(report: AuditReport) -> None:
    """GPU-hours count on through it, since replicas stay; what came in it nobody knows."""
    calm = _calm(report)
    later = np.arange(len(calm)) > 600
    p99 = np.where(np.arange(len(calm)) == 600, 3.0, 0.5)
    hole = replace(calm, time=calm.time + 13 * 60.0 * later, latency_p99_seconds=p99)
    found = compliance(hole, Objective(1.0, 1_000.0), 1453)
    assert found.bad_requests == pytest.approx(calm.demand_qps[600] * 60)
    assert (found.minutes_unknown, found.minutes_blind) == (25, 13)
    # Before the log began nobody promised anything.
    assert compliance(hole, Objective(1.0, 1_000.0), 5000).minutes_blind == 13
    assert hole.hours(hole.ready) > calm.hours(calm.ready)
    assert bad_requests(hole, Objective(1.0, 1_000.0)).sum() == found.bad_requests


@pytest.mark.parametrize(
    ("bad", "met", "verdict"), [(0.0, True, "kept"), (9e5, False, "overspent")]
)
def test_measured_requests_leave_no_doubt(
    day: Engine, report: AuditReport, bad: float, met: bool, verdict: str
) -> None:
    """The log's P99 says that minutes were over the objective, every request says how bad."""
    run = replace(
        report.runs[0],
        p99_by_minute=np.where(report.runs[0].p99_by_minute > 1.0, 1.5, 0.5),
        bad_by_minute=np.where(report.runs[0].p99_by_minute > 1.0, bad, 0.0),
    )
    found = audit(day, Period("grammar", MIDNIGHT, UNTIL), Measured((run,), 1_000.0))
    over = report.compliance.minutes_over
    assert (found.compliance.exact, found.compliance.met) == (True, met)
    assert found.compliance.bad_requests == bad * over
    assert found.compliance.minutes_over == over
    assert found.worst_minutes[0].p99_seconds == 1.5
    assert audit_document(found)["compliance"]["estimate"] == "exact"
    page = Page(render_html(found)).text
    assert f"It was {verdict}." in page
    assert "at most" not in page.split("The objective and its error budget")[1].split("Latency")[0]


def test_the_worst_of_good_minutes_has_a_cause_too(day: Engine, report: AuditReport) -> None:
    calm = replace(report.runs[0], p99_by_minute=np.full(1440, 0.5), bad_by_minute=np.zeros(1440))
    index = int((SURGE_AT - MIDNIGHT) / timedelta(minutes=1)) + 7
    calm.p99_by_minute[index] = 0.9
    at = MIDNIGHT + timedelta(minutes=index)
    calm = replace(calm, worst_minute_at=at, worst_minute_p99=0.9)
    worst = audit(day, Period("grammar", MIDNIGHT, UNTIL), Measured((calm,), 1_000.0)).worst
    assert worst is not None
    assert worst.at == at
    assert "met the objective" in worst.cause
    assert "more than forecast came" in worst.cause
    assert "Demand had risen by" in worst.cause


def test_minutes_over_are_told_of_those_measured(report: AuditReport) -> None:
    p99 = report.runs[0].p99_by_minute.copy()
    p99[:1_200] = np.nan
    told = figures(replace(report, runs=(replace(report.runs[0], p99_by_minute=p99),)))
    assert any(figure.note.startswith("Of 240 measured.") for figure in told)


def test_the_first_lines_tell_the_worst_minute_and_what_the_others_do(report: AuditReport) -> None:
    html = render_html(report)
    assert report.worst is not None
    lead, _ = html.split('<div class="figures">')
    assert f"The worst minute was {report.worst.at:%d %b %H:%M} UTC, with a P99 of" in lead
    assert "not foreseen" in lead
    assert "<strong>HPA</strong>: Kubernetes" in html
    shown = html.replace("\N{NARROW NO-BREAK SPACE}", " ")
    assert shown.count("(targetQps 850, 85 % of what one carries)") == 2
    assert f"(replicas {report.runs[1].max_replicas})" in shown


def test_by_a_forecast_that_was_not_trusted_nothing_was_ordered(report: AuditReport) -> None:
    minutes = report.minutes
    met = came_by_minutes(minutes)
    never = replace(minutes, trusted=np.zeros(len(minutes)))
    quality = forecast_quality(never, met)
    assert quality is not None
    assert (quality.covered_ratio, quality.trusted_ratio) == (None, 0.0)
    surge = np.abs(minutes.time - SURGE_AT.timestamp()) < 3600
    some = forecast_quality(replace(minutes, trusted=minutes.decisions * ~surge), met)
    assert some is not None
    # Of the hours that were not as forecast, none is one that was ordered for.
    assert some.covered_ratio == 1.0
    assert report.worst is not None
    at = report.worst.at
    told = worst_minute(Minute(at, 9.0, 99_000.0, 10.0), never, report.objective)
    assert told.forecast_trusted is False
    assert "Its forecast was not trusted" in told.cause


def test_a_part_of_a_replica_is_not_one_that_was_missing(report: AuditReport) -> None:
    """Else a minute that met its objective would be told as short of a replica."""
    noon = MIDNIGHT + timedelta(hours=12)
    for demand, missing in ((10_300.0, 0), (10_700.0, 1), (9_000.0, 0)):
        found = worst_minute(Minute(noon, 0.99, demand, 10.0), report.minutes, report.objective)
        assert found.missing_replicas == missing


def test_doubts_at_one_time_count_once() -> None:
    def period(first: int, last: int) -> ProblemPeriod:
        since, until = (NOON + timedelta(minutes=at) for at in (first, last))
        return ProblemPeriod(since, until, "demand", "Stale", "")

    periods = (period(0, 10), period(5, 20), period(7, 9), period(60, 61))
    assert doubtful(periods) == timedelta(minutes=21)
    assert duration(timedelta(minutes=340)) == "5 h 40 min"
    assert duration(timedelta()) == "0 min"


def test_over_days_no_day_is_named_twice() -> None:
    spans = [(0.0, days * 86_400.0) for days in (2, 7, 31)]
    ticks: list[Any] = [charts.time_axis(span, charts.WIDE).to_dict() for span in spans]
    assert [tick["axis"]["tickCount"] for tick in ticks] == [
        10,
        {"interval": "day", "step": 1},
        {"interval": "day", "step": 3},
    ]


def _compliance(minutes: Minutes) -> Compliance:
    return compliance(minutes, Objective(1.0, 1_000.0), 1440)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Six hours of demand that is as likely anywhere in a range, and a forecast that knows it:
    the highest of the three values that an order's 45 s will show."""
    engine = open_engine(f"sqlite:///{tmp_path_factory.mktemp('even') / 'daybreak.db'}")
    upgrade(engine)
    store, chance = SqlDecisionStore(engine), np.random.default_rng(1)
    levels = (0.05, 0.5, 0.9, 0.95, 0.99)
    points = tuple(QuantilePoint(level, 5_000 + 5_000 * level ** (1 / 3)) for level in levels)
    for number, demand in enumerate(chance.uniform(5_000, 10_000, 6 * 240)):
        now = NOON + timedelta(seconds=15 * number)
        starts = now + timedelta(seconds=180)
        order = WindowForecast(
            "order", starts, starts + timedelta(seconds=45), points[1].qps, 0.2, points
        )
        forecast = replace(flat_forecast(9_000.0), issued_at=now, windows=(order,))
        context = replace(situation(demand=float(demand), forecast=forecast), now=now)
        context = replace(context, observation=replace(context.observation, at=now))
        store.record(replace(context, epoch=number + 1), decide(context))
    yield engine
    engine.dispose()


def _six_hours(engine: Engine) -> AuditReport:
    return audit(engine, Period("grammar", NOON, NOON + timedelta(hours=6)))


def test_a_forecast_that_is_right_is_told_so(calibrated: Engine, tmp_path: Path) -> None:
    """Spans of 45 s are not judged on the peaks of whole minutes, which are higher."""
    found = _six_hours(calibrated)
    assert found.forecast is not None
    assert found.forecast.minutes_estimated == 0
    for one in found.coverage:
        assert one.observed == pytest.approx(one.level, abs=0.05)
    assert "decisions within that span saw." in render_html(found)
    copy = tmp_path / "daybreak.db"
    with calibrated.begin() as connection:
        connection.execute(text(f"VACUUM INTO '{copy}'"))
    pruned = open_engine(f"sqlite:///{copy}")
    prune(pruned, NOON + timedelta(days=9), timedelta(hours=2))
    estimated = _six_hours(pruned)
    pruned.dispose()
    assert estimated.forecast is not None
    assert 230 < estimated.forecast.minutes_estimated < 245
    assert f"for {estimated.forecast.minutes_estimated} of " in render_html(estimated)
    for one, before in zip(estimated.coverage, found.coverage, strict=True):
        assert one.observed == pytest.approx(before.observed, abs=0.1)


def test_of_a_long_period_the_newest_decisions_are_read(
    calibrated: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    minutes = read_minutes(calibrated, "grammar", NOON, NOON + timedelta(hours=6))
    every = came(calibrated, minutes, 15.0)
    monkeypatch.setattr("storage.reports.came.MOST_READ", 400)
    newest = came(calibrated, minutes, 15.0)
    assert 0 < newest.exact.sum() < every.exact.sum()
    assert newest.exact.argmax() > every.exact.argmax()
    np.testing.assert_array_equal(newest.qps[newest.exact], every.qps[newest.exact])


def test_report_and_explanation_tell_the_same_of_what_came(calibrated: Engine) -> None:
    minutes = read_minutes(calibrated, "grammar", NOON, NOON + timedelta(hours=6))
    found = came(calibrated, minutes, metric_lag(calibrated, minutes))
    for index in range(0, 356, 50):
        last_of_minute = Reference(None, "grammar", minutes.at(index) + timedelta(seconds=59))
        told = explained(calibrated, last_of_minute).aftermath.demand_qps
        assert found.qps[index] == told
    assert np.isnan(found.qps[-3:]).all()


def test_what_came_in_a_hole_of_the_log_is_not_known(calibrated: Engine, tmp_path: Path) -> None:
    copy = tmp_path / "daybreak.db"
    with calibrated.begin() as connection:
        connection.execute(text(f"VACUUM INTO '{copy}'"))
    engine = open_engine(f"sqlite:///{copy}")
    with engine.begin() as connection:
        gone = "at > '2026-03-16 12:30:15' AND at < '2026-03-16 12:31:15'"
        connection.execute(text(f"DELETE FROM decision WHERE {gone}"))
        seen = "at = '2026-03-16 13:30:15.000000'"
        connection.execute(text(f"UPDATE decision SET demand_qps = NULL WHERE {seen}"))
    minutes = read_minutes(engine, "grammar", NOON, NOON + timedelta(hours=6))
    whole = came(calibrated, minutes, 15.0).qps
    found = came(engine, minutes, 15.0).qps
    engine.dispose()
    differing = np.flatnonzero(~np.isclose(whole, found, equal_nan=True))
    assert len(differing)
    assert np.isnan(found[differing]).all()
    # Made three and four minutes before.
    assert set(differing.tolist()) <= {26, 27, 28, 86, 87}
    assert {26, 86} <= set(differing.tolist())


def test_stated_quantiles_are_told_in_their_order(report: AuditReport) -> None:
    levels = [one.level for one in report.coverage]
    assert levels == sorted(levels)
    assert [one.observed for one in report.coverage] == sorted(c.observed for c in report.coverage)


def test_the_document_carries_every_figure(report: AuditReport) -> None:
    document = json.loads(json.dumps(audit_document(report), allow_nan=False))
    assert document["cost"] == pytest.approx(3 * report.runs[0].pod_hours)
    assert [run["policy"] for run in document["runs"]] == [run.policy for run in report.runs]
    settings = {run["policy"]: run["parameters"] for run in document["runs"]}
    capacity = report.objective.qps_per_replica
    assert settings == {
        "as recorded": None,
        "static": {"replicas": report.runs[1].max_replicas},
        "asymmetric_concurrency": {"targetQps": 0.85 * capacity},
        "hpa": {"targetQps": 0.85 * capacity},
    }
    assert document["compliance"]["burn"] == report.compliance.burn
    assert document["problems"][0]["since"] == OUTAGE[0].isoformat()
    assert document["reproduction"]["difference_ratio"] < 0.01
    assert sum(document["reasons"].values()) == 4_320


def test_the_csv_has_a_line_a_minute(report: AuditReport) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_header() + minutes_csv(report))))
    assert len(rows) == 1_440
    assert tuple(rows[0]) == COLUMNS
    assert rows[0]["minute"] == MIDNIGHT.isoformat()
    blind = rows[int((OUTAGE[0] - MIDNIGHT) / timedelta(minutes=1)) + 1]
    assert (blind["demand_qps"], blind["needed"]) == ("", "")
    assert "newest sample is 240 s old" in blind["problems"]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", HOSTILE])
def test_no_cell_is_a_formula_or_more_than_a_line(text: str) -> None:
    shown = cell(text)
    assert not shown.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert shown.isprintable()


def test_hostile_names_are_inert_in_every_form(day: Engine) -> None:
    found = audit(day, Period(HOSTILE, MIDNIGHT, MIDNIGHT + timedelta(hours=1)))
    html = render_html(found)
    assert_inert(html)
    assert HOSTILE in Page(html).text
    rows = list(csv.reader(io.StringIO(csv_header() + minutes_csv(found))))
    assert len(rows) == 61
    assert {row[0] for row in rows[1:]} == {"'" + HOSTILE.replace("\n", "\\n").replace(
        "\u202e", "\\u202e")}  # fmt: skip
    assert json.loads(json.dumps(audit_document(found)))["workload"] == HOSTILE


def test_a_megabyte_in_a_label_bursts_nothing(engine: Engine) -> None:
    store = SqlDecisionStore(engine)
    huge = "<b>" + "x" * 1_000_000
    problem = Problem(ProblemSource.DEMAND, ProblemKind.PARTIAL, huge)
    context = replace(situation(), problems=(problem,))
    store.record(context, decide(context))
    found = audit(engine, Period("grammar", NOON, NOON + timedelta(minutes=1)))
    html = render_html(found)
    assert_inert(html)
    assert len(html) < 1_000_000
    assert len(minutes_csv(found)) < 2_000


def test_many_workloads_are_one_page(day: Engine, report: AuditReport) -> None:
    other = audit(day, Period(HOSTILE, MIDNIGHT, UNTIL))
    html = render_fleet([fleet_row(other), fleet_row(report)], [other, report])
    assert_inert_fleet(html)
    page = Page(html)
    assert HOSTILE in page.text
    ids = re.findall(r'\sid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)
    anchors = set(re.findall(r'href="#([^"]+)"', html))
    assert anchors == {"workload-1", "workload-2"} <= set(ids)
    # The one that overspent its budget most comes first.
    assert page.text.index("grammar") < page.text.index(HOSTILE)


def assert_inert_fleet(html: str) -> None:
    """As one workload's page is, but for links within it."""
    assert_inert(re.sub(r'href="#workload-\d+"', 'href="data:,"', html))


def test_many_are_computed_side_by_side_alike(day: Engine, report: AuditReport) -> None:
    periods = [
        Period("grammar", MIDNIGHT - timedelta(days=9), UNTIL, price_per_pod_hour=3.0),
        Period("grammar", MIDNIGHT, UNTIL, price_per_pod_hour=3.0),
        Period("nobody", MIDNIGHT, UNTIL),
    ]
    _, found, nobody = audits(day, periods, workers=2)
    assert nobody is None
    assert found is not None
    assert json.dumps(audit_document(found)) == json.dumps(audit_document(report))


def test_a_long_period_is_computed_side_by_side_alike(
    day: Engine, report: AuditReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scaler.audit.WORTH_PROCESSES", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    period = Period("grammar", MIDNIGHT, UNTIL, price_per_pod_hour=3.0)
    with helper_for([period], freeze_support) as helper:
        assert helper is not None
        (found,) = audits(day, [period], helper=helper)
        assert found is not None
        page = render_html(found, helper.pool)
    assert json.dumps(audit_document(found)) == json.dumps(audit_document(report))
    assert page == render_html(report)


def test_of_a_long_period_every_so_many_minutes_are_judged(
    day: Engine, report: AuditReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the page says of how many."""
    monkeypatch.setattr("scaler.audit.MOST_JUDGED", 500)
    found = audit(day, Period("grammar", MIDNIGHT, UNTIL, price_per_pod_hour=3.0))
    for few, all_of_them in zip(found.coverage, report.coverage, strict=True):
        assert all_of_them.minutes / 3 == pytest.approx(few.minutes, abs=2)
        assert few.observed == pytest.approx(all_of_them.observed, abs=0.02)
    assert f"Share of {found.coverage[0].minutes} minutes at or below" in render_html(found)


def test_a_brief_audit_makes_the_same_row(day: Engine, report: AuditReport) -> None:
    """Of very many only these rows are shown, so that nothing else need be computed."""
    period = Period("grammar", MIDNIGHT, UNTIL, price_per_pod_hour=3.0, brief=True)
    found = audit(day, period)
    assert fleet_row(found) == fleet_row(report)
    assert [run.policy for run in found.runs] == ["as recorded"]
    assert found.reproduction is None


def test_very_many_are_told_in_brief_and_the_first_whole(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'daybreak.db'}")
    upgrade(engine)
    for number in range(12):
        fill_log(SqlDecisionStore(engine), f"w{number:02}", hours=0.5)
    url, page = str(engine.url), tmp_path / "page.html"
    engine.dispose()
    ended = run("report", "--database", url, "--html", str(page))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("the fleet used") == 12
    html = page.read_text()
    assert html.count("<section id=") == html.count("Check: each of the 30 decisions") == 10
    assert all(f"w{number:02}" in html for number in range(12))


def test_only_the_first_of_very_many_are_told_whole(
    report: AuditReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.reports.report.SHOWN_WORKLOADS", 2)  # each takes seconds
    many = [replace(report, workload=f"w{number:04}", runs=report.runs[:1]) for number in range(9)]
    html = render_fleet([fleet_row(one) for one in many], many)
    assert html.count("<section id=") == 2
    assert html.count("w0008") == 1


@pytest.mark.parametrize(
    ("ratio", "shown"),
    [
        (0.0, "0 %"),
        (1e-5, "0.001 %"),
        (0.9999, "99.99 %"),
        (0.99996, "99.996 %"),
        (1.0, "100 %"),
        (0.25, "25 %"),
    ],
)
def test_shares_near_all_are_not_rounded_to_all(ratio: float, shown: str) -> None:
    assert share(ratio).replace("\N{NARROW NO-BREAK SPACE}", " ") == shown


def test_a_budget_that_is_overspent_many_times_says_so() -> None:
    assert burn(127.04) == "127 times"


def test_nothing_logged_is_an_error_of_its_own(day: Engine) -> None:
    with pytest.raises(NoDecisionError, match="no decision of 'grammar'"):
        audit(day, Period("grammar", UNTIL, UNTIL + timedelta(days=1)))


def test_a_demand_that_nobody_knew_is_compared_with_nothing(engine: Engine) -> None:
    """Else the least that it could have cost would be nothing."""
    context = situation(demand=None)
    SqlDecisionStore(engine).record(context, decide(context))
    found = audit(engine, Period("grammar", NOON, NOON + timedelta(minutes=1)))
    assert [run.policy for run in found.runs] == ["as recorded"]
    assert (found.clairvoyant_pod_hours, found.runs[0].excess) == (None, None)
    assert found.waterfall == ()
    assert_inert(render_html(found))


def test_contexts_that_cannot_be_read_cost_no_report(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'daybreak.db'}")
    upgrade(engine)
    fill_log(SqlDecisionStore(engine), hours=1.0)
    with engine.begin() as connection:
        connection.execute(text("UPDATE minute SET context = x'00', qps_per_replica = NULL"))
        connection.execute(text("UPDATE decision SET context = x'00'"))
    found = audit(engine, Period("grammar", MIDNIGHT, MIDNIGHT + timedelta(hours=1)))
    assert found.reproduction is None
    assert_inert(render_html(found))
    engine.dispose()


def test_the_command_writes_every_form(day: Engine, tmp_path: Path) -> None:
    url = str(day.url)
    files = {name: tmp_path / f"report.{name}" for name in ("html", "json", "csv")}
    arguments = [f"--{name}={path}" for name, path in files.items()]
    twice = ["--workload", "grammar"] * 2
    ended = run("report", "--database", url, *twice, *arguments)
    assert ended.returncode == 0, ended.stderr
    assert "grammar: Over 24 hours the fleet used" in ended.stdout
    assert_inert(files["html"].read_text())
    (document,) = json.loads(files["json"].read_text())["workloads"]
    assert document["workload"] == "grammar"
    assert len(files["csv"].read_text().splitlines()) == 1_441
    both = run("report", "--database", url, "--period", "week", "--json", "-")
    assert [one["workload"] for one in json.loads(both.stdout)["workloads"]] == [HOSTILE, "grammar"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--workload", "nobody"], "--workload: ['nobody'] not in the log; there are: "),
        (["--period", "year"], "--period: expected one of day, week, month, quarter, got 'year'"),
        (["--since", "2030-01-01"], "--since: 2030-01-01 00:00:00+00:00 is not before"),
        (["--since", "2030-01-01"], ", where the minute of the newest decision ends"),
        (["--since", "2026-03-16", "--period", "day"], "--period: not with --since, got both"),
        (["--until", "2020-01-01"], "the log holds no decision from"),
        (["--until", "soon"], "--until: expected an ISO-8601 time, got 'soon'"),
        (["--html", "/nowhere/r.html"], "cannot write /nowhere/r.html"),
    ],
)
def test_bad_input_is_named(day: Engine, arguments: list[str], expected: str) -> None:
    ended = run("report", "--database", str(day.url), *arguments)
    assert ended.returncode == 2
    assert expected in ended.stderr
    assert "Traceback" not in ended.stderr
