"""`daybreak simulate --sweep`: every policy over its one knob, and the frontier that it reaches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any

from rich.table import Table

from scaler.cli.output import progress_bar
from scaler.workers import process_pool
from simulator.pace import pace_of
from simulator.replay import Scenario
from simulator.results import pace_entry, policy_entry
from simulator.sweep import frontier, results
from simulator.sweep.frontier import World
from simulator.sweep.knobs import knob_settings, turned
from simulator.sweep.results import Point
from simulator.whatif import Run, run_one


@dataclass(frozen=True, slots=True)
class Swept:
    """One policy's settings: their entries in the results, their points, and the fewest pods that
    were ready in a minute of any, where that is known."""

    entries: list[dict[str, Any]]
    points: list[Point]
    fewest_ready: float = math.inf


Part = Callable[[], Swept]
"""What can be done apart from the rest, in another process too."""


def sweep_all(
    scenario: Scenario, runs: Sequence[Run], calibrated: bool, pool: Executor | None
) -> list[Swept]:
    """Each policy over its knob, in the order given; all at once that the pool can do at once."""
    parts = [_parts(scenario, run, calibrated) for run in runs]
    every = list(chain.from_iterable(parts))
    with progress_bar("sweeping") as on_progress:
        done = iter(_done(every, pool, on_progress))
        return [_joined(list(islice(done, len(own)))) for own in parts]


@contextmanager
def processes(workers: int) -> Iterator[Executor | None]:
    """So many processes of this machine; none where this one does."""
    if workers == 1:
        yield None
        return
    with process_pool(workers) as pool:
        yield pool


def _done(
    parts: Sequence[Part], pool: Executor | None, on_progress: Callable[[float], None]
) -> list[Swept]:
    if pool is None:
        done = []
        for part in parts:
            done.append(part())
            on_progress(len(done) / len(parts))
        return done
    futures = [pool.submit(part) for part in parts]
    for count, future in enumerate(as_completed(futures), 1):
        future.result()  # the first failure is told at once
        on_progress(count / len(parts))
    return [future.result() for future in futures]


def _joined(parts: Sequence[Swept]) -> Swept:
    return Swept(
        [entry for part in parts for entry in part.entries],
        [point for part in parts for point in part.points],
        min(part.fewest_ready for part in parts),
    )


def _parts(scenario: Scenario, run: Run, calibrated: bool) -> list[Part]:
    """A whole sweep where it is compiled, else each setting through the daemon's own loop."""
    if frontier.can_play(run.workload, scenario):
        return [partial(_compiled, scenario, run, calibrated)]
    settings = knob_settings(run.workload, scenario)
    return [partial(_full, scenario, run, knob, value) for knob, value in settings]


def _compiled(scenario: Scenario, run: Run, calibrated: bool) -> Swept:
    began = time.perf_counter()  # noqa: TID251  # the wall time is what is reported
    world = World.of(scenario, run.workload.history.step_seconds)
    settings = frontier.sweep(world, run.workload, run.interval_seconds, calibrated)
    hours = results.clairvoyant_hours(world, run.workload.capacity.qps_per_replica)
    seconds = (time.perf_counter() - began) / len(settings)  # noqa: TID251
    pace = pace_entry(pace_of(run.workload, run.interval_seconds))
    return Swept(
        [{**results.entry(setting, world, hours, seconds), **pace} for setting in settings],
        [results.point(setting, world, hours) for setting in settings],
    )


def _full(scenario: Scenario, run: Run, knob: str, value: float) -> Swept:
    done = run_one(scenario, Run(turned(run.workload, {knob: value}), run.interval_seconds))
    named = {"name": knob, "value": value} if knob else None
    entry = {**policy_entry(done), "knob": named}
    fewest = float(done.card.ready_by_minute.min())
    return Swept([entry], [results.point_of(done.card, knob, value)], fewest)


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
