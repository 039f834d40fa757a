"""AIBrix's KPA: Knative's two windows with gentler rates and a tolerance.

Source: vllm-project/aibrix e3e10f9 (2026-08-22). It divides by the target what its windows hold,
which as shipped are averages of one pod: right only for figures of the whole fleet, and those it
is given here.
"""

from __future__ import annotations

import math

from policies.context import ScalingContext
from policies.decision import Reason, Step
from policies.peers.readings import held_blind, last_note, load_of

STABLE_SECONDS = 180.0
PANIC_SECONDS = 60.0
TOLERANCE = 0.1
RATE = 2.0
PANIC_THRESHOLD = 2.0
CALM = -1.0


def propose(context: ScalingContext) -> tuple[Step, ...]:
    """The knob is `targetConcurrency` or `targetQps` of one replica: utilization times the
    benchmarked value. Others: `stableWindowSeconds` (180), `panicWindowSeconds` (60)."""
    load = load_of(context)
    if load is None:
        return (held_blind(context, "aibrix_kpa", "the load was not observed"),)
    stable_seconds = context.settings.parameter("stableWindowSeconds", STABLE_SECONDS)
    stable = _mean(load.within(stable_seconds))
    panic = _mean(load.within(context.settings.parameter("panicWindowSeconds", PANIC_SECONDS)))
    panicked_at = last_note(context, "panickedAt")
    panicked_at = CALM if panicked_at is None else panicked_at
    now = context.now.timestamp()
    if panics(stable, panic):
        panicked_at = now
    elif now > panicked_at + stable_seconds:
        panicked_at = CALM
    calm = panicked_at == CALM
    replicas = scale(context.replicas.spec, stable if calm else max(stable, panic), load.target)
    highest = 0 if calm else max(replicas, int(last_note(context, "highest") or 0))
    return (
        Step(
            "aibrix_kpa",
            max(replicas, highest),
            Reason.OBSERVED_DEMAND if calm else Reason.PANIC,
            f"{stable:,.0f} {load.kind} in the stable window, {panic:,.0f} in the panic window",
            (("panickedAt", panicked_at), ("highest", float(highest))),
        ),
    )


def scale(current: int, observed: float, target: float) -> int:
    """ceil(observed / target), between half and twice n; within the tolerance n."""
    if current > 0 and abs(1.0 - observed / (target * current)) <= TOLERANCE:
        return current
    wanted = math.ceil(observed / target)
    return min(max(wanted, math.floor(current / RATE)), max(1, math.ceil(RATE * current)))


def panics(stable: float, panic: float) -> bool:
    return stable > 0 and panic / stable > PANIC_THRESHOLD


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
