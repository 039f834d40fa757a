"""The fluid engine: one closed form a second instead of requests.

With load x a pod and no backlog the step time is t0 / (1 - c x out); beyond saturation a backlog
grows and every request waits for it. A request of length l takes wait + (l + 1/2) T. Latency
quantiles come from the exact mixture over seconds and lengths. It knows a fleet's average speed
and nothing else of single pods: no hot spots, no bursts within a second.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from forecaster.history import Floats
from simulator.engines.engine import Minutes, Seconds
from simulator.pod import MAX_LENGTH, PodProfile
from simulator.traces.arrivals import poisson_counts

BISECTIONS = 16
"""Of the span of one group's latencies: a 65,000th of it is left."""


class FluidEngine:
    """Implements Engine. The same rates and seed give the same arrivals, whoever scales."""

    def __init__(self, profile: PodProfile, rates: Floats, seed: int = 0) -> None:
        seconds = len(rates)
        self._profile = profile
        self._clock = 0
        self._backlog = 0.0
        self._speeds: dict[int, float] = {}
        self._serving: set[int] = set()
        self._last = -1
        self._arrivals = poisson_counts(rates, seed)
        self._step = np.zeros(seconds)
        self._wait = np.zeros(seconds)
        self._failed = np.zeros(seconds)
        self._running = np.zeros(seconds)
        self._waiting = np.zeros(seconds)

    def add(self, speed: float = 1.0) -> int:
        self._last += 1
        self._speeds[self._last] = speed
        self._serving.add(self._last)
        return self._last

    def set_speed(self, pod: int, speed: float) -> None:
        self._speeds[pod] = speed

    def drain(self, pod: int) -> None:
        self._serving.discard(pod)

    def remove(self, pod: int) -> None:
        self._serving.discard(pod)
        self._speeds.pop(pod, None)

    def advance(self, seconds: int) -> None:
        start, end = self._clock, min(self._clock + seconds, len(self._arrivals))
        pods = len(self._serving)
        speed = sum(self._speeds[pod] for pod in self._serving) / pods if pods else 1.0
        for second, arrivals in enumerate(self._arrivals[start:end].tolist(), start):
            self._serve(second, arrivals, pods, speed)
        self._clock = end

    def finish(self) -> None:
        """Nothing is under way: each second's requests are accounted for when it is served."""

    def seen(self, first: int, last: int) -> Seconds:
        done = slice(first, min(last, self._clock))
        return Seconds(
            self._arrivals[done],
            self._running[done],
            self._waiting[done],
            self._own_quantile(0.99, done),
        )

    def minutes(self, slo_seconds: float) -> Minutes:
        minutes = self._clock // 60
        whole = slice(0, minutes * 60)
        shape = (minutes, 60)
        late = self._served[whole] * self._share_slower(np.full(minutes * 60, slo_seconds))
        groups = np.arange(minutes * 60) // 60
        return Minutes(
            requests=self._arrivals[whole].reshape(shape).sum(axis=1),
            late=late.reshape(shape).sum(axis=1),
            failed=self._failed[whole].reshape(shape).sum(axis=1),
            p99=self._quantile_by(groups, 0.99),
        )

    def quantiles(self, levels: tuple[float, ...]) -> tuple[float, ...]:
        everything = np.zeros(self._clock, dtype=np.int64)
        return tuple(float(self._quantile_by(everything, level)[0]) for level in levels)

    def slower_shares(self, seconds: Floats) -> Floats:
        total = max(float(self._served.sum()), 1.0)
        shares = [
            float((self._served * self._share_slower(np.full(self._clock, edge))).sum()) / total
            for edge in seconds.tolist()
        ]
        return np.array(shares)

    @property
    def _served(self) -> Floats:
        return np.maximum(self._arrivals[: self._clock] - self._failed[: self._clock], 0.0)

    def _serve(self, second: int, arrivals: float, pods: int, speed: float) -> None:
        profile = self._profile
        ceiling = profile.saturation_qps * pods / speed
        before = self._backlog
        if pods and before == 0.0 and arrivals < ceiling * (1 - 1e-9):
            # A pod that is slower by a factor is one whose time runs slower by it.
            step = speed * profile.step_seconds(arrivals / pods * speed)
            self._step[second] = step
            self._running[second] = arrivals * profile.output_tokens * step
            return
        backlog = max(0.0, before + arrivals - ceiling)
        dropped = max(0.0, backlog - ceiling * profile.timeout_seconds)
        self._backlog = backlog - dropped
        self._step[second] = profile.full_step_seconds * speed
        self._wait[second] = (before + self._backlog) / 2 / ceiling if pods else 0.0
        self._running[second] = profile.max_num_seqs * pods
        self._waiting[second] = self._backlog
        self._failed[second] = dropped

    def _quantile_by(self, groups: npt.NDArray[np.int64], level: float) -> Floats:
        """Latency at a level for each group of seconds: bisection on the mixture's distribution,
        for all groups at once. It lies between the lowest and the highest of its seconds' own."""
        served = self._served[: len(groups)]
        weights = np.bincount(groups, served)
        own = self._own_quantile(level, slice(0, len(groups)))
        low, high = np.full(len(weights), np.inf), np.zeros(len(weights))
        np.minimum.at(low, groups, own)
        np.maximum.at(high, groups, own)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            slower = np.bincount(groups, served * self._share_slower(middle[groups]))
            over = slower > (1 - level) * weights
            low, high = np.where(over, middle, low), np.where(over, high, middle)
        return np.where(weights > 0, high, np.nan)

    def _own_quantile(self, level: float, seconds: slice) -> Floats:
        """Latency at a level of each second's requests alone."""
        length = float(np.searchsorted(self._profile.length_cdf, level))
        service = (length + 0.5) * self._step[seconds] + self._profile.front_end_seconds
        return np.asarray(self._wait[seconds] + service, dtype=np.float64)

    def _share_slower(self, seconds: Floats) -> Floats:
        """Share of each second's requests slower than that second's figure."""
        profile = self._profile
        done = slice(0, len(seconds))
        spare = seconds - self._wait[done] - profile.front_end_seconds
        longest = spare / np.maximum(self._step[done], 1e-12) - 0.5
        index = np.clip(np.floor(longest), -1, MAX_LENGTH).astype(np.int64)
        shares = 1.0 - np.where(index < 0, 0.0, profile.length_cdf[np.maximum(index, 0)])
        return np.asarray(shares, dtype=np.float64)
