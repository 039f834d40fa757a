"""SimulatedFleet: pods, their cold starts and drains, seen through ports as a real fleet is.

It is a MetricsSource and a ScaleTarget. A policy sees nothing earlier than it would in life:
metrics are scraped at an interval and arrive with a lag, and a pod counts as ready only when its
cold start is over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from forecaster.history import Floats, TrafficHistory
from policies.context import Observation, ProblemKind, Replicas
from policies.decision import Outcome, OutcomeKind
from scaler.ports import MetricsError, Reading
from simulator.engines.fluid import FluidEngine
from simulator.pod import PodProfile
from simulator.traces.arrivals import poisson_counts, rates_by_second

P95_OVER_SIGMA = 1.6448536269514722


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Lognormal time from a pod's creation until it is ready."""

    p50_seconds: float
    p95_seconds: float

    def draw(self, rng: np.random.Generator) -> float:
        if self.p50_seconds <= 0:
            return 0.0
        sigma = math.log(self.p95_seconds / self.p50_seconds) / P95_OVER_SIGMA
        return self.p50_seconds * math.exp(sigma * rng.standard_normal())


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """How the fleet starts, is scraped and drains."""

    profile: PodProfile
    cold_start: ColdStart
    initial_replicas: int
    scrape_seconds: int = 15
    lag_seconds: int = 15
    rate_window_seconds: int = 60
    drain_seconds: int = 30
    seed: int = 0


@dataclass(slots=True)
class Pod:
    """Seconds on the fleet's clock; a deleted pod is gone when it has drained."""

    created: float
    ready: float


class SimulatedFleet:
    """Serves the traffic from `starts_at` on; what lies before is history that it can tell."""

    def __init__(
        self, traffic: TrafficHistory, starts_at: datetime, settings: FleetSettings
    ) -> None:
        self.settings = settings
        self.starts_at = starts_at
        served = traffic.between(starts_at, traffic.end)
        self.arrivals: Floats = poisson_counts(rates_by_second(served), settings.seed)
        self.engine = FluidEngine(settings.profile, len(self.arrivals))
        self._past = traffic.between(traffic.start, starts_at)
        self._rng = np.random.Generator(np.random.Philox(key=settings.seed + 1))
        self._ready = [Pod(0.0, 0.0) for _ in range(settings.initial_replicas)]
        self._starting: list[Pod] = []
        self._draining: list[float] = []
        self._clock = 0
        self._epoch: int | None = None
        self._ready_by_second = np.zeros(len(self.arrivals))
        self._billed_by_second = np.zeros(len(self.arrivals))
        self.scale_ups = 0
        self.scale_downs = 0

    @property
    def now(self) -> datetime:
        return self.starts_at + timedelta(seconds=self._clock)

    @property
    def ready_by_second(self) -> Floats:
        return self._ready_by_second[: self._clock]

    @property
    def billed_by_second(self) -> Floats:
        """Pods that cost money in each second: starting, ready and draining ones."""
        return self._billed_by_second[: self._clock]

    def advance(self, until: datetime) -> None:
        """Serve every second up to `until`."""
        last = min(int((until - self.starts_at).total_seconds()), len(self.arrivals))
        for second in range(self._clock, last):
            self._move_pods(second)
            self._ready_by_second[second] = len(self._ready)
            self._billed_by_second[second] = self._spec + len(self._draining)
            self.engine.advance(second, float(self.arrivals[second]), len(self._ready))
        self._clock = max(self._clock, last)
        self._move_pods(self._clock)

    @property
    def _spec(self) -> int:
        return len(self._ready) + len(self._starting)

    def _move_pods(self, second: int) -> None:
        if self._starting:
            self._ready += [pod for pod in self._starting if pod.ready <= second]
            self._starting = [pod for pod in self._starting if pod.ready > second]
        if self._draining:
            self._draining = [gone for gone in self._draining if gone > second]

    def observe(self, now: datetime) -> Reading[Observation]:
        scraped = self._scraped(now)
        window = self.settings.rate_window_seconds
        if scraped < window:
            history = self._past.last(max(1, 60 // self._past.step_seconds))
            demand = float(history.values[-1]) if len(history) else 0.0
            return Reading(Observation(at=now, demand_qps=demand))
        newest = slice(scraped - window, scraped)
        return Reading(
            Observation(
                at=self.starts_at + timedelta(seconds=scraped),
                demand_qps=float(self.arrivals[newest].mean()),
                requests_running=float(self.engine.running[scraped - 1]),
                requests_waiting=float(self.engine.waiting[scraped - 1]),
                latency_p99_seconds=self.engine.p99_at(scraped - 1),
            )
        )

    def demand_history(
        self, start: datetime, end: datetime, step_seconds: int
    ) -> Reading[TrafficHistory]:
        if end > self.now:
            raise MetricsError(ProblemKind.NO_DATA, f"nothing is known at {end.isoformat()} yet")
        past = self._past.resampled(step_seconds)
        whole = self._scraped(self.now) // step_seconds
        seconds = self.arrivals[: max(0, whole) * step_seconds].reshape(-1, step_seconds)
        served = TrafficHistory(past.series, self.starts_at, step_seconds, seconds.mean(axis=1))
        known = past.extended(served, len(past) + len(served)) if len(past) else served
        return Reading(known.between(start, end))

    def read(self, now: datetime) -> Replicas:  # noqa: ARG002  # the fleet has its own clock
        lead = timedelta(seconds=self.settings.cold_start.p95_seconds)
        return Replicas(
            spec=self._spec,
            ready=len(self._ready),
            starting=tuple(self._expected(pod, lead) for pod in self._starting),
            draining=len(self._draining),
            stored_epoch=self._epoch,
        )

    def apply(self, desired: int, seen: Replicas, epoch: int) -> Outcome:
        if seen.spec != self._spec:
            return Outcome(OutcomeKind.CONFLICT, f"expected {seen.spec}, found {self._spec}")
        self._epoch = epoch
        if desired == self._spec:
            return Outcome(OutcomeKind.UNCHANGED)
        if desired > self._spec:
            self.scale_ups += 1
            self._start(desired - self._spec)
        else:
            self.scale_downs += 1
            self._stop(self._spec - desired)
        return Outcome(OutcomeKind.APPLIED)

    def _start(self, count: int) -> None:
        for _ in range(count):
            ready = self._clock + self.settings.cold_start.draw(self._rng)
            self._starting.append(Pod(float(self._clock), ready))

    def _stop(self, count: int) -> None:
        """As a ReplicaSet does: pods that are not ready first, then the youngest."""
        for _ in range(count):
            pods = self._starting or self._ready
            youngest = max(pods, key=lambda pod: pod.created)
            pods.remove(youngest)
            if pods is self._ready:
                self._draining.append(float(self._clock + self.settings.drain_seconds))

    def _scraped(self, now: datetime) -> int:
        """The newest second that a scrape has seen and that has reached us."""
        seen = int((now - self.starts_at).total_seconds()) - self.settings.lag_seconds
        return seen // self.settings.scrape_seconds * self.settings.scrape_seconds

    def _expected(self, pod: Pod, lead: timedelta) -> datetime:
        created = self.starts_at + timedelta(seconds=pod.created)
        return max(created + lead, self.now)
