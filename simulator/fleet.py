"""SimulatedFleet: pods, their cold starts and drains, seen through ports as a real fleet is.

It is a MetricsSource and a ScaleTarget. A policy sees nothing earlier than it would in life:
metrics are scraped at an interval and arrive with a lag, and a pod counts as ready only when its
cold start is over. What the pods make of the requests is the engine's.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import numpy as np

from forecaster.history import Floats, TrafficHistory
from policies.context import LeadTime, Observation, ProblemKind, Replicas
from policies.decision import Outcome, OutcomeKind
from scaler.ports import MetricsError, Reading
from scaler.starts import Starts
from simulator.engines.engine import Engine
from simulator.lifecycle import Lifecycle
from simulator.traces.arrivals import on_step, rates_by_second

MakeEngine = Callable[[Floats], Engine]
"""An engine for a run of seconds, given their mean rates."""


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """How the fleet lives and is seen. `lead_p95_seconds` is what a starting pod is expected to
    take, as an adapter would estimate it."""

    lifecycle: Lifecycle
    lead_p95_seconds: float
    initial_replicas: int
    scrape_seconds: int = 15
    lag_seconds: int = 15
    rate_window_seconds: int = 60
    dispersion: float = 1.0
    seed: int = 0


@dataclass(slots=True, eq=False)
class Pod:
    """Seconds on the fleet's clock; `engine_pod` is its number there once it serves."""

    number: int
    created: int
    rng: np.random.Generator
    engine_pod: int | None = None
    deleted: bool = False


class SimulatedFleet:
    """Serves the traffic from `starts_at` on; what lies before is history that it can tell."""

    def __init__(
        self,
        traffic: TrafficHistory,
        starts_at: datetime,
        settings: FleetSettings,
        make_engine: MakeEngine,
    ) -> None:
        self.settings = settings
        self.starts_at = starts_at
        served = traffic.between(starts_at, traffic.end)
        rates = rates_by_second(served, settings.dispersion, settings.seed)
        self.engine = make_engine(rates)
        self.scale_ups = 0
        self.scale_downs = 0
        self._past = traffic.between(traffic.start, starts_at)
        self._length = len(rates)
        self._clock = 0
        self._epoch: int | None = None
        self._pods: list[Pod] = []
        self._serving = 0
        self._draining = 0
        self._created = 0
        self._starts = Starts()
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._event_number = 0
        self._ready = np.zeros(self._length)
        self._billed = np.zeros(self._length)
        self._started = np.zeros(self._length)
        self._deleted = np.zeros(self._length)
        for _ in range(settings.initial_replicas):
            self._serve(self._new_pod())

    @property
    def now(self) -> datetime:
        return self.starts_at + timedelta(seconds=self._clock)

    @property
    def ready_by_second(self) -> Floats:
        return self._ready[: self._clock]

    @property
    def billed_by_second(self) -> Floats:
        """Pods that cost money in each second: starting, ready and draining ones."""
        return self._billed[: self._clock]

    @property
    def started_by_second(self) -> Floats:
        """Pods ordered in each second."""
        return self._started[: self._clock]

    @property
    def deleted_by_second(self) -> Floats:
        return self._deleted[: self._clock]

    def advance(self, until: datetime) -> None:
        """Serve every second up to `until`."""
        last = min(int((until - self.starts_at).total_seconds()), self._length)
        while self._clock < last:
            self._run_events()
            due = self._events[0][0] if self._events else last
            self._serve_until(min(due, last))
        self._run_events()

    def observe(self, now: datetime) -> Reading[Observation]:
        scraped = self._scraped(now)
        window = self.settings.rate_window_seconds
        if scraped < window:
            return Reading(Observation(at=now, demand_qps=self._last_of_the_past()))
        seen = self.engine.seen(scraped - 1, scraped)
        p99 = float(seen.p99[-1])
        return Reading(
            Observation(
                at=self.starts_at + timedelta(seconds=scraped),
                demand_qps=float(self.engine.offered(scraped - window, scraped).sum()) / window,
                requests_running=float(seen.running[-1]),
                requests_waiting=float(seen.waiting[-1]),
                latency_p99_seconds=p99 if math.isfinite(p99) else None,
            )
        )

    def demand_history(
        self, start: datetime, end: datetime, step_seconds: int
    ) -> Reading[TrafficHistory]:
        if end > self.now:
            raise MetricsError(ProblemKind.NO_DATA, f"nothing is known at {end.isoformat()} yet")
        first = max(0, -int((self.starts_at - start).total_seconds() // step_seconds))
        known = min(int((end - self.starts_at).total_seconds()), self._scraped(self.now))
        last = max(first, known // step_seconds)
        seconds = self.engine.offered(first * step_seconds, last * step_seconds)
        served = TrafficHistory(
            self._past.series,
            self.starts_at + timedelta(seconds=first * step_seconds),
            step_seconds,
            seconds.reshape(-1, step_seconds).sum(axis=1) / step_seconds,
        )
        if start >= self.starts_at or not len(self._past):
            return Reading(served)
        past = on_step(self._past, step_seconds)
        return Reading(past.extended(served, len(past) + len(served)).between(start, end))

    def read(self, now: datetime) -> Replicas:  # noqa: ARG002  # the fleet has its own clock
        waiting = self._pods if self._serving < len(self._pods) else ()
        starting = [self._expected(pod) for pod in waiting if pod.engine_pod is None]
        return Replicas(
            spec=len(self._pods),
            ready=self._serving,
            starting=tuple(starting),
            draining=self._draining,
            stored_epoch=self._epoch,
        )

    def lead_time(self, now: datetime) -> LeadTime | None:
        return self._starts.lead_time(now)

    def apply(self, desired: int, seen: Replicas, epoch: int) -> Outcome:
        current = len(self._pods)
        if seen.spec != current:
            return Outcome(OutcomeKind.CONFLICT, f"expected {seen.spec}, found {current}")
        if desired == current:
            return Outcome(OutcomeKind.UNCHANGED)
        self._epoch = epoch
        second = min(self._clock, self._length - 1)
        self._started[second] += max(0, desired - current)
        self._deleted[second] += max(0, current - desired)
        if desired > current:
            self.scale_ups += 1
            for _ in range(desired - current):
                self._start(self._new_pod())
        else:
            self.scale_downs += 1
            for _ in range(current - desired):
                self._delete(self._first_to_go())
        return Outcome(OutcomeKind.APPLIED)

    def _serve_until(self, last: int) -> None:
        self._ready[self._clock : last] = self._serving
        self._billed[self._clock : last] = len(self._pods) + self._draining
        self.engine.advance(last - self._clock)
        self._clock = last

    def _new_pod(self) -> Pod:
        """A pod's luck depends on its number alone, so that all policies meet the same."""
        key = [self.settings.seed, 1_000_000 + self._created]
        rng = np.random.Generator(np.random.Philox(key=key))
        pod = Pod(self._created, self._clock, rng)
        self._created += 1
        self._pods.append(pod)
        return pod

    def _start(self, pod: Pod) -> None:
        cold = self.settings.lifecycle.cold_start
        warm = cold.warm_nodes is None or len(self._pods) + self._draining <= cold.warm_nodes
        seconds = cold.draw(pod.rng, warm)
        if math.isfinite(seconds):
            self._at(self._clock + math.ceil(seconds), partial(self._come_up, pod))

    def _come_up(self, pod: Pod) -> None:
        if not pod.deleted:
            created_at = self.starts_at + timedelta(seconds=pod.created)
            self._starts.note(pod.number, created_at, self._clock - pod.created)
            self._serve(pod)

    def _serve(self, pod: Pod) -> None:
        if pod.deleted:
            return
        life = self.settings.lifecycle
        speed = life.slow_factor if pod.rng.random() < life.slow_ratio else 1.0
        pod.engine_pod = self.engine.add(speed)
        self._serving += 1
        if pod.created != self._clock and life.slow_start_seconds:
            self.engine.set_speed(pod.engine_pod, speed * life.slow_start_factor)
            settle = partial(self._settle, pod, speed)
            self._at(self._clock + math.ceil(life.slow_start_seconds), settle)
        if life.crashes_per_pod_hour:
            hours = pod.rng.exponential(1 / life.crashes_per_pod_hour)
            self._at(self._clock + math.ceil(hours * 3600), partial(self._crash, pod))

    def _settle(self, pod: Pod, speed: float) -> None:
        if not pod.deleted and pod.engine_pod is not None:
            self.engine.set_speed(pod.engine_pod, speed)

    def _crash(self, pod: Pod) -> None:
        """The container is started anew in its place: no node and no image to wait for. Where the
        cold start is one figure, nobody knows what of it is the image's."""
        if pod.deleted or pod.engine_pod is None:
            return
        self.engine.remove(pod.engine_pod)
        pod.engine_pod = None
        self._serving -= 1
        phases = self.settings.lifecycle.cold_start.phases
        restart = sum(phase.draw(pod.rng) for phase in phases[1:] or phases)
        self._at(self._clock + max(1, math.ceil(restart)), partial(self._serve, pod))

    def _first_to_go(self) -> Pod:
        """As a ReplicaSet chooses: pods that are not ready first, then the youngest. They stand in
        the order of their creation."""
        if self._serving == len(self._pods):
            return self._pods[-1]
        return next(pod for pod in reversed(self._pods) if pod.engine_pod is None)

    def _delete(self, pod: Pod) -> None:
        pod.deleted = True
        self._pods.remove(pod)
        if pod.engine_pod is not None:
            self.engine.drain(pod.engine_pod)
            self._serving -= 1
            self._draining += 1
            gone = partial(self._gone, pod.engine_pod)
            self._at(self._clock + self.settings.lifecycle.drain_seconds, gone)

    def _gone(self, engine_pod: int) -> None:
        self._draining -= 1
        self.engine.remove(engine_pod)

    def _at(self, second: int, event: Callable[[], None]) -> None:
        self._event_number += 1
        heapq.heappush(self._events, (second, self._event_number, event))

    def _run_events(self) -> None:
        while self._events and self._events[0][0] <= self._clock:
            heapq.heappop(self._events)[2]()

    def _scraped(self, now: datetime) -> int:
        """The newest second that a scrape has seen and that has reached us."""
        seen = int((now - self.starts_at).total_seconds()) - self.settings.lag_seconds
        return seen // self.settings.scrape_seconds * self.settings.scrape_seconds

    def _expected(self, pod: Pod) -> datetime:
        seconds = max(pod.created + self.settings.lead_p95_seconds, self._clock)
        return self.starts_at + timedelta(seconds=seconds)

    def _last_of_the_past(self) -> float | None:
        known = self._past.values[np.isfinite(self._past.values)]
        return float(known[-1]) if len(known) else None
