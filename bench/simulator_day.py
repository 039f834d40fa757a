"""`python -m bench.simulator_day POLICY ENGINE SCALE PEAK`: a day with the autoscaler in the loop.

A generated weekday after a week of history, through the daemon's own loop, its log in memory. Each
day runs in a process of its own, so that its peak memory is its own, and says as JSON what it cost
and gave; what compiles is run before.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from bench.memory import peak_kib
from bench.runs import run_of
from scaler.workers import quiet_logs
from simulator.fleet import FleetSettings
from simulator.lifecycle import Lifecycle, constant_cold_start
from simulator.pod import PROFILES
from simulator.replay import Scenario, first_replicas
from simulator.traces.generate import Diurnal, generate
from simulator.whatif import run_one

PROFILE = PROFILES["h100-1200"]
COLD_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Day:
    """What a day cost and gave; `scale` pods stood for one."""

    policy: str
    engine: str
    scale: int
    cpu_seconds: float
    wall_seconds: float
    peak_mib: float
    requests: int
    pod_hours: float
    bad_ratio: float
    p99_seconds: float
    p99_by_minute: tuple[float, ...]

    def minutes_off(self, other: Day) -> tuple[float, float]:
        """How far the P99 of a minute is from another day's, in the mean and at most."""
        off = np.abs(np.array(self.p99_by_minute) / np.array(other.p99_by_minute) - 1)
        return float(off.mean()), float(off.max())


def scenario(engine: str, scale: int, peak: float) -> Scenario:
    traffic = generate(Diurnal(peak_qps=peak), datetime(2026, 3, 2, tzinfo=UTC), 8, 1)
    starts_at = traffic.end - timedelta(days=1)
    first = first_replicas(traffic, starts_at, COLD_SECONDS, PROFILE.capacity_within(1.0))
    fleet = FleetSettings(Lifecycle(constant_cold_start(COLD_SECONDS)), COLD_SECONDS, first)
    return Scenario(traffic, starts_at, traffic.end, fleet, PROFILE, engine, scale=scale)


def play(policy: str, engine: str, scale: int, peak: float) -> Day:
    day = scenario(engine, scale, peak)
    run = run_of(day, policy)
    run_one(replace(day, until=day.starts_at + timedelta(minutes=5)), run)
    began = time.process_time()
    done = run_one(day, run)
    used = time.process_time() - began
    card = done.card
    return Day(
        policy,
        engine,
        scale,
        used,
        done.seconds,
        peak_kib() / 1024,
        card.requests,
        card.pod_hours,
        card.bad_ratio,
        card.p99_seconds,
        tuple(card.p99_by_minute.tolist()),
    )


def days_at_once(asked: list[tuple[str, str, int]], peak: float) -> list[Day]:
    """Each in a process of its own, all begun together."""
    commands = [
        [sys.executable, "-m", "bench.simulator_day", policy, engine, str(scale), str(peak)]
        for policy, engine, scale in asked
    ]
    running = [subprocess.Popen(one, stdout=subprocess.PIPE, text=True) for one in commands]
    said = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise RuntimeError(f"a day failed; it said {said}")
    return [Day(**json.loads(text.splitlines()[-1])) for text in said]


def main() -> None:
    quiet_logs()
    policy, engine, scale, peak = sys.argv[1:]
    print(json.dumps(asdict(play(policy, engine, int(scale), float(peak)))))


if __name__ == "__main__":
    main()
