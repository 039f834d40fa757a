"""The fluid engine: one closed form a second instead of requests.

With load x a pod and no backlog the step time is t0 / (1 - c x out); beyond saturation a backlog
grows and every request waits for it. A request of length l takes wait + (l + 1/2) T. Latency
quantiles come from the exact mixture over seconds and lengths. It knows nothing of single pods:
no hot spots, no slow start, no bursts within a second.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from forecaster.history import Floats
from simulator.pod import MAX_LENGTH, PodProfile


@dataclass(slots=True)
class FluidEngine:
    """The state between seconds, and what each second was like."""

    profile: PodProfile
    seconds: int
    backlog: float = 0.0
    step: Floats = field(init=False)
    wait: Floats = field(init=False)
    served: Floats = field(init=False)
    failed: Floats = field(init=False)
    running: Floats = field(init=False)
    waiting: Floats = field(init=False)

    def __post_init__(self) -> None:
        for name in ("step", "wait", "served", "failed", "running", "waiting"):
            setattr(self, name, np.zeros(self.seconds))

    def advance(self, second: int, arrivals: float, pods: int) -> None:
        """One second with so many arrivals on so many ready pods."""
        profile = self.profile
        ceiling = profile.saturation_qps * pods
        before = self.backlog
        offered = before + arrivals
        if pods and before == 0.0 and arrivals < ceiling * (1 - 1e-9):
            step = profile.step_seconds(arrivals / pods)
            self.step[second] = step
            self.running[second] = arrivals * profile.output_tokens * step
            self.served[second] = arrivals
            return
        self.backlog = max(0.0, offered - ceiling)
        limit = ceiling * profile.timeout_seconds
        dropped = max(0.0, self.backlog - limit)
        self.backlog -= dropped
        self.step[second] = profile.full_step_seconds
        self.wait[second] = (before + self.backlog) / 2 / ceiling if pods else 0.0
        self.running[second] = profile.max_num_seqs * pods
        self.waiting[second] = self.backlog
        self.failed[second] = dropped
        self.served[second] = max(0.0, arrivals - dropped)

    def p99_at(self, second: int) -> float:
        """P99 in seconds of the requests that arrived in one second."""
        length = float(np.searchsorted(self.profile.length_cdf, 0.99))
        return float(
            self.wait[second] + (length + 0.5) * self.step[second] + self.profile.front_end_seconds
        )


def late_share(engine: FluidEngine, slo_seconds: float) -> Floats:
    """For each second, the share of its requests slower than the objective."""
    return _share_slower(engine, np.full(engine.seconds, slo_seconds))


def latency_quantiles(
    engine: FluidEngine, groups: npt.NDArray[np.int64], levels: tuple[float, ...]
) -> Floats:
    """Latency in seconds at each level (columns) for each group of seconds (rows).

    Bisection on the mixture's distribution, for all groups at once; NaN for a group without
    served requests. `groups` numbers each second's group from 0.
    """
    weights = np.bincount(groups, engine.served)
    found = np.empty((len(weights), len(levels)))
    for column, level in enumerate(levels):
        low = np.zeros(len(weights))
        high = np.full(len(weights), engine.profile.timeout_seconds + 10.0)
        for _ in range(40):
            middle = (low + high) / 2
            slower = np.bincount(groups, engine.served * _share_slower(engine, middle[groups]))
            over = slower > (1 - level) * weights
            low, high = np.where(over, middle, low), np.where(over, high, middle)
        found[:, column] = np.where(weights > 0, high, np.nan)
    return found


def _share_slower(engine: FluidEngine, seconds: Floats) -> Floats:
    """Share of each second's requests slower than that second's figure."""
    profile = engine.profile
    spare = seconds - engine.wait - profile.front_end_seconds
    longest = spare / np.maximum(engine.step, 1e-12) - 0.5
    index = np.clip(np.floor(longest), -1, MAX_LENGTH).astype(np.int64)
    shares = 1.0 - np.where(index < 0, 0.0, profile.length_cdf[np.maximum(index, 0)])
    return np.asarray(shares, dtype=np.float64)
