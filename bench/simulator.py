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
from dataclasses import asdict
from datetime import UTC, datetime
from multiprocessing import Queue, get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np

from bench.parts import set_part
from bench.run import machine
from bench.runs import run_of
from bench.simpy_models import Served, Traffic, resource_a_request, step_a_event
from bench.simulator_day import Day, days_at_once, scenario
from forecaster.compiled import compiled
from scaler.workers import quiet_logs
from simulator.engines.exact import ExactEngine
from simulator.pod import PROFILES, PodProfile
from simulator.whatif import run_one

PROFILE = PROFILES["h100-1200"]
PODS = 200
LOAD = 0.7
RATE = LOAD * PROFILE.saturation_qps * PODS
FLOOR = Path(__file__).with_name("floor.c")
WARM_UP_SECONDS = 8
SIDE_BY_SIDE_SECONDS = 1500
PEAK = 200_000.0
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
    day = scenario("fluid", 1, PEAK)
    best: Measured = {}
    for name, parameters in (("fixed_margin", {"margin": 2.0}), ("calibrated", {})):
        run = run_of(day, "predictive", parameters)
        run_one(day, run)
        for _ in range(rounds):
            began = time.process_time()
            run_one(day, run)
            best[name] = min(best.get(name, math.inf), time.process_time() - began)
    return best


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


def whole_days(peak: float) -> dict[str, list[Day]]:
    """Days with the autoscaler in the loop: alone, two at once, one pod in ten, in closed form."""
    ours, peer = "predictive", "asymmetric_concurrency"
    return {
        "alone": [days_at_once([(policy, "exact", 1)], peak)[0] for policy in (ours, peer)],
        "at once": days_at_once([(policy, "exact", 1) for policy in (ours, peer)], peak),
        "a tenth": [days_at_once([(policy, "exact", 10)], peak)[0] for policy in (ours, peer)],
        "fluid": days_at_once([(ours, "fluid", 1)], peak),
    }


def report_days(days: dict[str, list[Day]]) -> str:
    lines = [
        "| | processor | wall | GPU-hours | bad | P99 | P99 of a minute off by |",
        "|---|---|---|---|---|---|---|",
    ]
    for label, kind in (
        ("exact", "alone"),
        ("exact, both at once", "at once"),
        ("exact, one pod in 10", "a tenth"),
        ("fluid", "fluid"),
    ):
        for day, whole in zip(days[kind], days["alone"], strict=False):
            mean, most = day.minutes_off(whole)
            cells = (
                f"{label}: {day.policy}",
                f"{day.cpu_seconds:,.0f} s",
                f"{day.wall_seconds:,.0f} s",
                f"{day.pod_hours:,.1f}",
                f"{day.bad_ratio:.1e}",
                f"{day.p99_seconds:.3f} s",
                f"{mean:.1%}, at most {most:.1%}" if kind in ("a tenth", "fluid") else "",
            )
            lines.append(f"| {' | '.join(cells)} |")
    one, two = days["alone"], days["at once"]
    after, at_once = sum(day.wall_seconds for day in one), max(day.wall_seconds for day in two)
    most = max(day.peak_mib for several in days.values() for day in several)
    lines.append(
        f"\nEach day is {one[0].requests / 1e9:.1f} billion requests, and none took more than "
        f"{most:,.0f} MiB. The two policies take {after:,.0f} s of wall time one after the other "
        f"and {at_once:,.0f} s in two processes: {after / at_once:.2f} x."
    )
    return "\n".join(lines)


def page(found: dict[str, str]) -> str:
    return f"""## The simulator

Written by `python -m bench.simulator --day` on {datetime.now(UTC):%Y-%m-%d}: {machine()}.

Requests a second of processor time: {PODS} pods at {LOAD:.0%} of saturation, power of two choices,
every latency kept; timed alternately in one process, best of several rounds.

{found["rates"]}

Two processes at once, against one; what both rows show is the machine's.

{found["pair"]}

A day of 200,000 requests a second at its peak, with the daemon's own loop deciding and the margin
calibrated; each day in a process of its own. Simulating one pod in ten (`--scale 10`) is for sweeps
and CI, never for the final verdict on a ramp that is short of pods: never with fewer than about ten
pods simulated, or where a class of slow pods rounds away. What a policy that goes by concurrency
sees is noisier then.

{found["days"]}
"""


def fluid_page(rounds: int) -> str:
    """The floor is measured beside it, since machines of one name differ by half."""
    days = fluid_day(rounds)
    shown = "; ".join(
        f"{name.replace('_', ' ')} {seconds:.2f} s, {1 / seconds:.2f} days a second"
        for name, seconds in days.items()
    )
    with tempfile.TemporaryDirectory() as folder:
        program = compiled_floor(Path(folder))
        floors = [floor_rate(program) for _ in range(rounds)] if program else []
    beside = f" Bare memory gave {max(floors):,.0f} requests/s beside it." if floors else ""
    return f"""### A virtual day in closed form

Written by `python -m bench.simulator --fluid` on {datetime.now(UTC):%Y-%m-%d}: {machine()}.

The day above, a decision every 15 s with its log, best of {rounds}: {shown}.{beside}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--day",
        action="store_true",
        help="also whole days, about a quarter of an hour; writes docs/benchmarks.md",
    )
    parser.add_argument(
        "--fluid", action="store_true", help="only the day in closed form; writes its part"
    )
    parser.add_argument("--peak", type=float, default=PEAK, help="peak rate of the day")
    options = parser.parse_args()
    quiet_logs()
    if options.day or options.fluid:
        set_part("simulator-fluid", fluid_page(options.rounds))
    if options.fluid:
        return
    best, pair = measure(options.rounds), side_by_side(options.rounds)
    found = {"rates": report(best), "pair": report_pair(pair)}
    result: dict[str, object] = {"requests_per_second": best, "side_by_side": pair}
    if options.day:
        days = whole_days(options.peak)
        found["days"] = report_days(days)
        set_part("simulator", page(found))
        result["days"] = {
            kind: [{**asdict(day), "p99_by_minute": None} for day in several]
            for kind, several in days.items()
        }
    for text in found.values():
        print(text, end="\n\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
