"""The counterfactual of the policy that ran reproduces what happened, on a measured day.

The daemon's wiring serves a day of real traffic at 200,000 requests a second on a simulated fleet,
whose replicas each start in a time of their own and drain. From the log that it leaves, the report
decides everything again in its simpler world, and must come to the GPU-hours that were recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine

from scaler.audit import Period, audit
from scaler.demo.service import COLD_START, PROFILE
from scaler.loop import Ports
from scaler.settings import Settings
from scaler.wiring import Watch, build_rounds, open_log
from simulator.clock import VirtualClock, run_jobs
from simulator.fleet import FleetSettings, SimulatedFleet
from simulator.lifecycle import ColdStart, Lifecycle
from simulator.replay import Scenario, reactive_parameters
from simulator.traces.edit import scaled_to_peak
from storage.decisions import SqlDecisionStore
from storage.reports.audit import AuditReport
from storage.reports.counterfactual import as_it_ran
from storage.reports.minutes import decisions_of
from storage.reports.report import render_html
from storage.reports.summary import reproduction_sentence
from storage.retention import prune
from tests.traffic import real_trace

DAY = datetime(2025, 1, 10, tzinfo=UTC)
"""The day on which its bursts begin; the days before are history."""
CAPACITY = int(PROFILE.capacity_within(1.0))
POLICIES = {
    "predictive": {},
    "hpa": {},
    "asymmetric_concurrency": reactive_parameters(PROFILE, CAPACITY),
}
HOURS = {"predictive": 24, "hpa": 12, "asymmetric_concurrency": 12}
"""Ours the whole day; of those that only react the half of it tells as much."""


@dataclass(frozen=True)
class Served:
    """What was served from the beginning of the day, and its audit."""

    engine: Engine
    fleet: SimulatedFleet
    report: AuditReport
    until: datetime

    @property
    def decisions(self) -> int:
        """One every 15 s."""
        return int((self.until - DAY).total_seconds()) // 15


@pytest.fixture(scope="module", params=list(POLICIES))
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    plan = _plan(DAY + timedelta(hours=HOURS[request.param]))
    settings = _settings(request.param, tmp_path_factory.mktemp("day") / "daybreak.db")
    engine = open_log(settings.database.resolved_url())
    fleet, clock = plan.new_fleet(), VirtualClock(DAY)
    ports = Ports(fleet, fleet, SqlDecisionStore(engine))
    rounds = build_rounds(settings, lambda _: ports, Watch(settings, clock))
    jobs = rounds.jobs(settings.interval_seconds, settings.refit_interval_seconds)
    run_jobs(jobs, clock, plan.until, fleet.advance)
    report = audit(engine, Period("grammar", DAY, plan.until))
    yield Served(engine, fleet, report, plan.until)
    engine.dispose()


def _plan(until: datetime) -> Scenario:
    traffic = scaled_to_peak(real_trace("servegen_msmall_10min"), 200_000.0)
    first = float(traffic.between(DAY, until).values[0])
    replicas = int(-(-first * 1.2 // CAPACITY))
    lifecycle = Lifecycle(ColdStart((COLD_START,)))
    fleet = FleetSettings(lifecycle, COLD_START.p95_seconds, replicas, seed=1)
    return Scenario(traffic, DAY, until, fleet, PROFILE)


def _settings(policy: str, database: Path) -> Settings:
    workload = {
        "name": "grammar",
        "target": {"name": "grammar", "namespace": "llm", "mode": "scale"},
        "demand": {"query": "sum(rate(gateway_requests_total[1m]))"},
        "history": {"days": 5},
        "capacity": {"qpsPerReplica": CAPACITY},
        "leadTime": {"p50Seconds": COLD_START.p50_seconds, "p95Seconds": COLD_START.p95_seconds},
        "policy": {"name": policy, "parameters": POLICIES[policy]},
        "minReplicas": 2,
        "maxReplicas": 400,
    }
    document = {
        "prometheus": {"url": "http://embedded.invalid"},
        "database": {"url": f"sqlite:///{database}"},
        "workers": 1,
        "workloads": [workload],
    }
    return Settings.model_validate(document)


def test_the_policy_that_ran_comes_to_what_was_recorded_on_a_measured_day(served: Served) -> None:
    found = served.report.reproduction
    assert found is not None
    assert served.fleet.scale_ups > 20  # a fleet that stands still would prove nothing
    assert (found.since, found.until, found.decisions) == (DAY, served.until, served.decisions)
    assert abs(found.difference_ratio) < 0.01
    # The log itself tells what the simulated fleet was billed for, second by second.
    assert found.recorded == served.report.runs[0].pod_hours
    assert found.recorded == pytest.approx(served.fleet.billed_by_second.sum() / 3600, rel=0.005)


def test_the_difference_is_explained_in_parts_and_in_words(served: Served) -> None:
    found = served.report.reproduction
    assert found is not None
    parts = found.draining + found.elsewhere + found.rest
    assert found.recorded - found.recomputed == pytest.approx(parts)
    # What drained is known from the fleet; nobody else changed it; little is left to luck.
    assert 0 < found.draining < 0.01 * found.recorded
    assert abs(found.elsewhere) < 0.001 * found.recorded
    assert abs(found.rest) < 0.002 * found.recorded
    words = reproduction_sentence(found)
    assert f"each of the {served.decisions:,} decisions" in words
    assert "in replicas that still drained" in words
    assert words in render_html(served.report).replace("&#39;", "'")


def test_its_replicas_serve_when_those_of_the_real_fleet_did(served: Served) -> None:
    """Every replica had a cold start of its own; the median one stands for all."""
    minutes = served.report.minutes
    again = as_it_ran(minutes, decisions_of(served.engine, minutes))
    assert again is not None
    apart, usual = again.ready - minutes.ready, float(minutes.ready.mean())
    assert abs(float(apart.mean())) < 0.006 * usual
    assert float(np.abs(apart).mean()) < 0.015 * usual


def test_without_the_decisions_their_minutes_speak_and_the_report_says_so(served: Served) -> None:
    """Last, since the log is pruned for it: what a minute leaves out is named as such."""
    prune(served.engine, datetime.max.replace(tzinfo=UTC), timedelta(minutes=30))
    short = audit(served.engine, Period("grammar", DAY, served.until)).reproduction
    assert short is not None
    assert (short.since, short.decisions) == (served.until - timedelta(minutes=31), 4 * 31)
    until = served.until - timedelta(hours=4)
    old = audit(served.engine, Period("grammar", DAY, until)).reproduction
    assert old is not None
    assert (old.decisions, old.recomputed) == (0, old.once_a_minute)
    assert abs(old.difference_ratio) < 0.03
    assert "that deciding once a minute leaves out" in reproduction_sentence(old)
