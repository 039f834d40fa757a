"""PHPA, the Predictive Horizontal Pod Autoscaler: votes of the HPA's rule and of simple models.

Source: jthomperoo/predictive-horizontal-pod-autoscaler c91d060 (2023-07-01), with its history in
the order of time, as intended. Holt-Winters is its forecaster; it reads the load, not the replicas
that were calculated from it, and a coarser grid than one entry a sync.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum
from functools import partial

from policies.capacity import replicas_at
from policies.context import ScalingContext
from policies.decision import Reason, Step
from policies.peers import hpa_rules
from policies.peers.readings import forecast_qps, held_blind, target_qps

PERIOD_SECONDS = 60.0
"""Of its default rate limits, where the HPA has 15 s."""

limit_rate = partial(hpa_rules.limit_rate, period_seconds=PERIOD_SECONDS)


class DecisionType(IntEnum):
    """How votes become one number, by the number in `decisionType`."""

    MAXIMUM = 0
    MINIMUM = 1
    MEAN = 2
    MEDIAN = 3


def propose(context: ScalingContext) -> tuple[Step, ...]:
    """The knob is `targetQps` (utilization times the rate within the SLO).

    Others: `decisionType` (0 maximum, 1 minimum, 2 mean, 3 median), `linearSamples` (0: without
    the linear model; else how many of the last proposals it takes), `lookAheadSeconds` (the lead
    time), and those of `hpa_rules`. Without a forecast Holt-Winters votes 0, as shipped.
    """
    if context.demand_qps is None:
        return (held_blind(context, "phpa", "the metric is not known"),)
    now = hpa_rules.rate_step(context)
    votes = [now.replicas, _holt_winters(context)]
    count = int(context.settings.parameter("linearSamples", 0.0))
    if count > 0:
        votes.append(linear(_proposals(context, now.replicas)[-count:], _look_ahead(context)))
    kind = DecisionType(int(context.settings.parameter("decisionType", 0.0)))
    replicas = decided(votes, kind)
    reason = now.reason if replicas <= now.replicas else Reason.FORECAST_PEAK
    text = f"{kind.name.lower()} of {now.replicas} by the metric and {votes[1:]} by models"
    return (now, Step("phpa", replicas, reason, text))


def decided(votes: Sequence[int], kind: DecisionType) -> int:
    """A half is rounded up; of two middle votes the mean, rounded down."""
    if kind is DecisionType.MAXIMUM:
        return max(votes)
    if kind is DecisionType.MINIMUM:
        return min(votes)
    if kind is DecisionType.MEAN:
        return math.floor(sum(votes) / len(votes) + 0.5)
    ordered, middle = sorted(votes), len(votes) // 2
    return ordered[middle] if len(votes) % 2 else (ordered[middle - 1] + ordered[middle]) // 2


def linear(samples: Sequence[tuple[float, int]], look_ahead: float) -> int:
    """Least squares through (age in seconds, replicas), read off `look_ahead` seconds from now."""
    if len(samples) == 1:
        return samples[0][1]
    ages = [age + look_ahead for age, _ in samples]
    mean_age = sum(ages) / len(ages)
    mean = sum(replicas for _, replicas in samples) / len(samples)
    spread = sum((age - mean_age) ** 2 for age in ages)
    joint = sum((age - mean_age) * (y - mean) for age, (_, y) in zip(ages, samples, strict=True))
    return max(0, math.ceil(mean - joint / spread * mean_age))


def _holt_winters(context: ScalingContext) -> int:
    load = forecast_qps(context, "order")
    return 0 if load is None else replicas_at(load, target_qps(context))


def _look_ahead(context: ScalingContext) -> float:
    return context.settings.parameter("lookAheadSeconds", context.lead_time.p95_seconds)


def _proposals(context: ScalingContext, newest: int) -> list[tuple[float, int]]:
    """What the HPA's rule said at earlier decisions, worked out again from what they saw."""
    target, tolerance = target_qps(context), hpa_rules.tolerance_of(context)
    past = [
        (
            (context.now - past.at).total_seconds(),
            hpa_rules.average_value(past.demand_qps, target, past.current, tolerance),
        )
        for past in context.recent
        if past.demand_qps is not None
    ]
    return [*past, (0.0, newest)]
