"""The exact engine as a fleet sees engines: one pod at a time, one traffic from the start."""

from __future__ import annotations

import numpy as np

from forecaster.history import Floats
from simulator.balancers import Balancer
from simulator.engines.engine import NO_RETRIES, Minutes, Retries, Seconds
from simulator.engines.exact import ExactEngine, ExactSettings, most_pods, slot_within
from simulator.engines.histogram import TICK_SECONDS, WIDTH, Counts, edges, quantile, ticks_of
from simulator.pod import PodProfile

MAX_PODS = 4_000
"""Starting, serving and draining pods together; far above what a run may ask for."""
LONGEST_DRAIN_SECONDS = 86_400.0
"""The fleet says when a draining pod's time is over."""


class ExactFleetEngine:
    """Implements Engine; P99 by second is not known, since requests are recorded when they end."""

    def __init__(
        self,
        profile: PodProfile,
        rates: Floats,
        seed: int,
        balancer: Balancer | str,
        slo_seconds: float,
        retries: Retries = NO_RETRIES,
    ) -> None:
        self._rates = rates
        self._slo_seconds = slo_seconds
        slot = slot_within(profile.t0_seconds)
        self._exact = ExactEngine(
            profile,
            balancer,
            seed,
            min(MAX_PODS, most_pods(profile, slot)),
            ExactSettings(
                slo_seconds,
                slot,
                profile.max_waiting,
                retries.ratio,
                retries.delay_seconds,
                drain_grace_seconds=LONGEST_DRAIN_SECONDS,
            ),
        )
        self._gone: set[int] = set()
        self._finished = False

    def add(self, speed: float = 1.0) -> int:
        return self._exact.activate(1, speed)[0]

    def set_speed(self, pod: int, speed: float) -> None:
        self._exact.set_speed(pod, speed)

    def drain(self, pod: int) -> None:
        self._exact.drain(pod)
        self._gone.add(pod)

    def remove(self, pod: int) -> None:
        """A draining pod leaves by itself once it is empty."""
        if pod not in self._gone or pod in self._exact.draining:
            self._exact.crash(pod)

    def advance(self, seconds: int, share: float = 1.0) -> None:
        """These pods get a share of the traffic that the engine was made for."""
        clock = self._exact.clock
        self._exact.advance(self._rates[clock : clock + seconds] * share)

    def finish(self) -> None:
        """What is still under way after the last second is neither served nor failed."""
        if not self._finished:
            self._exact.flush()
            self._finished = True

    def arrivals(self, first: int, last: int) -> Floats:
        return np.asarray(self._exact.arrivals[first:last], dtype=np.float64)

    def offered(self, first: int, last: int) -> Floats:
        return self.arrivals(first, last) + self._exact.retried[first:last]

    def seen(self, first: int, last: int) -> Seconds:
        arrivals = self.arrivals(first, last)
        return Seconds(
            arrivals=arrivals,
            running=self._exact.running[first:last].astype(np.float64),
            waiting=self._exact.waiting[first:last].astype(np.float64),
            p99=np.full(len(arrivals), np.nan),
        )

    def minutes(self, slo_seconds: float) -> Minutes:
        """Raises ValueError for an objective other than the one that requests were counted at."""
        if slo_seconds != self._slo_seconds:
            raise ValueError(f"late requests were counted at {self._slo_seconds:g} s")
        exact, whole = self._exact, self._exact.clock // 60
        lost = exact.failed + exact.timed_out + exact.shed
        return Minutes(
            requests=exact.requests[:whole].astype(np.float64),
            late=exact.late[:whole].astype(np.float64),
            failed=lost[:whole].astype(np.float64),
            p99=np.array([exact.quantile(0.99, minute) for minute in range(whole)]),
        )

    def slower_shares(self, seconds: Floats, weights: Floats | None = None) -> Floats:
        """`weights` says how many times the requests of each minute begun count: once without."""
        counts = self._counts(weights)
        limits = edges(ticks_of(self._slo_seconds)) * TICK_SECONDS
        below = np.interp(
            seconds, limits, np.concatenate([[0], np.cumsum(counts[: len(limits) - 1])])
        )
        return np.asarray(1.0 - below / max(1, int(counts.sum())), dtype=np.float64)

    def quantiles(
        self, levels: tuple[float, ...], weights: Floats | None = None
    ) -> tuple[float, ...]:
        """Weights as those of `slower_shares`."""
        counts = self._counts(weights)
        objective = ticks_of(self._slo_seconds)
        return tuple(quantile(counts, level, objective) for level in levels)

    def _counts(self, weights: Floats | None) -> Counts:
        if weights is None:
            return np.asarray(self._exact.histograms.sum(axis=0, dtype=np.int64))
        counts = np.zeros(WIDTH)
        for weight, row in zip(weights, self._exact.histograms, strict=True):
            counts += weight * row
        return np.rint(counts).astype(np.int64)
