"""What the decision log says about a stretch of time.

Knows the log's tables and how to read them thinly: decision by decision where these are few and
still there, else by the minute. Knows no charts and no words; reads the columns of a decision, and
its stored steps only where a few decisions are listed one by one. Every reading function raises
StoreError where the log cannot be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine, Row, func, select

from forecaster.history import Floats
from policies.context import ScalingContext
from policies.decision import Outcome, OutcomeKind, Step
from scaler.ports import StoreError
from storage import codec, rollups, schema
from storage.database import reading
from storage.reports.minutes import MINUTE, Minutes, as_minutes
from storage.reports.words import split_problems

MAX_POINTS = 4000
"""Points of a timeline unless told otherwise: more than any chart has pixels."""
MOST_DECISIONS = 3000
"""What is read decision by decision at most; beyond it minutes tell the same."""

FIGURES = (
    "demand_qps",
    "ready",
    "starting",
    "draining",
    "desired",
    "forecast_low_qps",
    "forecast_median_qps",
    "forecast_high_qps",
    "latency_p99_seconds",
)
PEAKS = ("demand_qps", "latency_p99_seconds", "problems")
"""Columns of which a bucket shows the highest value; a text with problems is above none."""
COLUMNS = ("at", "forecast_at", "forecast_until", "reason", "problems", *FIGURES)

_decision = schema.decision.c


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """A workload's decisions as equally long columns, oldest first.

    `time` and `forecast_at` are seconds since 1970, rates requests a second; what was not known is
    NaN. Where thinned, a point is the last decision of its bucket with the bucket's highest demand
    and P99, so that no peak is lost. The forecast of a point was made at `time` for the highest
    rate of the span around `forecast_at`.
    """

    workload: str
    time: Floats
    demand_qps: Floats
    ready: Floats
    starting: Floats
    draining: Floats
    desired: Floats
    forecast_at: Floats
    forecast_low_qps: Floats
    forecast_median_qps: Floats
    forecast_high_qps: Floats
    latency_p99_seconds: Floats
    reason: tuple[str, ...]
    problems: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.time)

    def at(self, index: int) -> datetime:
        """When a point is."""
        return datetime.fromtimestamp(float(self.time[index]), UTC)

    def between(self, since: datetime, until: datetime) -> Timeline:
        """The points in [since, until)."""
        first, last = np.searchsorted(self.time, [since.timestamp(), until.timestamp()])
        columns = {
            column.name: getattr(self, column.name)[first:last]
            for column in fields(self)
            if column.name != "workload"
        }
        return Timeline(workload=self.workload, **columns)

    def thinned(self, max_points: int) -> Timeline:
        """At most so many points; peaks of demand and P99, and doubts, stay."""
        stride = max(1, -(-len(self) // max_points))
        if stride == 1:
            return self
        starts = np.arange(0, len(self), stride)
        last = np.minimum(starts + stride, len(self)) - 1
        figures: dict[str, Any] = {
            name: np.fmax.reduceat(getattr(self, name), starts)
            if name in PEAKS
            else getattr(self, name)[last]
            for name in (*FIGURES, "time", "forecast_at")
        }
        return Timeline(
            workload=self.workload,
            reason=tuple(self.reason[index] for index in last),
            problems=tuple(max(self.problems[at : at + stride]) for at in starts),
            **figures,
        )

    @property
    def provisioned(self) -> Floats:
        """Replicas that cost money: starting, ready and draining ones."""
        return self.ready + self.starting + self.draining


@dataclass(frozen=True, slots=True)
class LoggedDecision:
    """A decision as listed: what was seen, what was asked for, why, and what became of it."""

    id: int
    at: datetime
    policy: str
    current: int
    recommended: int
    desired: int
    ready: int
    starting: int
    draining: int
    demand_qps: float | None
    forecast_high_qps: float | None
    forecast_trusted: bool
    reason: str
    steps: tuple[Step, ...]
    outcome: Outcome | None
    problems: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class ReasonCount:
    reason: str
    decisions: int


@dataclass(frozen=True, slots=True)
class ScaleEvent:
    """The number asked for went from `before` to `after`."""

    at: datetime
    before: int
    after: int
    reason: str
    demand_qps: float | None
    outcome: OutcomeKind | None


@dataclass(frozen=True, slots=True)
class ProblemPeriod:
    """One input was in doubt from `since` until `until`, with the last message about it."""

    since: datetime
    until: datetime
    source: str
    kind: str
    message: str


def timeline(
    engine: Engine,
    workload: str,
    since: datetime,
    until: datetime,
    max_points: int = MAX_POINTS,
) -> Timeline:
    """What was decided in [since, until), thinned to at most `max_points`."""
    with reading(engine) as connection:
        if _few_and_there(connection, workload, since, until):
            query = (
                select(*(_decision[name] for name in COLUMNS))
                .where(_decision.workload == workload, _decision.at >= since, _decision.at < until)
                .order_by(_decision.at, _decision.id)
            )
            line = _columns(workload, connection.execute(query).all())
        else:
            begin = rollups.minute_of(since)
            rows = rollups.minutes(connection, workload, begin, until, contexts=False)
            line = line_of(as_minutes(workload, rows))
    return line.thinned(max_points)


def line_of(minutes: Minutes) -> Timeline:
    """Minutes as a timeline: a point a minute, with the reason that bound most often."""
    return Timeline(
        workload=minutes.workload,
        time=minutes.time,
        demand_qps=minutes.demand_peak_qps,
        ready=minutes.ready,
        starting=minutes.starting,
        draining=minutes.draining,
        desired=minutes.desired,
        forecast_at=middle(minutes.forecast_at, minutes.forecast_until),
        forecast_low_qps=minutes.forecast_low_qps,
        forecast_median_qps=minutes.forecast_median_qps,
        forecast_high_qps=minutes.forecast_high_qps,
        latency_p99_seconds=minutes.latency_p99_seconds,
        reason=tuple(max(counts, key=lambda name: counts[name]) for counts in minutes.reasons),
        problems=minutes.problems,
    )


def middle(start: Floats, end: Floats) -> Floats:
    """Of the span that a forecast was made for; version 1 logged a moment without an end."""
    return np.where(np.isnan(end), start, (start + end) / 2)


def workload_names(engine: Engine) -> tuple[str, ...]:
    """Every workload that has a decision, in the order of their names."""
    with reading(engine) as connection:
        query = select(schema.workload.c.name).order_by(schema.workload.c.name)
        return tuple(connection.execute(query).scalars())


def last_decisions(engine: Engine, workload: str, count: int) -> tuple[LoggedDecision, ...]:
    """The newest decisions, newest first."""
    query = (
        select(schema.decision, schema.outcome.c.kind, schema.outcome.c.detail)
        .outerjoin(schema.outcome)
        .where(_decision.workload == workload)
        .order_by(_decision.at.desc(), _decision.id.desc())
        .limit(count)
    )
    with reading(engine) as connection:
        return tuple(_logged(row) for row in connection.execute(query))


def last_context(engine: Engine, workload: str) -> ScalingContext | None:
    """What the newest decision was made from, or None where there is none."""
    query = (
        select(_decision.context, schema.policy_settings.c.payload)
        .join(schema.policy_settings)
        .where(_decision.workload == workload)
        .order_by(_decision.at.desc(), _decision.id.desc())
        .limit(1)
    )
    with reading(engine) as connection:
        row = connection.execute(query).first()
    return None if row is None else codec.decode_context(codec.unpack(row.context), row.payload)


def scale_events(
    engine: Engine, workload: str, since: datetime, until: datetime
) -> tuple[ScaleEvent, ...]:
    """When the number asked for changed in [since, until), oldest first."""
    with reading(engine) as connection:
        rows = rollups.events(connection, workload, since, until)
    return tuple(
        ScaleEvent(
            row["at"],
            row["before"],
            row["after"],
            row["reason"],
            row["demand_qps"],
            OutcomeKind(row["outcome"]) if row["outcome"] else None,
        )
        for row in rows
    )


def problem_periods(line: Timeline) -> tuple[ProblemPeriod, ...]:
    """Unbroken stretches in which an input was in doubt, by their beginning; one that is still
    open lasts until the point after the last one is due."""
    periods: list[ProblemPeriod] = []
    open_since: dict[tuple[str, str], tuple[float, str]] = {}
    for at, text in zip(line.time, line.problems, strict=True):
        now = {(source, kind): message for source, kind, message in split_problems(text)}
        over = [key for key in open_since if key not in now]
        periods += [_period(key, open_since.pop(key), at) for key in over]
        for key, message in now.items():
            open_since[key] = (open_since.get(key, (at, ""))[0], message)
    end = line.time[-1] + _usual_step(line) if len(line) else 0.0
    periods += [_period(key, opened, end) for key, opened in open_since.items()]
    return tuple(sorted(periods, key=lambda period: (period.since, period.source)))


def _usual_step(line: Timeline) -> float:
    return float(np.median(np.diff(line.time))) if len(line) > 1 else MINUTE


def _period(key: tuple[str, str], opened: tuple[float, str], until: float) -> ProblemPeriod:
    since, message = opened
    return ProblemPeriod(
        datetime.fromtimestamp(since, UTC), datetime.fromtimestamp(until, UTC), *key, message
    )


def _few_and_there(connection: Connection, workload: str, since: datetime, until: datetime) -> bool:
    """Whether all of these decisions are kept, and not too many to read one by one."""
    kept = select(schema.workload.c.kept_since).where(schema.workload.c.name == workload)
    kept_since: datetime | None = connection.execute(kept).scalar()
    if kept_since is not None and since < kept_since:
        return False
    some = (
        select(_decision.id)
        .where(_decision.workload == workload, _decision.at >= since, _decision.at < until)
        .limit(MOST_DECISIONS + 1)
        .subquery()
    )
    count: int = connection.execute(select(func.count()).select_from(some)).scalar_one()
    return count <= MOST_DECISIONS


def _columns(workload: str, rows: Sequence[Row[Any]]) -> Timeline:
    columns = dict(
        zip(COLUMNS, zip(*rows, strict=True) if rows else [()] * len(COLUMNS), strict=True)
    )
    return Timeline(
        workload=workload,
        time=_seconds(columns["at"]),
        forecast_at=middle(_seconds(columns["forecast_at"]), _seconds(columns["forecast_until"])),
        reason=columns["reason"],
        problems=columns["problems"],
        **{name: np.array(columns[name], dtype=np.float64) for name in FIGURES},
    )


def _seconds(times: Sequence[datetime | None]) -> Floats:
    return np.array([np.nan if at is None else at.timestamp() for at in times], dtype=np.float64)


def _logged(row: Row[Any]) -> LoggedDecision:
    try:
        steps = codec.decode_decision(codec.unpack(row.steps)).steps
    except ValueError as error:
        raise StoreError(f"stored decision {row.id} cannot be read: {error}") from error
    return LoggedDecision(
        id=row.id,
        at=row.at,
        policy=row.policy,
        current=row.current,
        recommended=row.recommended,
        desired=row.desired,
        ready=row.ready,
        starting=row.starting,
        draining=row.draining,
        demand_qps=row.demand_qps,
        forecast_high_qps=row.forecast_high_qps,
        forecast_trusted=row.forecast_trusted,
        reason=row.reason,
        steps=steps,
        outcome=Outcome(OutcomeKind(row.kind), row.detail) if row.kind else None,
        problems=split_problems(row.problems),
    )
