"""AuditReport: what one workload's fleet did over a stretch of time, and what it is compared with.

Knows which figures an audit consists of and how those of the log are read. The optimum and what
other policies would have done are handed in; nothing here simulates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from sqlalchemy import Engine

from forecaster.history import Floats
from storage.overrides import OverrideRow, overrides
from storage.reports import timeline as log
from storage.reports.came import Came, came, came_by_minutes, metric_lag
from storage.reports.counterfactual import LABELS, Counterfactual, Reproduction
from storage.reports.findings import (
    Compliance,
    ForecastQuality,
    Minute,
    Objective,
    WorstMinute,
    compliance,
    forecast_quality,
    minute_grid,
    shortfall,
    worst_minute,
    worst_minutes,
)
from storage.reports.minutes import Minutes, read_minutes
from storage.reports.timeline import ProblemPeriod, ReasonCount, ScaleEvent, Timeline
from storage.reports.waterfall import Slice, waterfall

RECORDED = "as recorded"
"""Stands for the policy of a run that the log tells of: over time there may have been several."""
WORST_MINUTES = 10


class NoDecisionError(ValueError):
    """The log holds no decision of a workload in the time asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class PolicyRun:
    """What a policy cost and what it gave. Times in seconds, rates in requests a second.

    `excess` is GPU-hours over the clairvoyant optimum, minus 1. `short_minutes` needed more
    replicas than were ready, `short_ratio` is the share of requests in them. A figure that nobody
    measured is None, and `parameters` where it is not told how the policy was set. The arrays hold
    a value for each minute from `starts_at` on, NaN where unknown.
    """

    label: str
    policy: str
    pod_hours: float
    excess: float | None
    bad_ratio: float | None
    p99_seconds: float | None
    worst_minute_p99: float | None
    worst_minute_at: datetime | None
    minutes_p99_over_slo: int | None
    scale_ups: int
    scale_downs: int
    max_replicas: int
    starts_at: datetime
    p99_by_minute: Floats
    demand_by_minute: Floats
    ready_by_minute: Floats
    short_minutes: int | None = None
    short_ratio: float | None = None
    bad_by_minute: Floats | None = None
    parameters: tuple[tuple[str, float], ...] | None = None

    @property
    def time(self) -> Floats:
        """The middle of each minute, in seconds since 1970."""
        first = self.starts_at.timestamp() + 30.0
        return np.asarray(first + 60.0 * np.arange(len(self.p99_by_minute)), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Coverage:
    """The share of so many minutes whose highest demand stayed at or below a quantile of that
    level."""

    level: float
    observed: float
    minutes: int


@dataclass(frozen=True, slots=True, eq=False)
class AuditReport:
    """One workload from `since` until `until`; `runs` holds ours first, then the comparisons."""

    title: str
    workload: str
    since: datetime
    until: datetime
    objective: Objective
    runs: tuple[PolicyRun, ...]
    clairvoyant_pod_hours: float | None
    minutes: Minutes
    line: Timeline
    reasons: tuple[ReasonCount, ...]
    events: tuple[ScaleEvent, ...]
    problems: tuple[ProblemPeriod, ...]
    forecast: ForecastQuality | None
    compliance: Compliance
    worst_minutes: tuple[WorstMinute, ...]
    waterfall: tuple[Slice, ...] = ()
    reproduction: Reproduction | None = None
    coverage: tuple[Coverage, ...] = ()
    overrides: tuple[OverrideRow, ...] = ()

    @property
    def policies(self) -> tuple[str, ...]:
        """Those that really ran, in the order of their first decision."""
        return tuple(dict.fromkeys(self.minutes.policy))

    @property
    def worst(self) -> WorstMinute | None:
        """The worst minute of our own run, with its likely cause."""
        ours = self.runs[0]
        if ours.worst_minute_at is None or ours.worst_minute_p99 is None:
            return self.worst_minutes[0] if self.worst_minutes else None
        index = int((ours.worst_minute_at - ours.starts_at).total_seconds() // 60)
        demand, ready = float(ours.demand_by_minute[index]), float(ours.ready_by_minute[index])
        minute = Minute(ours.worst_minute_at, ours.worst_minute_p99, demand, ready)
        return worst_minute(minute, self.minutes, self.objective)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a report compares the recorded fleet with; nothing where nobody computed it."""

    runs: tuple[PolicyRun, ...] = ()
    clairvoyant_pod_hours: float | None = None
    reproduction: Reproduction | None = None
    coverage: tuple[Coverage, ...] = ()
    overrides: tuple[OverrideRow, ...] = ()
    came: Came | None = None


def read_audit(
    engine: Engine,
    workload: str,
    since: datetime,
    until: datetime,
    *,
    objective: Objective,
    runs: tuple[PolicyRun, ...] = (),
    clairvoyant_pod_hours: float | None = None,
) -> AuditReport:
    """The audit of [since, until); without `runs`, ours is what the log itself recorded.

    Raises StoreError where the log cannot be read, NoDecisionError where it has no decision there.
    """
    minutes = read_minutes(engine, workload, since, until)
    events = log.scale_events(engine, workload, since, until)
    people = tuple(overrides(engine, workload, since, until))
    found = Comparison(runs, clairvoyant_pod_hours, overrides=people)
    if len(minutes):
        found = replace(found, came=came(engine, minutes, metric_lag(engine, minutes)))
    return audit_of(minutes, events, since, until, objective, found)


def audit_of(
    minutes: Minutes,
    events: tuple[ScaleEvent, ...],
    since: datetime,
    until: datetime,
    objective: Objective,
    found: Comparison,
) -> AuditReport:
    """The audit of minutes that were read; raises NoDecisionError where there is none."""
    if not len(minutes):
        raise NoDecisionError(
            f"no decision of {minutes.workload!r} from {since} until {until} in the log"
        )
    optimum = found.clairvoyant_pod_hours
    if found.runs:
        minutes = _as_measured(minutes, found.runs[0])
    line = log.line_of(minutes)
    span = max(1, int((until - since) // timedelta(minutes=1)))
    return AuditReport(
        title=f"Scaling audit: {minutes.workload}",
        workload=minutes.workload,
        since=since,
        until=until,
        objective=objective,
        runs=found.runs or (recorded_run(minutes, since, until, objective, events, optimum),),
        clairvoyant_pod_hours=optimum,
        minutes=minutes,
        line=line,
        reasons=tuple(ReasonCount(*pair) for pair in minutes.reason_counts.most_common()),
        events=events,
        problems=log.problem_periods(line),
        forecast=forecast_quality(minutes, found.came or came_by_minutes(minutes)),
        compliance=compliance(minutes, objective, span),
        worst_minutes=worst_minutes(minutes, objective, WORST_MINUTES),
        waterfall=() if optimum is None else waterfall(minutes, optimum),
        reproduction=found.reproduction,
        coverage=found.coverage,
        overrides=found.overrides,
    )


def _as_measured(minutes: Minutes, run: PolicyRun) -> Minutes:
    """With the latency and the bad requests of a run that measured each request, so that a report
    does not tell two stories: the log knows only what was observed at each decision."""
    place = ((minutes.time - run.starts_at.timestamp()) // 60).astype(np.int64)
    inside = (place >= 0) & (place < len(run.p99_by_minute))

    def column(by_minute: Floats) -> Floats:
        found = np.full(len(minutes), np.nan)
        found[inside] = by_minute[place[inside]]
        return found

    bad = None if run.bad_by_minute is None else column(run.bad_by_minute)
    return replace(minutes, latency_p99_seconds=column(run.p99_by_minute), bad_requests=bad)


def recorded_run(
    minutes: Minutes,
    since: datetime,
    until: datetime,
    objective: Objective,
    events: tuple[ScaleEvent, ...],
    clairvoyant_pod_hours: float | None = None,
) -> PolicyRun:
    """Our own run as the log recorded it. Bad requests and the P99 of all requests are unknown:
    the log holds P99 as it was observed, not single requests."""
    p99 = minute_grid(minutes, minutes.latency_p99_seconds, since, until)
    measured = bool(np.isfinite(p99).any())
    worst = int(np.nanargmax(p99)) if measured else 0
    hours, short = minutes.hours(minutes.provisioned), _short(minutes, minutes.ready)
    return PolicyRun(
        label="the fleet",
        policy=RECORDED,
        pod_hours=hours,
        excess=_excess(hours, clairvoyant_pod_hours),
        bad_ratio=None,
        p99_seconds=None,
        worst_minute_p99=float(p99[worst]) if measured else None,
        worst_minute_at=since + timedelta(minutes=worst) if measured else None,
        minutes_p99_over_slo=int((p99 > objective.slo_seconds).sum()) if measured else None,
        scale_ups=sum(event.after > event.before for event in events),
        scale_downs=sum(event.after < event.before for event in events),
        max_replicas=int(np.ceil(minutes.provisioned.max())),
        starts_at=since,
        p99_by_minute=p99,
        demand_by_minute=minute_grid(minutes, minutes.demand_qps, since, until),
        ready_by_minute=minute_grid(minutes, minutes.ready, since, until),
        short_minutes=short.minutes,
        short_ratio=short.ratio,
    )


def counterfactual_run(
    minutes: Minutes,
    run: Counterfactual,
    since: datetime,
    until: datetime,
    clairvoyant_pod_hours: float | None,
) -> PolicyRun:
    """What another policy would have cost and given; nobody knows the latency it would have had."""
    hours, short = minutes.hours(run.billed), _short(minutes, run.ready)
    steps = np.diff(run.desired)
    unknown = np.full(int((until - since).total_seconds() // 60), np.nan)
    return PolicyRun(
        label=LABELS.get(run.policy, run.policy),
        policy=run.policy,
        pod_hours=hours,
        excess=_excess(hours, clairvoyant_pod_hours),
        bad_ratio=None,
        p99_seconds=None,
        worst_minute_p99=None,
        worst_minute_at=None,
        minutes_p99_over_slo=None,
        scale_ups=int((steps > 0).sum()),
        scale_downs=int((steps < 0).sum()),
        max_replicas=int(run.desired.max()),
        starts_at=since,
        p99_by_minute=unknown,
        demand_by_minute=minute_grid(minutes, minutes.demand_qps, since, until),
        ready_by_minute=minute_grid(minutes, run.ready, since, until),
        short_minutes=short.minutes,
        short_ratio=short.ratio,
    )


def _excess(hours: float, optimum: float | None) -> float | None:
    return hours / optimum - 1 if optimum else None


@dataclass(frozen=True, slots=True)
class _Short:
    """Minutes whose mean demand needed more than was ready, and the share of requests in them."""

    minutes: int
    ratio: float


def _short(minutes: Minutes, ready: Floats) -> _Short:
    short = shortfall(minutes, ready) > 0
    requests = np.nan_to_num(minutes.demand_qps) * minutes.counted_seconds
    total = float(requests.sum())
    return _Short(int(short.sum()), float(requests[short].sum()) / total if total else 0.0)
