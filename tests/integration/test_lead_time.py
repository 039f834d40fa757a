"""A cold start that is longer than anybody said, on measured traffic."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from scaler.settings import Workload
from simulator.fleet import FleetSettings
from simulator.forecasters import forecaster_for
from simulator.lifecycle import Lifecycle, constant_cold_start
from simulator.pod import PROFILES
from simulator.replay import Scenario, first_replicas, replay
from simulator.traces.arrivals import on_step
from simulator.traces.edit import scaled_to_peak
from tests.traffic import real_trace

PROFILE = PROFILES["h100-1200"]
CAPACITY = PROFILE.capacity_within(1.0)
COLD_SECONDS, TOLD_SECONDS = 480.0, 180.0


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    """Its last day."""
    traffic = scaled_to_peak(real_trace("servegen_msmall_10min"), 200_000.0)
    starts_at = traffic.end - timedelta(days=1)
    first = first_replicas(traffic, starts_at, COLD_SECONDS, CAPACITY)
    fleet = FleetSettings(Lifecycle(constant_cold_start(COLD_SECONDS)), COLD_SECONDS, first)
    return Scenario(traffic, starts_at, traffic.end, fleet, PROFILE)


def workload(
    seconds: float, learned: bool = True, policy: dict[str, Any] | None = None
) -> Workload:
    return Workload.model_validate(
        {
            "name": "grammar",
            "target": {"name": "grammar", "mode": "shadow"},
            "demand": {"query": "trace"},
            "capacity": {"qpsPerReplica": CAPACITY},
            "leadTime": {"p50Seconds": seconds, "p95Seconds": seconds, "learned": learned},
            "policy": policy or {"parameters": {"margin": 5.0}},
            "maxReplicas": 500,
        }
    )


def test_a_fleet_that_was_told_too_short_a_start_learns_it(scenario: Scenario) -> None:
    """But for the hours before enough pods were seen it does as one that was told right."""
    known = replay(scenario, workload(COLD_SECONDS), 15.0)
    learned = replay(scenario, workload(TOLD_SECONDS), 15.0)
    ignorant = replay(scenario, workload(TOLD_SECONDS, learned=False), 15.0)
    assert learned.bad_ratio < ignorant.bad_ratio / 5
    assert learned.bad_ratio == pytest.approx(known.bad_ratio, rel=0.05)
    assert learned.pod_hours == pytest.approx(known.pod_hours, rel=0.03)


def test_the_margin_is_calibrated_for_the_start_that_was_learned() -> None:
    history = on_step(scaled_to_peak(real_trace("servegen_msmall_10min"), 200_000.0), 60)
    target = {"name": "predictive", "targetBadRatio": 1e-4}
    told, known = (
        workload(seconds, policy=target) for seconds in (TOLD_SECONDS, COLD_SECONDS + 15)
    )
    margins = [
        forecaster_for(asked, 15.0)
        .fit(history, history.end, seen.loop_settings(15.0).windows)
        .calibration
        for asked, seen in ((told, told), (told, known), (known, known))
    ]
    assert margins[1] == margins[2]
    assert margins[1] != margins[0]
