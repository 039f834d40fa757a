"""Knobs: what turns a policy's cost against its quality, and the values that span it."""

from __future__ import annotations

from collections.abc import Mapping

from policies.registry import POLICIES
from scaler.settings import Workload
from simulator.replay import BY_CONCURRENCY, Scenario
from simulator.sweep import frontier


def knob_settings(workload: Workload, scenario: Scenario) -> list[tuple[str, float]]:
    """The knob of a policy and the values that span it; one without a name where it has none."""
    if workload.policy.name == "predictive":
        return [(frontier.TARGET_KNOB, target) for target in frontier.TARGETS]
    knob, full = knob_at_full_use(workload, scenario)
    if knob == frontier.MARGIN_KNOB:
        return [(knob, margin) for margin in frontier.MARGINS]
    return [(knob, full * use) for use in frontier.UTILIZATIONS] if knob else [("", 0.0)]


def knob_at_full_use(workload: Workload, scenario: Scenario) -> tuple[str, float]:
    """The knob, and its value where a replica is used as much as the SLO allows; "" for none.

    The targets that belong to no replica are spanned around the workload's own.
    """
    own, capacity = workload.policy.parameters, workload.capacity.qps_per_replica
    full = {
        "targetQps": capacity,
        "targetConcurrency": scenario.profile.concurrency_at(capacity),
        "targetWaiting": own.get("targetWaiting", 1.0),
        "replicas": own.get("replicas", float(workload.max_replicas)),
    }
    knob = _knob_of(workload)
    return knob, full.get(knob, 1.0)


def _knob_of(workload: Workload) -> str:
    """The one that the workload chose among its policy's, else the usual one."""
    name, own = workload.policy.name, workload.policy.parameters
    knobs = POLICIES[name].knobs
    usual = "targetConcurrency" if name in BY_CONCURRENCY else next(iter(knobs), "")
    return next((knob for knob in knobs if knob in own and knob != usual), usual)


def turned(workload: Workload, knobs: Mapping[str, float]) -> Workload:
    """The workload with its policy's knobs as given, in the place of its own."""
    policy = workload.policy
    own = {k: v for k, v in policy.parameters.items() if k not in POLICIES[policy.name].knobs}
    parameters = {k: v for k, v in knobs.items() if k not in ("", frontier.TARGET_KNOB)}
    target = knobs.get(frontier.TARGET_KNOB, policy.target_bad_ratio)
    changed = policy.model_copy(
        update={"parameters": {**own, **parameters}, "target_bad_ratio": target}
    )
    return workload.model_copy(update={"policy": changed})
