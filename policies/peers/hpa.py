"""The Kubernetes HorizontalPodAutoscaler, with the metric that is usual for model servers.

Source: Kubernetes autoscaling/v2 as of 1.37 (read 2026-08); the rules are in `hpa_rules`.
"""

from __future__ import annotations

from policies.context import ScalingContext
from policies.decision import Reason, Step
from policies.peers import hpa_rules
from policies.proposal import held


def propose(context: ScalingContext) -> tuple[Step, ...]:
    """The proposal of one metric, before stabilization and rate limits.

    The knob is the target, utilization times the benchmarked value: `targetQps` (requests/s a
    replica, an external metric with an AverageValue target; the default), `targetConcurrency`
    (requests in flight a replica, a Pods metric) or `targetWaiting` (requests waiting in all, an
    external metric with a Value target). Others: `tolerance` (0.1) and those of `hpa_rules`.
    """
    concurrency = context.settings.parameter("targetConcurrency", 0.0)
    if concurrency > 0:
        return (_by_pods(context, concurrency),)
    waiting = context.settings.parameter("targetWaiting", 0.0)
    if waiting > 0:
        return (_by_value(context, waiting),)
    return (hpa_rules.rate_step(context),)


def _by_pods(context: ScalingContext, target: float) -> Step:
    """A starting model server runs but exposes no metrics yet: it is a missing pod."""
    in_flight, ready = context.observation.concurrency, context.replicas.ready
    if in_flight is None or ready == 0:
        return held(context, "hpa", "no pod's metric is known")
    replicas = hpa_rules.pods(
        in_flight / ready / target,
        context.replicas.spec,
        ready,
        len(context.replicas.starting),
        0,
        hpa_rules.tolerance_of(context),
    )
    text = f"{in_flight:,.0f} requests in flight on {ready} pods at {target:g} a pod"
    return Step("hpa", replicas, Reason.OBSERVED_DEMAND, text)


def _by_value(context: ScalingContext, target: float) -> Step:
    waiting, replicas = context.observation.requests_waiting, context.replicas
    if waiting is None:
        return held(context, "hpa", "the metric is not known")
    tolerance = hpa_rules.tolerance_of(context)
    wanted = hpa_rules.value(waiting, target, replicas.spec, replicas.ready, tolerance)
    text = f"{waiting:,.0f} requests wait, {target:g} are allowed"
    return Step("hpa", wanted, Reason.BACKLOG, text)
