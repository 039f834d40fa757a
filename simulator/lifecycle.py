"""A pod's life: the phases of its cold start, its slow first moments, its end, and what goes wrong.

Knows distributions and profiles; knows no clock and no requests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

P95_OVER_SIGMA = 1.6448536269514722
"""The 95 % quantile of a standard normal."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase of a cold start: lognormal with these quantiles, in seconds."""

    name: str
    p50_seconds: float
    p95_seconds: float

    def __post_init__(self) -> None:
        if not 0 <= self.p50_seconds <= self.p95_seconds:
            raise ValueError(f"phase {self.name}: need 0 <= p50 <= p95, got {self}")

    def draw(self, rng: np.random.Generator) -> float:
        if self.p50_seconds <= 0:
            return 0.0
        sigma = math.log(self.p95_seconds / self.p50_seconds) / P95_OVER_SIGMA
        return self.p50_seconds * math.exp(sigma * rng.standard_normal())


@dataclass(frozen=True, slots=True)
class ColdStart:
    """From a pod's creation until it is ready: its phases in turn.

    `node` comes first for a pod that finds none of the `warm_nodes` free (None: one is always
    free); a share `node_missing_ratio` of such nodes never comes.
    """

    phases: tuple[Phase, ...]
    node: Phase | None = None
    warm_nodes: int | None = None
    node_missing_ratio: float = 0.0

    def draw(self, rng: np.random.Generator, node_is_warm: bool) -> float:
        """Seconds; infinite where the node never comes."""
        seconds = sum(phase.draw(rng) for phase in self.phases)
        if node_is_warm or self.node is None:
            return seconds
        missing = rng.random() < self.node_missing_ratio
        return math.inf if missing else seconds + self.node.draw(rng)

    def quantile(self, level: float) -> float:
        """Of a cold start that comes to its end, from 20,000 draws: on a node that is there where
        one always is, else on one that must come first."""
        return float(np.quantile(_drawn(self), level))


@lru_cache(maxsize=4)
def _drawn(cold_start: ColdStart) -> Sequence[float]:
    """Drawn once for all that is asked of them: a sweep asks hundreds of times."""
    rng = np.random.Generator(np.random.Philox(key=7))
    coming, node_is_warm = (
        replace(cold_start, node_missing_ratio=0.0),
        cold_start.warm_nodes is None,
    )
    return [coming.draw(rng, node_is_warm) for _ in range(20_000)]


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """Everything about a pod but its requests.

    A new pod's steps take `slow_start_factor` times as long for `slow_start_seconds`; a share
    `slow_ratio` of pods is slower by `slow_factor` for good; a deleted pod finishes what it has
    within `drain_seconds`; ready pods crash at `crashes_per_pod_hour`.
    """

    cold_start: ColdStart
    slow_start_seconds: float = 0.0
    slow_start_factor: float = 1.0
    slow_ratio: float = 0.0
    slow_factor: float = 1.5
    drain_seconds: int = 30
    crashes_per_pod_hour: float = 0.0


def constant_cold_start(seconds: float) -> ColdStart:
    return ColdStart((Phase("start", seconds, seconds),))


_WEIGHTS = Phase("weights", 20.0, 40.0)
_WARM_UP = Phase("engine warm-up", 30.0, 50.0)
_NODE = Phase("node", 95.0, 120.0)
_EAGER = Phase("image", 150.0, 240.0)
_LAZY = Phase("image", 4.0, 10.0)

COLD_STARTS: dict[str, ColdStart] = {
    "eager-image": ColdStart((_EAGER, _WEIGHTS, _WARM_UP)),
    "lazy-image": ColdStart((_LAZY, _WEIGHTS, _WARM_UP)),
    "eager-image-cold-nodes": ColdStart((_EAGER, _WEIGHTS, _WARM_UP), _NODE, warm_nodes=0),
    "lazy-image-cold-nodes": ColdStart((_LAZY, _WEIGHTS, _WARM_UP), _NODE, warm_nodes=0),
}
"""Images pulled whole or read lazily, on nodes that are there or that must be provisioned first."""
