"""Knative's KPA: a stable window, and a panic window that only adds.

Source: knative/serving 98e5ef9 (2026-08-21), autoscaler.go and its defaults. The original ticks
every 2 s; its buffering in front of pods that are not there yet is left out.
"""

from __future__ import annotations

import math

from policies.context import ScalingContext
from policies.decision import Reason, Step
from policies.peers.readings import Load, held_blind, last_note, load_of

STABLE_SECONDS = 60.0
PANIC_SECONDS = 6.0
UP_RATE = 1000.0
DOWN_RATE = 2.0
PANIC_THRESHOLD = 2.0
LOWEST_TARGET = 0.01
CALM = -1.0
"""In the place of a time of panic: there is none."""


def propose(context: ScalingContext) -> tuple[Step, ...]:
    """The knob is `targetConcurrency` or `targetQps` (a replica's: Knative's own target times its
    target utilization). Others: `stableWindowSeconds` (60), `panicWindowSeconds` (6).

    A rate that was itself averaged over a minute makes the panic window as slow as that.
    """
    load = load_of(context)
    if load is None:
        return (held_blind(context, "knative_kpa", "the load was not observed"),)
    stable_seconds = context.settings.parameter("stableWindowSeconds", STABLE_SECONDS)
    stable = _mean(load, stable_seconds)
    panic = _mean(load, context.settings.parameter("panicWindowSeconds", PANIC_SECONDS))
    now, ready = context.now.timestamp(), context.replicas.ready
    panicked_at, highest = last_note(context, "panickedAt"), last_note(context, "highest")
    if panicked_at is None or highest is None:
        # Knative takes a revision that it finds running for one in a panic.
        panicked_at, highest = (now, float(ready)) if ready > 1 else (CALM, 0.0)
    stable_need, panic_need = needed(stable, load.target), needed(panic, load.target)
    replicas, panicked_at, top = scale(
        stable_need, panic_need, ready, now, panicked_at, int(highest), stable_seconds
    )
    calm = panicked_at == CALM
    return (
        Step(
            "knative_kpa",
            replicas,
            Reason.OBSERVED_DEMAND if calm else Reason.PANIC,
            f"{stable:,.0f} {load.kind} need {stable_need}, the panic window needs {panic_need}"
            + ("" if calm else f"; in panic, never below {top}"),
            (("panickedAt", panicked_at), ("highest", float(top))),
        ),
    )


def needed(load: float, target: float) -> int:
    return math.ceil(load / max(LOWEST_TARGET, target))


def scale(  # noqa: PLR0917  # sweeps compile it, and compiled code takes no keywords
    stable_need: int,
    panic_need: int,
    ready: int,
    now: float,
    panicked_at: float,
    highest: int,
    stable_seconds: float = STABLE_SECONDS,
) -> tuple[int, float, int]:
    """One tick: the number wanted, when panic was last called for, and the most wanted in it.

    `panicked_at` is CALM where there is no panic, which ends once nothing has called for it for
    the stable window; times are in seconds.
    """
    ready = max(1, ready)
    ceiling, floor = math.ceil(UP_RATE * ready), math.floor(ready / DOWN_RATE)
    wanted = min(max(stable_need, floor), ceiling)
    in_panic = min(max(panic_need, floor), ceiling)
    if panic_need / ready >= PANIC_THRESHOLD:
        panicked_at = now
    elif panicked_at != CALM and now > panicked_at + stable_seconds:
        panicked_at, highest = CALM, 0
    if panicked_at == CALM:
        return wanted, CALM, 0
    highest = max(highest, wanted, in_panic)
    return highest, panicked_at, highest


def _mean(load: Load, seconds: float) -> float:
    """Over the samples that there are: a window not yet filled counts for what it holds."""
    seen = load.within(seconds)
    return sum(seen) / len(seen)
