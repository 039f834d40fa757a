"""What-if: several policies on one trace, side by side, each scored alike.

Knows how a run is laid out (history first, scored days after) and how runs share the processors.
Results do not depend on how many run at once: each is a pure function of its arguments.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from queue import Empty, Queue

from scaler.settings import Workload
from scaler.workers import manager, process_pool
from simulator.pace import Pace, pace_of
from simulator.replay import OnProgress, Scenario, replay
from simulator.scorecard import Scorecard

MIN_WARMUP_DAYS = 2.0
REPORT_EVERY_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Run:
    """One policy to be tried, and how often it decides."""

    workload: Workload
    interval_seconds: float


@dataclass(frozen=True, slots=True)
class Finished:
    """A scored run, its pace, and the wall time that it took."""

    card: Scorecard
    pace: Pace
    seconds: float
    decisions: int


@dataclass(frozen=True, slots=True)
class Moment:
    """How far a run is: its place among the runs, its virtual time, the requests it has served."""

    run: int
    at: datetime
    requests: float


def warmup(days: float, asked_days: float | None) -> timedelta:
    """History before scoring starts: as asked, else a quarter of the trace and at least two days
    where it is long enough. Raises ValueError where nothing would be left to score."""
    chosen = asked_days
    if chosen is None:
        chosen = max(days / 4, min(MIN_WARMUP_DAYS, days / 2))
    if not 0 <= chosen < days:
        raise ValueError(
            f"a warm-up of {chosen:g} days leaves nothing of a trace of {days:.2f} days"
        )
    return timedelta(seconds=round(chosen * 1440) * 60)


def run_all(
    scenario: Scenario,
    runs: Sequence[Run],
    workers: int,
    on_moment: Callable[[Moment], None] = lambda _: None,
) -> list[Finished]:
    """Every run in the order given, at most `workers` at once."""
    if workers == 1 or len(runs) == 1:
        return [run_told(scenario, run, partial(_tell, on_moment, i)) for i, run in enumerate(runs)]
    with manager() as shared:
        moments: Queue[Moment] = shared.Queue()
        with process_pool(workers) as pool:
            futures = [
                pool.submit(_run_reporting, scenario, run, index, moments)
                for index, run in enumerate(runs)
            ]
            while not all(future.done() for future in futures):
                for moment in _drained(moments):
                    on_moment(moment)
            return [future.result() for future in futures]


def _drained(moments: Queue[Moment]) -> Iterator[Moment]:
    try:
        yield moments.get(timeout=REPORT_EVERY_SECONDS)
        while True:
            yield moments.get_nowait()
    except Empty:
        return


def _run_reporting(scenario: Scenario, run: Run, index: int, moments: Queue[Moment]) -> Finished:
    return run_told(scenario, run, partial(_tell, moments.put, index))


def _tell(put: Callable[[Moment], None], run: int, at: datetime, requests: float) -> None:
    put(Moment(run, at, requests))


def run_one(scenario: Scenario, run: Run) -> Finished:
    return run_told(scenario, run, lambda _, __: None)


def run_told(scenario: Scenario, run: Run, on_progress: OnProgress) -> Finished:
    """A run that says on its way how far it is."""
    began = time.perf_counter()  # noqa: TID251  # the wall time is what is reported
    pace = pace_of(run.workload, run.interval_seconds)
    seen = _as_seen_at(pace, scenario)
    card = replay(seen, run.workload, run.interval_seconds, on_progress=on_progress)
    seconds = time.perf_counter() - began  # noqa: TID251
    span = (scenario.until - scenario.starts_at).total_seconds()
    return Finished(card, pace, seconds, round(span / run.interval_seconds))


def _as_seen_at(pace: Pace, scenario: Scenario) -> Scenario:
    """The same fleet, scraped as the policy scrapes it in life."""
    fleet = replace(
        scenario.fleet, scrape_seconds=pace.scrape_seconds, lag_seconds=pace.lag_seconds
    )
    return replace(scenario, fleet=fleet)
