"""How often policies decide in a what-if, and how soon they see what happened."""

from __future__ import annotations

from datetime import timedelta

import pytest

from scaler.settings import Workload
from simulator.fleet import FleetSettings
from simulator.lifecycle import Lifecycle, constant_cold_start
from simulator.pace import Pace, pace_of
from simulator.pod import PROFILES
from simulator.replay import Scenario
from simulator.sweep.frontier import plan_of
from simulator.traces.edit import with_surge
from simulator.traces.generate import Diurnal, generate
from simulator.whatif import Run, run_one
from tests.traffic import MONDAY


def workload(policy: str, lag_seconds: float, **parameters: float) -> Workload:
    return Workload.model_validate(
        {
            "name": "trace",
            "target": {"name": "trace", "mode": "shadow"},
            "demand": {"query": "trace"},
            "capacity": {"qpsPerReplica": 1000},
            "leadTime": {"metricLagSeconds": lag_seconds},
            "maxReplicas": 100,
            "policy": {"name": policy, "parameters": parameters},
        }
    )


@pytest.mark.parametrize(
    ("policy", "lag", "expected"),
    [
        ("predictive", 15, Pace(20.0, 15, 15)),
        ("predictive", 5, Pace(20.0, 5, 5)),
        ("hpa", 0, Pace(20.0, 1, 0)),
        ("aws_predictive", 30, Pace(60.0, 30, 30)),
        ("asymmetric_concurrency", 30, Pace(5.0, 1, 2)),
    ],
)
def test_a_policy_sees_what_is_scraped_for_it(policy: str, lag: float, expected: Pace) -> None:
    assert pace_of(workload(policy, lag), 20.0) == expected


def test_who_sees_a_surge_late_loses_more_to_it() -> None:
    traffic = generate(Diurnal(10_000.0), MONDAY, 1, 3)
    starts_at = MONDAY + timedelta(hours=8)
    traffic = with_surge(traffic, starts_at + timedelta(minutes=40), 3.0, 15.0, 2.5)
    fleet = FleetSettings(Lifecycle(constant_cold_start(30)), 30.0, 12)
    scenario = Scenario(
        traffic, starts_at, starts_at + timedelta(hours=2), fleet, PROFILES["h100-1200"]
    )
    bad = []
    for lag in (5, 120):
        run = Run(workload("hpa", lag, targetQps=800.0), 15.0)
        bad.append(run_one(scenario, run).card.bad_requests)
        plan = plan_of(scenario, run.workload, run.interval_seconds)
        assert (plan.scrape_seconds, plan.lag_seconds) == (lag, lag)
    assert 1.5 * bad[0] < bad[1]
