"""`python -m bench.ablations --traces DIR`: what each part of our policy is worth, what its default
settings give, what every policy gives as it comes, and whether the exact engine agrees. Writes
their parts of docs/policies.md.

Each trace is scaled to a peak of 200,000 requests a second and scored on its second half with a
cold start of 180 s, as in bench.policies. The forecasts of a trace are made once; every variant is
then played through the compiled loop over the same margins.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.parts import set_part
from bench.policies import BURSTS, PAGE, POOLED, pooled, table
from bench.runs import PEAK_QPS, PROFILE, run_of, scenario_of
from policies.registry import POLICIES
from scaler.workers import process_pool, quiet_logs
from simulator.replay import Scenario, first_replicas, static_peak
from simulator.scorecard import Scorecard
from simulator.sweep import loop
from simulator.sweep.calibrate import MARGINS
from simulator.sweep.frontier import (
    MARGIN_KNOB,
    PEERS,
    TARGETS,
    Foretold,
    Setting,
    World,
    foretold,
    plan_of,
    sweep,
)
from simulator.sweep.plan import Rows, SweepRun
from simulator.sweep.results import clairvoyant_hours, point
from simulator.traces.trace_file import read_trace
from simulator.whatif import Run, run_one

COLD_SECONDS = 180
DEFAULT_TARGET = 1e-4
SCALE, FLOOR = 1, 2
"""Their places in a row of a window."""
EXACT_POLICIES = ("predictive", "asymmetric_concurrency", "hpa")
EXACT_LEVEL = 1e-3
SHIPPED = tuple(name for name in POLICIES if name not in ("static", "wva_v1", "wva_v2"))
SHIPPED_DAYS = 2
Curve = list[tuple[float, float, float]]
"""Knob, excess and bad ratio of each setting."""


@dataclass(frozen=True, slots=True)
class Case:
    """One trace with what our forecaster says along its scored half."""

    name: str
    world: World
    run: SweepRun
    said: Foretold
    optimum_hours: float
    static_peak: int

    def play(self, knobs: Any, rows: Rows, run: SweepRun | None = None) -> Setting:
        tally = (run or self.run).play(loop.PREDICTIVE, knobs, rows=rows)
        return Setting("predictive", MARGIN_KNOB, 0.0, tally)

    def figures(self, setting: Setting) -> tuple[float, float]:
        found = point(setting, self.world, self.optimum_hours)
        return found.excess, found.bad_ratio


def case_of(path: Path) -> Case:
    scenario = scenario_of(path, COLD_SECONDS)
    capacity = scenario.profile.capacity_within(1.0)
    run = run_of(scenario, "predictive")
    plan = plan_of(scenario, run.workload, run.interval_seconds)
    world = World.of(scenario, run.workload.history.step_seconds)
    said = foretold(world, run.workload, plan)
    optimum = clairvoyant_hours(world, capacity)
    return Case(path.stem, world, world.run(plan), said, optimum, static_peak(scenario, capacity))


def whole(case: Case) -> tuple[SweepRun, Rows]:
    return case.run, case.said.at_margin()


def no_forecast(case: Case) -> tuple[SweepRun, Rows]:
    """Floors go with it: what stands in windows that are not trusted is spared."""
    order, hold, trusted = case.said.at_margin()
    return case.run, (np.zeros_like(order), np.zeros_like(hold), np.zeros_like(trusted))


def no_reactive(case: Case) -> tuple[SweepRun, Rows]:
    """A fleet whose present is never seen: what is there already asks for nothing. Where no
    forecast is trusted it goes by the last one that was, since nothing else is left."""
    blind = replace(case.run.plan, lag_seconds=1e12)
    order, hold, trusted = case.said.at_margin()
    newest = np.maximum.accumulate(np.where(trusted, np.arange(len(trusted)), 0))
    rows = (order[newest], hold[newest], np.ones_like(trusted))
    return replace(case.run, plan=blind, qps_before=0.0), rows


def symmetric_down(case: Case) -> tuple[SweepRun, Rows]:
    """Every fall of the order is followed at once."""
    order, hold, trusted = case.said.at_margin()
    return case.run, (order, np.zeros_like(hold), trusted)


def no_floors(case: Case) -> tuple[SweepRun, Rows]:
    """Neither edges that recur by the clock nor rises that nothing announced."""
    order, hold, trusted = case.said.at_margin()
    return case.run, (without(order, FLOOR), hold, trusted)


def no_surprise_hold(case: Case) -> tuple[SweepRun, Rows]:
    order, hold, trusted = case.said.at_margin()
    return case.run, (order, without(hold, FLOOR), trusted)


def constant_scale(case: Case) -> tuple[SweepRun, Rows]:
    """The error's scale as it was on average before the scored half."""
    order, hold, trusted = case.said.at_margin()
    scales = case.said.tried[0][1].steady_scales if case.said.tried else (0.05, 0.05)
    steady = []
    for rows, scale in zip((order, hold), scales, strict=True):
        changed = rows.copy()
        changed[:, SCALE] = scale
        steady.append(changed)
    return case.run, (steady[0], steady[1], trusted)


def without(rows: Any, column: int) -> Any:
    changed = rows.copy()
    changed[:, column] = 0.0
    return changed


VARIANTS: dict[str, Callable[[Case], tuple[SweepRun, Rows]]] = {
    "whole": whole,
    "no forecast": no_forecast,
    "no reactive part": no_reactive,
    "symmetric down": symmetric_down,
    "no recurring edges, no rises": no_floors,
    "no surprise hold": no_surprise_hold,
    "constant scale of error": constant_scale,
}


@dataclass(frozen=True, slots=True)
class Found:
    """What one trace came to: a curve a variant, one of targets, and what the defaults gave."""

    name: str
    by_margin: dict[str, Curve]
    by_target: Curve
    defaults: dict[str, float]


def found_of(path: Path) -> Found:
    case = case_of(path)
    by_margin: dict[str, Curve] = {}
    for name, variant in VARIANTS.items():
        run, rows = variant(case)
        by_margin[name] = [
            (margin, *case.figures(case.play(np.full(run.ticks, margin), rows, run)))
            for margin in MARGINS
        ]
    by_target = []
    for target in TARGETS:
        setting = case.play(*case.said.at_target(target))
        by_target.append((target, *case.figures(setting)))
        if target == DEFAULT_TARGET:
            defaults = figures_of(case, setting)
    return Found(case.name, by_margin, by_target, defaults)


def figures_of(case: Case, setting: Setting) -> dict[str, float]:
    excess, bad = case.figures(setting)
    minutes = len(case.world.arrivals) // 60
    return {
        "excess": excess,
        "bad_ratio": bad,
        "bad": float(setting.tally[loop.BAD]),
        "requests": float(case.world.arrivals.sum()),
        "minutes": minutes,
        "minutes_over": float(setting.tally[loop.OVER]),
        "most_over_static_peak": float(setting.tally[loop.MOST]) / case.static_peak,
        "hours_over_static_peak": float(setting.tally[loop.POD_SECONDS])
        / 3600
        / (case.static_peak * minutes / 60),
    }


def ablations(found: list[Found]) -> str:
    """The tables of the parts, with and without the burst-dominated trace."""
    text = ["## What each part is worth\n"]
    text.append(
        "\nOne margin for all traces, swept; each row takes one part away. The last row is the "
        "whole with a margin calibrated each day for one target: what users get. These traces hold "
        "no outage; what the surprise hold is for shows in the made-up troubles.\n"
    )
    for left_out in ((), (BURSTS,)):
        cases = [each for each in found if each.name not in left_out]
        rows = {name: pooled([each.by_margin[name] for each in cases]) for name in VARIANTS}
        rows["whole, calibrated"] = pooled([each.by_target for each in cases])
        names = ", ".join(each.name for each in cases)
        text.append(table(f"Pooled over {names}: mean excess at a mean bad ratio.", rows))
    return "".join(text)


def defaults(found: list[Found]) -> str:
    """What somebody gets who sets nothing."""
    lines = [
        "## Default settings\n",
        (
            f"\nNo tuning: the target is {DEFAULT_TARGET:g}, cold start {COLD_SECONDS} s. Share of "
            "minutes whose P99 kept 1 s; the most replicas at once and the GPU-hours against a "
            "fleet that always carries the peak.\n\n"
        ),
        "| trace | excess | bad ratio | minutes in SLO | most replicas | GPU-hours |\n",
        "|---|---|---|---|---|---|\n",
    ]
    for each in found:
        one = each.defaults
        lines.append(
            f"| {each.name} | {one['excess']:+.3f} | {one['bad_ratio']:.1e} | "
            f"{1 - one['minutes_over'] / one['minutes']:.3%} | "
            f"{one['most_over_static_peak']:.2f} x static peak | "
            f"{one['hours_over_static_peak']:.2f} x static peak |\n"
        )
    total = {key: sum(each.defaults[key] for each in found) for key in found[0].defaults}
    lines.append(
        f"\nAll requests together: bad ratio {total['bad'] / total['requests']:.1e}, "
        f"{1 - total['minutes_over'] / total['minutes']:.3%} of minutes in SLO; the mean of the "
        f"traces' bad ratios is {total['bad_ratio'] / len(found):.1e}.\n"
    )
    return "".join(lines)


def as_it_comes(trace: Path) -> dict[str, dict[str, Any]]:
    """The trace's last whole days under each policy in the full loop."""
    traffic = read_trace(trace)
    command = [
        sys.executable, "-c", "from scaler.cli import main; main()", "simulate",
        "--trace", str(trace), "--peak-qps", str(PEAK_QPS), "--policy", ",".join(SHIPPED),
        "--engine", "fluid", "--cold-start", str(COLD_SECONDS),
        "--warmup-days", str(int(traffic.days) - SHIPPED_DAYS), "--json", "-",
        "--end", (traffic.start + timedelta(days=int(traffic.days))).isoformat(),
    ]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {entry["policy"]: entry for entry in json.loads(done.stdout)["policies"]}


def shipped(traces: list[Path]) -> str:
    """Every policy as it comes, on the last days of each trace."""
    found = {trace.stem: as_it_comes(trace) for trace in traces}
    lines = [
        "## Every policy as it comes\n",
        (
            f"\nThe last {SHIPPED_DAYS} whole days of each trace in the full loop, fluid engine, "
            "nothing tuned: excess over the clairvoyant optimum / bad ratio. Those that go by the "
            "clock have schedules read off the days before; `perfect_forecast` is ours with the "
            "future known. The two of llm-d's WVA go by the KV cache, which these pods do not "
            "fill.\n\n"
        ),
        "| policy | " + " | ".join(found) + " |\n",
        "|---" * (len(found) + 1) + "|\n",
    ]
    for policy in SHIPPED:
        cells = [
            f"{entries[policy]['excess']:+.3f} / {entries[policy]['bad_ratio']:.0e}"
            for entries in found.values()
        ]
        lines.append(f"| {policy} | " + " | ".join(cells) + " |\n")
    return "".join(lines)


@dataclass(frozen=True, slots=True)
class Both:
    """One policy on a trace's last whole day: request by request, and in closed form."""

    trace: str
    policy: str
    exact: Scorecard
    fluid: Scorecard


def both(case: tuple[Path, str]) -> Both:
    path, policy = case
    quiet_logs()
    day = last_day(path)
    run = run_of(day, policy, every_seconds=15.0)
    if policy != "predictive":
        run = run_of(day, policy, {PEERS[policy].knob: kept_in_hindsight(day, run)})
    cards = (run_one(replace(day, engine=engine), run).card for engine in ("exact", "fluid"))
    return Both(path.stem, policy, *cards)


def last_day(path: Path) -> Scenario:
    half = scenario_of(path, COLD_SECONDS)
    traffic = half.traffic
    until = traffic.start + timedelta(days=int(traffic.days))
    starts_at = until - timedelta(days=1)
    first = first_replicas(traffic, starts_at, COLD_SECONDS, PROFILE.capacity_within(1.0))
    fleet = replace(half.fleet, initial_replicas=first)
    return replace(half, starts_at=starts_at, until=until, fleet=fleet)


def kept_in_hindsight(day: Scenario, run: Run) -> float:
    """The cheapest setting of a peer that keeps a bad ratio of 1e-3, else the best."""
    workload = run.workload
    world = World.of(day, workload.history.step_seconds)
    requests = float(world.arrivals.sum())

    def worth(each: Setting) -> tuple[float, float]:
        bad = float(each.tally[loop.BAD]) / requests
        return max(bad, EXACT_LEVEL), float(each.tally[loop.POD_SECONDS])

    return min(sweep(world, workload, run.interval_seconds, False), key=worth).value


def exact(traces: list[Path], workers: int) -> str:
    cases = [(trace, policy) for trace in traces for policy in EXACT_POLICIES]
    with process_pool(workers) as pool:
        found = list(pool.map(both, cases))
    lines = [
        "## The exact engine's word on it\n",
        (
            "\nThe last whole day of each trace in the full loop, every request simulated, against "
            "the fluid engine of the tables above; ours as it comes, peers at the cheapest setting "
            f"that keeps {EXACT_LEVEL:.0e} on that day.\n\n"
        ),
        "| trace | policy | GPU-hours, exact | fluid | differ by | bad, exact | bad, fluid |\n",
        "|---|---|---|---|---|---|---|\n",
    ]
    for each in found:
        one, other = each.exact, each.fluid
        lines.append(
            f"| {each.trace} | {each.policy} | {one.pod_hours:,.0f} | {other.pod_hours:,.0f} | "
            f"{one.pod_hours / other.pod_hours - 1:+.2%} | {one.bad_ratio:.1e} | "
            f"{other.bad_ratio:.1e} |\n"
        )
    return "".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", choices=("parts", "shipped", "exact"))
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    paths = [options.traces / f"{name}.csv" for name in POOLED]
    traces = [path for path in paths if path.exists()]
    write = partial(set_part, page=options.out)
    if options.only in (None, "parts"):
        with process_pool(options.workers) as pool:
            found = list(pool.map(found_of, traces))
        write("defaults", defaults(found))
        write("ablations", ablations(found))
    if options.only in (None, "shipped"):
        write("shipped", shipped(traces))
    if options.only in (None, "exact"):
        write("exact", exact(traces, options.workers))
    print(options.out.read_text())


if __name__ == "__main__":
    main()
