"""Pace: how often a policy decides in life, and how soon it sees what happened."""

from __future__ import annotations

from dataclasses import dataclass

from scaler.settings import Workload


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between decisions, between scrapes, and from a scrape until it can be read."""

    interval_seconds: float
    scrape_seconds: int
    lag_seconds: int


ASK_THE_PODS: dict[str, Pace] = {
    "asymmetric_concurrency": Pace(5.0, 1, 2),
    "knative_kpa": Pace(2.0, 1, 2),
    "ray_serve": Pace(1.0, 1, 1),
    "aibrix_apa_intended": Pace(10.0, 10, 2),
    "aibrix_apa_as_shipped": Pace(10.0, 10, 2),
    "aibrix_kpa": Pace(10.0, 10, 2),
    "dynamo": Pace(5.0, 5, 5),
}
BY_THE_MINUTE = ("wva_v1", "wva_v2", "aws_predictive", "gcp_predictive", "azure_predictive")


def pace_of(workload: Workload, interval_seconds: float) -> Pace:
    """A policy that asks the pods itself goes at its own pace. The others see what Prometheus
    scrapes as often as the workload's metric lag says, and decide once a minute or as often as the
    daemon does."""
    name, lag = workload.policy.name, round(workload.lead_time.metric_lag_seconds)
    if name in ASK_THE_PODS:
        return ASK_THE_PODS[name]
    return Pace(60.0 if name in BY_THE_MINUTE else interval_seconds, max(1, lag), lag)
