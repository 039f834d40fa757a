"""What a decision costs, without the network: one workload, and a thousand in one process."""

from __future__ import annotations

import json
import logging
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import structlog

from forecaster.history import TrafficHistory
from forecaster.registry import combined
from policies.context import Observation, Replicas
from policies.decision import Outcome, OutcomeKind
from scaler.loop import ControlLoop, Ports
from scaler.ports import Reading
from scaler.rounds import Rounds
from scaler.settings import Workload
from simulator.forecasters import forecaster_for
from simulator.traces.generate import Diurnal, generate
from storage.database import open_engine, upgrade
from storage.decisions import SqlDecisionStore

START = datetime(2026, 3, 2, tzinfo=UTC)
WEEKS = 4
INTERVAL = timedelta(seconds=15)


@dataclass
class InstantService:
    """A metrics source and target that answer at once from memory, so that the loop is timed."""

    history: TrafficHistory
    replicas: int = 150

    def observe(self, now: datetime) -> Reading[Observation]:
        minute = int((now - self.history.start).total_seconds() // 60) - 1
        return Reading(Observation(now, float(self.history.values[minute]), 40_000.0, 0.0))

    def demand_history(
        self, start: datetime, end: datetime, step_seconds: int
    ) -> Reading[TrafficHistory]:
        known = self.history.between(start, end)
        return Reading(TrafficHistory("x", start, step_seconds, np.array(known.values)))

    def read(self, now: datetime) -> Replicas:  # noqa: ARG002
        return Replicas(self.replicas, self.replicas)

    def lead_time(self, now: datetime) -> None:
        """Nothing starts here."""

    def apply(self, desired: int, seen: Replicas, epoch: int) -> Outcome:  # noqa: ARG002
        kind = OutcomeKind.UNCHANGED if desired == self.replicas else OutcomeKind.APPLIED
        self.replicas = desired
        return Outcome(kind)


def workload(name: str) -> Workload:
    return Workload.model_validate(
        {
            "name": name,
            "target": {"name": name, "mode": "shadow"},
            "demand": {"query": "x"},
            "capacity": {"qpsPerReplica": 1080},
            "maxReplicas": 400,
            "history": {"days": 7 * WEEKS, "stepSeconds": 60},
        }
    )


def traffic() -> TrafficHistory:
    return generate(Diurnal(), START, 7 * WEEKS + 1, seed=1)


def loops(count: int, store: SqlDecisionStore) -> dict[str, ControlLoop]:
    history = traffic()
    built = {}
    for number in range(count):
        name = f"workload-{number}"
        service = InstantService(history)
        settings = workload(name)
        built[name] = ControlLoop(
            settings.loop_settings(15.0),
            Ports(service, service, store),
            forecaster_for(settings, 15.0),
        )
    return built


def one_workload(ticks: int = 1000) -> dict[str, float]:
    """Milliseconds a tick: observe, forecast, decide, record in SQLite, act, record."""
    with tempfile.TemporaryDirectory() as folder:
        store = _store(Path(folder))
        loop, settings = loops(1, store)["workload-0"], workload("workload-0")
        now = START + timedelta(days=7 * WEEKS, hours=8)
        loop.refit(now)  # the first one loads compiled code
        began = time.perf_counter()
        loop.refit(now)
        calibrated = time.perf_counter() - began
        model = combined(settings.traffic_calendar())
        began = time.perf_counter()
        model.fit(traffic().between(START, now), now, loop.settings.windows)
        fit = time.perf_counter() - began
        loop.tick(now)
        times = []
        for _ in range(ticks):
            now += INTERVAL
            began = time.perf_counter()
            loop.tick(now)
            times.append((time.perf_counter() - began) * 1000)
    return {
        "ticks": ticks,
        "fit_seconds": round(fit, 3),
        "fit_and_calibrate_seconds": round(calibrated, 3),
        "tick_ms_median": round(statistics.median(times), 2),
        "tick_ms_p99": round(float(np.quantile(times, 0.99)), 2),
    }


def thousand_workloads(count: int = 1000, rounds: int = 5) -> dict[str, float]:
    """Seconds a round of decisions, each with its own history and fitted model, and peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        store = _store(Path(folder))
        built = loops(count, store)
        failures: list[object] = []
        group = Rounds(
            built, lambda result, _: failures.append(result) if _failed(result) else None
        )
        now = START + timedelta(days=7 * WEEKS, hours=8)
        fitted = built["workload-0"].refit(now)
        for name in built:
            # Each loop loads a model of its own; fitting the same traffic a thousand times over
            # would only make the benchmark slow.
            store.save_model(name, fitted)
        group.decide_all(now)
        times = []
        for _ in range(rounds):
            now += INTERVAL
            began = time.perf_counter()
            group.decide_all(now)
            times.append(time.perf_counter() - began)
        assert not failures, failures[:3]
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "workloads": count,
        "round_seconds_median": round(statistics.median(times), 2),
        "round_seconds_max": round(max(times), 2),
        "peak_memory_gib": round(peak_kib / 1024**2, 2),
    }


def _failed(result: object) -> bool:
    return type(result).__name__ == "Failure"


def _store(folder: Path) -> SqlDecisionStore:
    engine = open_engine(f"sqlite:///{folder / 'bench.db'}")
    upgrade(engine)
    return SqlDecisionStore(engine)


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    print(json.dumps(one_workload() if sys.argv[1] == "one" else thousand_workloads()))
