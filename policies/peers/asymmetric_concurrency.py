"""Asymmetric concurrency: up on the last 20 s, down on the last 5 minutes.

Source: the constants of the Databricks AutoPilot Pod Autoscaler (2026-06-10): decisions every
5 s, 20 s look-back up, about 5 min down, desired = ceil(current_requests / target_concurrency).
The statistic over the look-back is not published; the mean is our reading.
"""

from __future__ import annotations

import math
from datetime import timedelta

from policies.context import ScalingContext
from policies.decision import Reason, Step
from policies.proposal import held

UP_SECONDS = 20.0
DOWN_SECONDS = 300.0


def propose(context: ScalingContext) -> tuple[Step, ...]:
    """Parameters: `targetConcurrency` (requests in flight a replica), `upWindowSeconds`,
    `downWindowSeconds`.

    n' = max(up, min(n, down)) where up and down are ceil(mean concurrency / target) over their
    look-backs.
    """
    target = context.settings.parameter("targetConcurrency", 0.0)
    if target <= 0:
        raise ValueError("asymmetric_concurrency needs the parameter targetConcurrency above 0")
    up = _mean_over(context, context.settings.parameter("upWindowSeconds", UP_SECONDS))
    down = _mean_over(context, context.settings.parameter("downWindowSeconds", DOWN_SECONDS))
    if up is None or down is None:
        return (held(context, "asymmetric_concurrency", "no concurrency was observed"),)
    need_up, need_down = math.ceil(up / target), math.ceil(down / target)
    replicas = combine(context.replicas.spec, need_up, need_down)
    return (
        Step(
            "asymmetric_concurrency",
            replicas,
            Reason.OBSERVED_DEMAND,
            f"{up:,.0f} requests in flight need {need_up}, {down:,.0f} over the longer window "
            f"need {need_down}",
        ),
    )


def combine(current: int, up: int, down: int) -> int:
    """Below `up` rise to it at once; above both fall to the larger of the two; else hold."""
    return max(up, min(current, down))


def _mean_over(context: ScalingContext, seconds: float) -> float | None:
    if context.observation.concurrency is None:
        return None
    oldest = context.now - timedelta(seconds=seconds)
    seen = [
        past.concurrency
        for past in context.recent
        if past.at > oldest and past.concurrency is not None
    ]
    seen.append(context.observation.concurrency)
    return sum(seen) / len(seen)
