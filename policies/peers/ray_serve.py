"""Ray Serve: requests in flight against a target, acted on only after the same word many times.

Source: ray-project/ray, serve/autoscaling_policy.py (read 2026-08). The original ticks ten times a
second; here a tick is a decision of the loop, and delays are counted in those.
"""

from __future__ import annotations

import math

from policies.context import ScalingContext
from policies.decision import Reason, Step
from policies.peers.readings import held_blind, last_note, load_of

LOOK_BACK_SECONDS = 30.0
UPSCALE_DELAY_SECONDS = 30.0
DOWNSCALE_DELAY_SECONDS = 600.0
FACTOR = 1.0


def propose(context: ScalingContext) -> tuple[Step, ...]:
    """The knob is `targetConcurrency` (Ray's target_ongoing_requests) or `targetQps` of a replica.

    Others: `averageWindowSeconds` (30), `upscaleDelaySeconds` (30), `downscaleDelaySeconds` (600),
    `upscalingFactor` and `downscalingFactor` (1).
    """
    load, current = load_of(context), context.replicas.spec
    if load is None:
        return (held_blind(context, "ray_serve", "the load was not observed"),)
    parameter = context.settings.parameter
    seen = load.within(parameter("averageWindowSeconds", LOOK_BACK_SECONDS))
    ongoing = sum(seen) / len(seen)
    up_factor, down_factor = (
        parameter("upscalingFactor", FACTOR),
        parameter("downscalingFactor", FACTOR),
    )
    if current == 0:
        woken = math.ceil(up_factor) if ongoing > 0 else 0
        text = f"{ongoing:,.0f} {load.kind} for no replica"
        return (Step("ray_serve", woken, Reason.OBSERVED_DEMAND, text),)
    low, high = context.settings.min_replicas, context.settings.max_replicas
    wanted = min(max(scaled(current, ongoing, load.target, up_factor, down_factor), low), high)
    ticks = counted(int(last_note(context, "ticks") or 0), current, wanted)
    replicas, left = acted(current, wanted, ticks, _patience(context, ticks))
    text = f"{ongoing:,.0f} {load.kind} want {wanted}, said {abs(ticks)} times in a row"
    notes = (("ticks", float(left)),)
    reason = Reason.OBSERVED_DEMAND if replicas == wanted else Reason.NOT_DUE
    return (Step("ray_serve", replicas, reason, text, notes),)


def scaled(current: int, ongoing: float, target: float, up: float, down: float) -> int:
    """n moved towards ongoing / target by a factor; on the way down by one at least."""
    raw = current * (ongoing / (target * current))
    factor = up if raw > current else down
    result = math.ceil(current + factor * (raw - current))
    return result - 1 if math.ceil(raw) < current and result == current else result


def counted(ticks: int, current: int, wanted: int) -> int:
    """Ticks in a row that wanted more (positive) or less (negative); another word starts anew."""
    if wanted > current:
        return max(ticks, 0) + 1
    if wanted < current:
        return min(ticks, 0) - 1
    return 0


def acted(current: int, wanted: int, ticks: int, patience: int) -> tuple[int, int]:
    """The replicas, and the count that is left: the newest word once it was said often enough.

    To none only from one.
    """
    if abs(ticks) <= patience:
        return current, ticks
    return (1 if wanted == 0 and current > 1 else wanted), 0


def _patience(context: ScalingContext, ticks: int) -> int:
    """How many ticks are not yet enough."""
    parameter = context.settings.parameter
    if ticks > 0:
        seconds = parameter("upscaleDelaySeconds", UPSCALE_DELAY_SECONDS)
    else:
        seconds = parameter("downscaleDelaySeconds", DOWNSCALE_DELAY_SECONDS)
    return int(seconds / context.interval_seconds)
