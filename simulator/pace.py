"""Pace: how often a policy decides in life, and how soon it sees what happened."""

from __future__ import annotations

from dataclasses import dataclass

from scaler.settings import Workload


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between decisions, between scrapes, and from a scrape until it can be read."""

    interval_seconds: float
    scrape_seconds: int = 15
    lag_seconds: int = 15


PACES: dict[str, Pace] = {
    # These ask the pods themselves.
    "asymmetric_concurrency": Pace(5.0, 1, 2),
    "knative_kpa": Pace(2.0, 1, 2),
    "ray_serve": Pace(1.0, 1, 1),
    "aibrix_apa_intended": Pace(10.0, 10, 2),
    "aibrix_apa_as_shipped": Pace(10.0, 10, 2),
    "aibrix_kpa": Pace(10.0, 10, 2),
    "dynamo": Pace(5.0, 5, 5),
    "wva_v1": Pace(60.0),
    "wva_v2": Pace(60.0),
    "aws_predictive": Pace(60.0),
    "gcp_predictive": Pace(60.0),
    "azure_predictive": Pace(60.0),
}


def pace_of(workload: Workload, interval_seconds: float) -> Pace:
    """A policy that asks the pods themselves goes at its own pace. Any other decides as often as
    the daemon does, on what Prometheus scrapes as often as the workload's metric lag says."""
    lag = round(workload.lead_time.metric_lag_seconds)
    return PACES.get(workload.policy.name, Pace(interval_seconds, max(1, lag), lag))
