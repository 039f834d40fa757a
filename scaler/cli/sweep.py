"""`daybreak simulate --sweep`: every policy over its one knob, and the frontier that it reaches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from simulator.replay import Scenario
from simulator.results import policy_entry
from simulator.sweep import frontier, results
from simulator.sweep.frontier import World
from simulator.sweep.knobs import knob_settings, turned
from simulator.sweep.results import Point
from simulator.whatif import Finished, Run, quiet_logs, run_one


@dataclass(frozen=True, slots=True)
class Swept:
    """One policy's settings: their entries in the results and their points."""

    entries: list[dict[str, Any]]
    points: list[Point]


def sweep_all(
    scenario: Scenario, runs: Sequence[Run], calibrated: bool, workers: int
) -> list[Swept]:
    """Each policy in a process of its own, at most `workers` at once, in the order given."""
    if workers == 1:
        return [_sweep(scenario, run, calibrated) for run in runs]
    console = Console(stderr=True)
    with (
        ProcessPoolExecutor(workers, get_context("spawn"), initializer=quiet_logs) as pool,
        Progress(console=console, disable=not console.is_terminal) as progress,
    ):
        task = progress.add_task("policies swept", total=len(runs))
        futures = [pool.submit(_sweep, scenario, run, calibrated) for run in runs]

        def advance(_: Future[Swept]) -> None:
            progress.advance(task)

        for future in futures:
            future.add_done_callback(advance)
        return [future.result() for future in futures]


def _sweep(scenario: Scenario, run: Run, calibrated: bool) -> Swept:
    if frontier.can_play(run.workload.policy.name, scenario):
        return _compiled(scenario, run, calibrated)
    return _full(scenario, run)


def _compiled(scenario: Scenario, run: Run, calibrated: bool) -> Swept:
    began = time.perf_counter()  # noqa: TID251  # the wall time is what is reported
    world = World.of(scenario, run.workload.history.step_seconds)
    settings = frontier.sweep(world, run.workload, run.interval_seconds, calibrated)
    hours = results.clairvoyant_hours(world, run.workload.capacity.qps_per_replica)
    seconds = (time.perf_counter() - began) / len(settings)  # noqa: TID251
    return Swept(
        [results.entry(setting, world, hours, seconds) for setting in settings],
        [results.point(setting, world, hours) for setting in settings],
    )


def _full(scenario: Scenario, run: Run) -> Swept:
    """Setting by setting through the daemon's own loop."""
    settings = knob_settings(run.workload, scenario)
    knob = settings[0][0]
    finished = [(value, run_one(scenario, _turned(run, knob, value))) for _, value in settings]
    return Swept(
        [_entry(done, knob, value) for value, done in finished],
        [results.point_of(done.card, knob, value) for value, done in finished],
    )


def _turned(run: Run, knob: str, value: float) -> Run:
    return Run(turned(run.workload, {knob: value}), run.interval_seconds)


def _entry(done: Finished, knob: str, value: float) -> dict[str, Any]:
    named = {"name": knob, "value": value} if knob else None
    return {**policy_entry(done), "knob": named}


def keeps_slo(points: Sequence[Point]) -> bool:
    """Whether a policy has a setting whose P99 was within the objective in every minute."""
    return any(point.minutes_over == 0 for point in points)


def frontier_table(points: Sequence[Point]) -> Table:
    table = Table(title="least excess over the clairvoyant optimum at a bad ratio, knob swept")
    table.add_column("policy")
    for level in results.LEVELS:
        table.add_column(level, justify="right")
    for row in results.frontier(points):
        found = row["excess_at_bad_ratio"].values()
        table.add_row(
            row["policy"], *("not reached" if each is None else f"{each:+.1%}" for each in found)
        )
    return table
