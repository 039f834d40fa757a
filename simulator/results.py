"""The machine-readable result of a what-if, as the contract lays it down."""

from __future__ import annotations

import math
from typing import Any

from simulator.pace import Pace
from simulator.replay import Scenario, static_peak
from simulator.whatif import Finished


def results_document(
    scenario: Scenario, finished: list[Finished], settings: dict[str, Any]
) -> dict[str, Any]:
    """Trace, settings, bounds and one entry a policy; figures that are not known are null."""
    card = finished[0].card
    head = document_head(scenario, settings, card.qps_per_replica, card.clairvoyant_pod_hours)
    return {**head, "policies": [policy_entry(run) for run in finished], "frontier": []}


def document_head(
    scenario: Scenario, settings: dict[str, Any], capacity: float, clairvoyant_hours: float
) -> dict[str, Any]:
    """What all policies share."""
    hours = (scenario.until - scenario.starts_at).total_seconds() / 3600
    return {
        "trace": {
            "name": scenario.traffic.series,
            "start": scenario.traffic.start.isoformat(),
            "scored_from": scenario.starts_at.isoformat(),
            "end": scenario.until.isoformat(),
            "step_seconds": scenario.traffic.step_seconds,
        },
        "settings": settings | {"qps_per_replica": capacity},
        "clairvoyant": {"pod_hours": clairvoyant_hours},
        "static_peak": {"pod_hours": static_peak(scenario, capacity) * hours},
    }


def policy_entry(run: Finished) -> dict[str, Any]:
    card = run.card
    return {
        "policy": card.policy,
        "knob": None,
        "pod_hours": card.pod_hours,
        "excess": card.excess,
        "requests": card.requests,
        "bad_requests": card.bad_requests,
        "bad_ratio": card.bad_ratio,
        "late_ratio": card.late_ratio,
        "failed_ratio": card.failed_ratio,
        "latency_seconds": {
            "p50": _known(card.p50_seconds),
            "p95": _known(card.p95_seconds),
            "p99": _known(card.p99_seconds),
            "p999": _known(card.p999_seconds),
        },
        "minutes": card.minutes,
        "minutes_p99_over_slo": card.minutes_p99_over_slo,
        "worst_minute_p99": _known(card.worst_minute_p99),
        "scale_ups": card.scale_ups,
        "scale_downs": card.scale_downs,
        "max_replicas": card.max_replicas,
        "seconds": run.seconds,
        "requests_per_wall_second": card.requests / run.seconds,
        "decisions": run.decisions,
        **pace_entry(run.pace),
    }


def pace_entry(pace: Pace) -> dict[str, float]:
    return {
        "interval_seconds": pace.interval_seconds,
        "scrape_seconds": pace.scrape_seconds,
        "metric_lag_seconds": pace.lag_seconds,
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
