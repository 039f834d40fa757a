"""What peers read off a situation: the load, their target for one replica, and their own past.

Knows no peer's rule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum

from policies.context import ScalingContext
from policies.decision import Step
from policies.proposal import held

DEFAULT_UTILIZATION = 0.85
"""Of the rate that one replica carries within the SLO, where no `targetQps` is given."""


class Kind(StrEnum):
    """What the load is counted in; in both cases over the whole fleet."""

    CONCURRENCY = "requests in flight"
    RATE = "requests/s"


@dataclass(frozen=True, slots=True)
class Load:
    """The load now and at earlier decisions, and what one replica shall carry of it.

    `samples` are (age in seconds, value), oldest first; the newest is the one seen now.
    """

    kind: Kind
    target: float
    samples: tuple[tuple[float, float], ...]

    @property
    def newest(self) -> float:
        return self.samples[-1][1]

    def within(self, seconds: float) -> list[float]:
        """The samples younger than this; one that is exactly as old lies outside."""
        return [value for age, value in self.samples if age < seconds]


def load_of(context: ScalingContext) -> Load | None:
    """By `targetConcurrency` or `targetQps`, whichever is given; None where it is not known now.

    Raises ValueError unless exactly one of the two is given, above 0.
    """
    targets = {
        Kind.CONCURRENCY: context.settings.parameter("targetConcurrency", 0.0),
        Kind.RATE: context.settings.parameter("targetQps", 0.0),
    }
    given = [(kind, target) for kind, target in targets.items() if target > 0]
    if len(given) != 1:
        raise ValueError(
            f"{context.settings.policy} needs exactly one of the parameters targetConcurrency and "
            f"targetQps above 0, got {targets[Kind.CONCURRENCY]:g} and {targets[Kind.RATE]:g}"
        )
    kind, target = given[0]
    rate = kind is Kind.RATE
    newest = context.demand_qps if rate else context.observation.concurrency
    if newest is None:
        return None
    past = [
        ((context.now - past.at).total_seconds(), value)
        for past in context.recent
        if (value := past.demand_qps if rate else past.concurrency) is not None
    ]
    return Load(kind, target, (*past, (0.0, newest)))


def target_qps(context: ScalingContext) -> float:
    """`targetQps`, else a share of the rate within the SLO. Raises ValueError at 0 and below."""
    default = DEFAULT_UTILIZATION * context.capacity.qps_per_replica
    target = context.settings.parameter("targetQps", default)
    if target <= 0:
        raise ValueError(
            f"{context.settings.policy} needs the parameter targetQps above 0, got {target:g}"
        )
    return target


def forecast_qps(context: ScalingContext, window: str) -> float | None:
    """The peak that the peer's own forecaster expects in a window.

    Trusted or not: none of the peers has a gate of that kind.
    """
    seen = context.forecast.window(window) if context.forecast else None
    return None if seen is None else seen.median_qps


def due(context: ScalingContext, seconds: float) -> bool:
    """Whether a whole multiple of the seconds since 1970 has passed since the last decision.

    So a peer that decides less often than the loop ticks keeps its own cadence.
    """
    if not context.recent:
        return True
    last = context.recent[-1].at.timestamp()
    return math.floor(context.now.timestamp() / seconds) > math.floor(last / seconds)


def last_note(context: ScalingContext, name: str) -> float | None:
    """What the policy left for this decision; None after a restart without a log."""
    return context.recent[-1].note(name) if context.recent else None


def held_blind(context: ScalingContext, rule: str, why: str) -> Step:
    """Keep what is asked for now, and what was noted for later."""
    notes = context.recent[-1].notes if context.recent else ()
    return replace(held(context, rule, why), notes=notes)
