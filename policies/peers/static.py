"""A fleet of fixed size: what is asked for never changes."""

from __future__ import annotations

from policies.context import ScalingContext
from policies.decision import Reason, Step


def propose(context: ScalingContext) -> tuple[Step, ...]:
    """Parameter: `replicas` (the maximum where it is not given)."""
    replicas = int(context.settings.parameter("replicas", context.settings.max_replicas))
    return (Step("static", replicas, Reason.FIXED, f"fixed at {replicas} replicas"),)
