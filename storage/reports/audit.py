"""AuditReport: what one workload's fleet did over a stretch of time, and what it is compared with.

Knows which figures an audit consists of and how those of the log are read. What other policies
would have done is handed in; nothing here simulates.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from sqlalchemy import Engine

from forecaster.history import Floats
from storage.reports import timeline as log
from storage.reports.findings import (
    ForecastQuality,
    Minute,
    Objective,
    WorstMinute,
    forecast_quality,
    minute_grid,
    worst_minute,
)
from storage.reports.timeline import ProblemPeriod, ReasonCount, ScaleEvent, Timeline

RECORDED = "as recorded"
"""Stands for the policy of a run that the log tells of: over time there may have been several."""
UNKNOWN_GAP_SECONDS = 900.0
"""After so long without a decision, nobody knows what ran: it is not counted as GPU-hours."""


@dataclass(frozen=True, slots=True, eq=False)
class PolicyRun:
    """What a policy cost and what it gave. Times in seconds, rates in requests a second.

    `excess` is GPU-hours over the clairvoyant optimum, minus 1. A figure that nobody measured is
    None. The arrays hold a value for each minute from `starts_at` on, NaN where unknown.
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

    @property
    def time(self) -> Floats:
        """The middle of each minute, in seconds since 1970."""
        first = self.starts_at.timestamp() + 30.0
        return np.asarray(first + 60.0 * np.arange(len(self.p99_by_minute)), dtype=np.float64)


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
    line: Timeline
    reasons: tuple[ReasonCount, ...]
    events: tuple[ScaleEvent, ...]
    problems: tuple[ProblemPeriod, ...]
    forecast: ForecastQuality | None

    @property
    def worst(self) -> WorstMinute | None:
        """The worst minute of our own run, with its likely cause."""
        ours = self.runs[0]
        if ours.worst_minute_at is None or ours.worst_minute_p99 is None:
            return None
        index = int((ours.worst_minute_at - ours.starts_at).total_seconds() // 60)
        demand, ready = float(ours.demand_by_minute[index]), float(ours.ready_by_minute[index])
        minute = Minute(ours.worst_minute_at, ours.worst_minute_p99, demand, ready)
        return worst_minute(minute, self.line, self.objective)


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

    Raises StoreError where the log cannot be read, ValueError where it has no decision there.
    """
    line = log.timeline(engine, workload, since, until)
    if not len(line):
        raise ValueError(f"no decision of {workload!r} from {since} until {until} in the log")
    events = log.scale_events(engine, workload, since, until)
    return AuditReport(
        title=f"Scaling audit: {workload}",
        workload=workload,
        since=since,
        until=until,
        objective=objective,
        runs=runs or (recorded_run(line, since, until, objective, events),),
        clairvoyant_pod_hours=clairvoyant_pod_hours,
        line=line,
        reasons=log.reason_counts(engine, workload, since, until),
        events=events,
        problems=log.problem_periods(line),
        forecast=forecast_quality(line),
    )


def recorded_run(
    line: Timeline,
    since: datetime,
    until: datetime,
    objective: Objective,
    events: tuple[ScaleEvent, ...],
) -> PolicyRun:
    """Our own run as the log recorded it. Bad requests and the P99 of all requests are unknown:
    the log holds P99 as it was observed, not single requests."""
    p99 = minute_grid(line, line.latency_p99_seconds, since, until)
    measured = bool(np.isfinite(p99).any())
    worst = int(np.nanargmax(p99)) if measured else 0
    held = np.diff(line.time, append=line.time[-1])
    held[held > UNKNOWN_GAP_SECONDS] = 0.0
    minutes = np.asarray(since.timestamp() + 60.0 * np.arange(len(p99)))
    return PolicyRun(
        label="the fleet",
        policy=RECORDED,
        pod_hours=float((line.provisioned * held).sum()) / 3600,
        excess=None,
        bad_ratio=None,
        p99_seconds=None,
        worst_minute_p99=float(p99[worst]) if measured else None,
        worst_minute_at=(
            datetime.fromtimestamp(float(minutes[worst]), since.tzinfo) if measured else None
        ),
        minutes_p99_over_slo=int((p99 > objective.slo_seconds).sum()) if measured else None,
        scale_ups=sum(event.after > event.before for event in events),
        scale_downs=sum(event.after < event.before for event in events),
        max_replicas=int(line.provisioned.max()),
        starts_at=since,
        p99_by_minute=p99,
        demand_by_minute=minute_grid(line, line.demand_qps, since, until),
        ready_by_minute=minute_grid(line, line.ready, since, until),
    )
