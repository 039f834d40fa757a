"""The audit of a workload: the log's own figures, the optimum, and what other policies would have
done on the demand that was recorded.

Knows how the parts of a report are put together. Knows no command line and no page.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache, partial
from math import isfinite
from multiprocessing import parent_process

import numpy as np
from sqlalchemy import Engine

from forecaster.history import Floats
from policies.context import PolicySettings
from scaler.workers import process_pool
from simulator.clairvoyant import optimum_pod_slots
from storage.database import open_engine
from storage.overrides import overrides
from storage.reports import timeline
from storage.reports.audit import (
    AuditReport,
    Comparison,
    Coverage,
    NoDecisionError,
    PolicyRun,
    audit_of,
    counterfactual_run,
    recorded_run,
)
from storage.reports.came import Came, came, metric_lag
from storage.reports.counterfactual import (
    DEFAULT_LEAD_SECONDS,
    Again,
    Reproduction,
    as_if,
    as_it_ran,
    reference_settings,
    reproduction,
)
from storage.reports.findings import Objective
from storage.reports.minutes import (
    Minutes,
    beside_the_decisions,
    contexts_of,
    decisions_of,
    order_quantiles,
    read_minutes,
    still_whole,
)

DEFAULT_SLO_SECONDS = 1.0
WORTH_PROCESSES = 8 * 1440
"""Below so many minutes, starting processes takes longer than the work."""
MOST_DECIDED_AGAIN = 6_000
"""Decisions taken again one by one to check the comparisons: a day of them at the usual interval,
and some two seconds of work."""


MOST_JUDGED = 20_000
"""Minutes whose quantiles are read back: of a longer period every second one, or fewer. Windows
reach over several minutes, so that neighbours say the same."""


@dataclass(frozen=True, slots=True)
class Helper:
    """A process that shares the work on a single period; `afterwards` is what it does once its
    share of the audit is done, for whoever shows it."""

    pool: Executor
    afterwards: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Period:
    """What is audited: a workload over [since, until), against an objective and at a price. A
    brief audit compares it with the optimum alone, which takes a tenth of the time."""

    workload: str
    since: datetime
    until: datetime
    slo_seconds: float = DEFAULT_SLO_SECONDS
    price_per_pod_hour: float | None = None
    brief: bool = False

    @property
    def minutes(self) -> int:
        return int((self.until - self.since) // timedelta(minutes=1))


def audits(
    engine: Engine,
    periods: Sequence[Period],
    workers: int | None = None,
    helper: Helper | None = None,
) -> Iterator[AuditReport | None]:
    """Each period's audit in turn, None where the log has no decision in it; many are computed
    side by side, a single one with the helper. Raises StoreError."""
    work = sum(period.minutes for period in periods)
    count = workers if workers is not None else os.cpu_count() or 1
    if work < WORTH_PROCESSES or min(count, len(periods)) < 2:
        yield from (_or_none(engine, period, helper) for period in periods)
        return
    with process_pool(count) as pool:
        url = engine.url.render_as_string(hide_password=False)
        at_work: deque[Future[AuditReport | None]] = deque()
        for period in periods:
            # A few at a time: a report is large, and whoever reads them may be slow.
            at_work.append(pool.submit(_elsewhere, url, period))
            if len(at_work) > 2 * count:
                yield at_work.popleft().result()
        while at_work:
            yield at_work.popleft().result()


def _elsewhere(url: str, period: Period) -> AuditReport | None:
    """In a process of its own; the contexts have served by then and need not travel."""
    engine = open_engine(url)
    report = _or_none(engine, period)
    engine.dispose()
    if report is None:
        return None
    return replace(report, minutes=replace(report.minutes, contexts=()))


def _or_none(engine: Engine, period: Period, helper: Helper | None = None) -> AuditReport | None:
    try:
        return audit(engine, period, helper=helper)
    except NoDecisionError:
        return None


@dataclass(frozen=True, slots=True)
class Measured:
    """Runs that were measured request by request, ours first, and the optimum that they are
    compared with; they take the place of what could be computed from the log."""

    runs: tuple[PolicyRun, ...]
    clairvoyant_pod_hours: float


def audit(
    engine: Engine,
    period: Period,
    measured: Measured | None = None,
    helper: Helper | None = None,
) -> AuditReport:
    """The whole audit of a period, with the capacity that decisions were made with; a helper works
    out a part of the comparison.

    Raises StoreError where the log cannot be read, NoDecisionError where it has no decision there.
    """
    since, until = period.since, period.until
    minutes = read_minutes(engine, period.workload, since, until, contexts=not period.brief)
    events = timeline.scale_events(engine, period.workload, since, until)
    found = Comparison(overrides=tuple(overrides(engine, period.workload, since, until)))
    objective = _objective(minutes, period)
    coming = _came(engine, minutes, helper) if len(minutes) and not period.brief else None
    if period.brief and _sized(minutes):
        found = replace(found, clairvoyant_pod_hours=optimum_pod_hours(minutes))
    elif _sized(minutes):
        optimum = measured.clairvoyant_pod_hours if measured else optimum_pod_hours(minutes)
        others = () if measured else _begun(minutes, period, optimum, helper)
        again = _again(engine, minutes)
        for run in others[::2]:  # The rest are the helper's, who is not waited for yet.
            run()
        coverage = () if coming is None else _coverage(engine, minutes, coming())
        runs = (
            measured.runs
            if measured
            else (
                recorded_run(minutes, since, until, objective, events, optimum),
                *(run() for run in others),
            )
        )
        found = replace(
            found,
            runs=runs,
            clairvoyant_pod_hours=optimum,
            reproduction=again,
            coverage=coverage,
        )
    if coming is not None:
        found = replace(found, came=coming())
    return audit_of(minutes, events, since, until, objective, found)


def _came(engine: Engine, minutes: Minutes, helper: Helper | None) -> Callable[[], Came]:
    """What the forecasts met; of a long period a helper reads it meanwhile."""
    lag = metric_lag(engine, minutes)
    if helper is None:
        return cache(partial(came, engine, minutes, lag))
    url = engine.url.render_as_string(hide_password=False)
    return helper.pool.submit(_came_elsewhere, url, replace(minutes, contexts=()), lag).result


def _came_elsewhere(url: str, minutes: Minutes, lag_seconds: float) -> Came:
    engine = open_engine(url)
    found = came(engine, minutes, lag_seconds)
    engine.dispose()
    return found


def _again(engine: Engine, minutes: Minutes) -> Reproduction | None:
    """The policy that ran, decided again: every decision that the log still holds, of the newest
    minutes; of all minutes the last decision where it holds none."""
    whole = still_whole(engine, minutes, MOST_DECIDED_AGAIN)
    run = as_it_ran(whole, decisions_of(engine, whole)) if len(whole) else None
    again = None if run is None else Again(run, beside_the_decisions(engine, whole))
    compared = minutes if again is None else whole
    last_ones = contexts_of(engine, compared)
    once_a_minute = as_it_ran(compared, ([one] if one else [] for one in last_ones))
    return None if once_a_minute is None else reproduction(compared, once_a_minute, again)


def _sized(minutes: Minutes) -> bool:
    """Whether any minute's demand is known and what a replica carries, without which nothing can
    be compared."""
    return bool(np.isfinite(minutes.need).any())


@contextmanager
def helper_for(
    periods: Sequence[Period], afterwards: Callable[[], None]
) -> Iterator[Helper | None]:
    """A process that shares the work on a single period, where that is worth one."""
    alone = len(periods) == 1 and periods[0].minutes >= WORTH_PROCESSES
    if not alone or parent_process() or (os.cpu_count() or 1) < 2:
        yield None
        return
    with process_pool(1) as pool:
        pool.submit(_come_up)
        yield Helper(pool, afterwards)


def _come_up() -> None:
    """What a helper does first, while the log is read: it imports this module."""


def _begun(
    minutes: Minutes, period: Period, optimum: float, helper: Helper | None
) -> Sequence[Callable[[], PolicyRun]]:
    """What the policies of the comparison would have done, each as soon as it is asked for; a
    helper has begun with every second of them by the time that this returns."""
    bare = replace(minutes, contexts=())
    runs = [
        partial(_run_as_if, bare, one, period, optimum)
        for one in reference_settings(minutes).values()
    ]
    if helper is None:
        return [cache(run) for run in runs]
    begun = [
        helper.pool.submit(run).result if number % 2 else cache(run)
        for number, run in enumerate(runs)
    ]
    helper.pool.submit(helper.afterwards)
    return begun


def _run_as_if(
    minutes: Minutes, settings: PolicySettings, period: Period, optimum: float
) -> PolicyRun:
    run = as_if(minutes, settings)
    found = counterfactual_run(minutes, run, period.since, period.until, optimum)
    return replace(found, parameters=settings.parameters)


def last_moment(engine: Engine, workloads: Sequence[str]) -> datetime | None:
    """Just after the newest decision of these workloads; None where there is none."""
    newest = [
        decision.at for name in workloads for decision in timeline.last_decisions(engine, name, 1)
    ]
    return max(newest) + timedelta(microseconds=1) if newest else None


def _objective(minutes: Minutes, period: Period) -> Objective:
    known = minutes.qps_per_replica[np.isfinite(minutes.qps_per_replica)]
    capacity = float(np.median(known)) if len(known) else 1.0
    return Objective(period.slo_seconds, capacity, period.price_per_pod_hour)


def optimum_pod_hours(minutes: Minutes) -> float:
    """Of a planner who knew the recorded demand, cold starts billed; what was not known is taken
    to be what the minute before it needed."""
    slots = np.maximum(1, minutes.held_seconds // 60).astype(np.int64)
    each = np.repeat(minutes.carried_need, slots)
    lead = minutes.lead_seconds[np.isfinite(minutes.lead_seconds)]
    cold = float(np.median(lead)) if len(lead) else DEFAULT_LEAD_SECONDS
    return optimum_pod_slots(each.astype(np.int64), round(cold / 60)) / 60


def _coverage(engine: Engine, minutes: Minutes, judged_on: Came) -> tuple[Coverage, ...]:
    every = max(1, -(-len(minutes) // MOST_JUDGED))
    return coverage_of(judged_on.qps[::every], order_quantiles(engine, minutes, every))


def coverage_of(
    highest: Floats, forecasts: Iterator[tuple[tuple[float, float], ...]]
) -> tuple[Coverage, ...]:
    """How often each stated quantile held what came, minute by minute of those that are judged."""
    held: Counter[float] = Counter()
    judged: Counter[float] = Counter()
    for peak, quantiles in zip(highest.tolist(), forecasts, strict=True):
        if isfinite(peak):
            for level, qps in quantiles:
                judged[level] += 1
                held[level] += peak <= qps
    return tuple(
        Coverage(level, held[level] / count, count) for level, count in sorted(judged.items())
    )
