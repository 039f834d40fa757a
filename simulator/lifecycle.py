"""A pod's life before and after it serves: the phases of its cold start, and what goes wrong.

Knows distributions; knows no clock and no requests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

P95_OVER_SIGMA = 1.6448536269514722


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
