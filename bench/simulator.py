"""`python -m bench.simulator`: requests a second of the exact engine, of SimPy, and of bare memory.

One job for all: 200 pods at 70 % of saturation, power of two choices, lognormal lengths, every
latency kept. Everything is timed in one process, alternately, by processor time, best of N:
ratios of one run are what counts.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from multiprocessing import Queue, get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np

from bench.simpy_models import Served, Traffic, resource_a_request, step_a_event
from scaler.settings import Workload
from simulator.engines.compiled import compiled
from simulator.engines.exact import ExactEngine
from simulator.fleet import FleetSettings
from simulator.lifecycle import Lifecycle, constant_cold_start
from simulator.pod import PROFILES, PodProfile
from simulator.replay import Scenario
from simulator.traces.generate import Diurnal, generate
from simulator.whatif import Run, quiet_logs, run_one

PROFILE = PROFILES["h100-1200"]
PODS = 200
LOAD = 0.7
RATE = LOAD * PROFILE.saturation_qps * PODS
FLOOR = Path(__file__).with_name("floor.c")
WARM_UP_SECONDS = 8
SIDE_BY_SIDE_SECONDS = 1500
COLD_SECONDS = 180.0
SPIN_TURNS = 20_000_000_000

Measured = dict[str, float]


def table(profile: PodProfile) -> list[int]:
    quantiles = (np.arange(4096) + 0.5) / 4096
    return [int(length) for length in np.searchsorted(profile.length_cdf, quantiles)]


def simpy_rate(model: Callable[[PodProfile, int, Traffic], Served], seconds: float) -> float:
    """Requests a second of processor time, the unfinished ones counted: in SimPy's favour."""
    began = time.process_time()
    served = model(PROFILE, PODS, Traffic(RATE, seconds, table(PROFILE)))
    return served.sent / (time.process_time() - began)


def engine(seconds: int) -> ExactEngine:
    made = ExactEngine(PROFILE, "p2c", 1, PODS)
    made.activate(PODS)
    made.advance(np.full(seconds, RATE))
    return made


def exact_rate(made: ExactEngine, seconds: int) -> float:
    before, began = made.total_arrivals, time.process_time()
    made.advance(np.full(seconds, RATE))
    return (made.total_arrivals - before) / (time.process_time() - began)


def floor_rate(program: Path) -> float:
    done = subprocess.run([program], check=True, capture_output=True, text=True)
    return 1e9 / float(done.stdout)


def compiled_floor(folder: Path) -> Path | None:
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    program = folder / "floor"
    subprocess.run([compiler, "-O3", "-o", str(program), str(FLOOR)], check=True)
    return program


def measure(rounds: int) -> Measured:
    """Requests a second of each, the best of so many rounds."""
    best: Measured = {}

    def keep(name: str, rate: float) -> None:
        best[name] = max(best.get(name, 0.0), rate)

    made = engine(WARM_UP_SECONDS)
    with tempfile.TemporaryDirectory() as folder:
        program = compiled_floor(Path(folder))
        for _ in range(rounds):
            keep("simpy_resource", simpy_rate(resource_a_request, 1.5))
            keep("simpy_step", simpy_rate(step_a_event, 3.0))
            for _ in range(3):
                keep("exact", exact_rate(made, 10))
                if program is not None:
                    keep("floor", floor_rate(program))
    made.flush()
    return best


def whole_day(peak: float) -> Measured:
    """A day of the diurnal pattern, pods following demand each minute, at 70 % load."""
    hours = np.arange(86_400) / 3600
    rates = peak * (0.5 + 0.5 * np.sin((hours - 8) / 24 * 2 * np.pi)) * 0.9 + 0.1 * peak
    most = int(np.ceil(peak / (LOAD * PROFILE.saturation_qps))) + 1
    made = ExactEngine(PROFILE, "p2c", 1, most + 60)
    began = time.process_time()
    for minute in range(1440):
        ahead = rates[60 * minute : 60 * minute + 60]
        wanted = int(np.ceil(ahead.max() / (LOAD * PROFILE.saturation_qps)))
        active = made.active
        made.activate(max(0, wanted - len(active)))
        for pod in active[wanted:]:
            made.drain(pod)
        made.advance(ahead)
    made.flush()
    return {
        "requests": made.total_arrivals,
        "cpu_seconds": time.process_time() - began,
        "p99_seconds": made.quantile(0.99),
        "p999_seconds": made.quantile(0.999),
    }


@compiled
def spin(turns: int) -> np.uint64:
    """Registers alone: what two processors give to work that shares nothing."""
    word = np.uint64(1)
    for _ in range(turns):
        word = word * np.uint64(6364136223846793005) + np.uint64(1)
    return word


def busy(work: str, start: Barrier, taken: Queue[tuple[float, float]]) -> None:
    """Wall and processor time of one piece of work, begun when its neighbours begin."""
    made = engine(WARM_UP_SECONDS)
    spin(10)
    start.wait()
    began, used = time.perf_counter(), time.process_time()
    if work == "spin":
        spin(SPIN_TURNS)
    else:
        made.advance(np.full(SIDE_BY_SIDE_SECONDS, RATE))
    taken.put((time.perf_counter() - began, time.process_time() - used))


def together(work: str, count: int) -> tuple[float, float]:
    """The longest wall time of so many at once, and their mean processor time."""
    context = get_context("spawn")
    start, taken = context.Barrier(count), context.Queue()
    processes = [context.Process(target=busy, args=(work, start, taken)) for _ in range(count)]
    for process in processes:
        process.start()
    times = [taken.get() for _ in processes]
    for process in processes:
        process.join()
    return max(wall for wall, _ in times), sum(used for _, used in times) / count


def side_by_side(rounds: int) -> Measured:
    """How much longer two at once take than one alone, in wall and in processor time: the engine,
    and a loop that touches no memory. What both show is the machine's, the rest is the engine's."""
    best: Measured = {}
    for work in ("exact", "spin"):
        tried = [(together(work, 1), together(work, 2)) for _ in range(rounds)]
        wall = min(two[0] for _, two in tried) / min(one[0] for one, _ in tried)
        used = min(two[1] for _, two in tried) / min(one[1] for one, _ in tried)
        best |= {f"{work}_wall_ratio": wall, f"{work}_processor_ratio": used}
    return best


def report_pair(pair: Measured) -> str:
    lines = [
        "| two at once, against one alone | wall time | processor time of each |",
        "|---|---|---|",
    ]
    for label, work in (("exact engine", "exact"), ("a loop that touches no memory", "spin")):
        wall, used = pair[f"{work}_wall_ratio"], pair[f"{work}_processor_ratio"]
        lines.append(f"| {label} | {wall:.2f} x | {used:.2f} x |")
    return "\n".join(lines)


def fluid_day(rounds: int) -> Measured:
    """Processor seconds of a virtual day through the daemon's own loop and its log, decided on
    every 15 s: with a fixed margin, and with the margin calibrated; what compiles is run before."""
    traffic = generate(Diurnal(), datetime(2026, 3, 2, tzinfo=UTC), 8, 1)
    cold = constant_cold_start(COLD_SECONDS)
    fleet = FleetSettings(Lifecycle(cold), COLD_SECONDS, initial_replicas=60)
    day = Scenario(traffic, traffic.end - timedelta(days=1), traffic.end, fleet, PROFILE)
    best: Measured = {}
    for name, parameters in (("fixed_margin", {"margin": 2.0}), ("calibrated", {})):
        run = Run(predictive(parameters), 15.0)
        run_one(day, run)
        for _ in range(rounds):
            began = time.process_time()
            run_one(day, run)
            best[name] = min(best.get(name, math.inf), time.process_time() - began)
    return best


def predictive(parameters: dict[str, float]) -> Workload:
    capacity = PROFILE.capacity_within(1.0)
    return Workload.model_validate(
        {
            "name": "day",
            "target": {"name": "day", "mode": "shadow"},
            "demand": {"query": "day"},
            "capacity": {"qpsPerReplica": capacity, "saturationQps": PROFILE.saturation_qps},
            "minReplicas": 1,
            "maxReplicas": 450,
            "leadTime": {"p50Seconds": COLD_SECONDS, "p95Seconds": COLD_SECONDS},
            "history": {"days": 8},
            "policy": {"name": "predictive", "parameters": parameters},
        }
    )


def report(best: Measured) -> str:
    exact = best["exact"]
    rows = [
        ("SimPy, a Resource a pod, a process a request", "simpy_resource"),
        ("SimPy, same pod model, an event a step", "simpy_step"),
        ("exact engine, every request", "exact"),
        ("C, memory alone", "floor"),
    ]
    lines = ["| | requests/s | ns | exact engine is |", "|---|---|---|---|"]
    for label, name in rows:
        if name not in best:
            lines.append(f"| {label} | skipped: no C compiler found | | |")
            continue
        rate = best[name]
        ratio = f"{exact / rate:,.0f} x" if exact / rate > 10 else f"{exact / rate:.2f} x"
        lines.append(f"| {label} | {rate:,.0f} | {1e9 / rate:,.1f} | {ratio} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--day", action="store_true", help="also a whole day, about two minutes")
    parser.add_argument("--peak", type=float, default=200_000.0, help="peak rate of the day")
    options = parser.parse_args()
    best = measure(options.rounds)
    print(report(best))
    pair = side_by_side(options.rounds)
    print(report_pair(pair))
    quiet_logs()
    fluid = fluid_day(options.rounds)
    for name, seconds in fluid.items():
        print(f"a virtual day, fluid, our loop, {name.replace('_', ' ')}: {seconds:.2f} s")
    result: dict[str, object] = {
        "requests_per_second": best,
        "side_by_side": pair,
        "fluid_day_seconds": fluid,
    }
    if options.day:
        result["day"] = whole_day(options.peak)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
