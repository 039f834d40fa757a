"""What the decision log says about a stretch of time.

Knows the log's tables and how to read them thinly. Knows no charts and no words; reads the columns
of a decision, and its stored steps only where a few decisions are listed one by one. Every reading
function raises StoreError where the log cannot be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Engine, Integer, Row, Select, func, select
from sqlalchemy.exc import SQLAlchemyError

from forecaster.history import Floats
from policies.context import ScalingContext
from policies.decision import Outcome, OutcomeKind, Step
from scaler.ports import StoreError
from storage import codec, schema
from storage.database import reason as driver_words
from storage.reports.words import split_problems

MAX_POINTS = 4000
"""Points of a timeline unless told otherwise: more than any chart has pixels."""

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
COLUMNS = ("at", "forecast_at", "reason", "problems", *FIGURES)

_decision = schema.decision.c


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """A workload's decisions as equally long columns, oldest first.

    `time` and `forecast_at` are seconds since 1970, rates requests a second; what was not known is
    NaN. Where thinned, a point is the last decision of its bucket with the bucket's highest demand
    and P99, so that no peak is lost. The forecast of a point was made at `time` for `forecast_at`.
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

    def between(self, since: datetime, until: datetime) -> Timeline:
        """The points in [since, until)."""
        first, last = np.searchsorted(self.time, [since.timestamp(), until.timestamp()])
        columns = {
            column.name: getattr(self, column.name)[first:last]
            for column in fields(self)
            if column.name != "workload"
        }
        return Timeline(workload=self.workload, **columns)

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
    """The decisions in [since, until), thinned to at most `max_points`."""
    within = _within(workload, since, until)
    with _reading(engine) as connection:
        count = connection.execute(select(func.count()).where(*within)).scalar_one()
        rows = connection.execute(_thinned(within, max(1, -(-count // max_points)))).all()
    return _columns(workload, rows)


def workload_names(engine: Engine) -> tuple[str, ...]:
    """Every workload that has a decision, in the order of their names.

    One index look-up a name, since counting distinct ones would read the whole index.
    """
    names: list[str] = []
    with _reading(engine) as connection:
        query = select(func.min(_decision.workload))
        while (name := connection.execute(query).scalar()) is not None:
            names.append(name)
            query = select(func.min(_decision.workload)).where(_decision.workload > name)
    return tuple(names)


def last_decisions(engine: Engine, workload: str, count: int) -> tuple[LoggedDecision, ...]:
    """The newest decisions, newest first."""
    query = (
        select(schema.decision, schema.outcome.c.kind, schema.outcome.c.detail)
        .outerjoin(schema.outcome)
        .where(_decision.workload == workload)
        .order_by(_decision.at.desc(), _decision.id.desc())
        .limit(count)
    )
    with _reading(engine) as connection:
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
    with _reading(engine) as connection:
        row = connection.execute(query).first()
    return None if row is None else codec.decode_context(codec.unpack(row.context), row.payload)


def reason_counts(
    engine: Engine, workload: str, since: datetime, until: datetime
) -> tuple[ReasonCount, ...]:
    """How often each reason had the last word in [since, until), most frequent first."""
    decisions = func.count().label("decisions")
    query = (
        select(_decision.reason, decisions)
        .where(*_within(workload, since, until))
        .group_by(_decision.reason)
        .order_by(decisions.desc(), _decision.reason)
    )
    with _reading(engine) as connection:
        return tuple(ReasonCount(*row) for row in connection.execute(query))


def scale_events(
    engine: Engine, workload: str, since: datetime, until: datetime
) -> tuple[ScaleEvent, ...]:
    """When the number asked for changed in [since, until), oldest first.

    Compared with the decision before rather than with what runs, so that a decision that is not
    applied (shadow mode) is one event and not one a tick.
    """
    before = func.lag(_decision.desired).over(order_by=(_decision.at, _decision.id))
    seen = (
        select(
            _decision.id,
            _decision.at,
            func.coalesce(before, _decision.current).label("before"),
            _decision.desired.label("after"),
            _decision.reason,
            _decision.demand_qps,
        )
        .where(*_within(workload, since, until))
        .subquery()
    )
    query = (
        select(*list(seen.c)[1:], schema.outcome.c.kind)
        .outerjoin(schema.outcome, schema.outcome.c.decision_id == seen.c.id)
        .where(seen.c.before != seen.c.after)
        .order_by(seen.c.at, seen.c.id)
    )
    with _reading(engine) as connection:
        return tuple(
            ScaleEvent(*row[:5], OutcomeKind(row.kind) if row.kind else None)
            for row in connection.execute(query)
        )


def problem_periods(line: Timeline) -> tuple[ProblemPeriod, ...]:
    """Unbroken stretches in which an input was in doubt, by their beginning."""
    periods: list[ProblemPeriod] = []
    open_since: dict[tuple[str, str], tuple[float, str]] = {}
    for at, text in zip(line.time, line.problems, strict=True):
        now = {(source, kind): message for source, kind, message in split_problems(text)}
        over = [key for key in open_since if key not in now]
        periods += [_period(key, open_since.pop(key), at) for key in over]
        for key, message in now.items():
            open_since[key] = (open_since.get(key, (at, ""))[0], message)
    last = line.time[-1] if len(line) else 0.0
    periods += [_period(key, opened, last) for key, opened in open_since.items()]
    return tuple(sorted(periods, key=lambda period: (period.since, period.source)))


def _period(key: tuple[str, str], opened: tuple[float, str], until: float) -> ProblemPeriod:
    since, message = opened
    return ProblemPeriod(
        datetime.fromtimestamp(since, UTC), datetime.fromtimestamp(until, UTC), *key, message
    )


def _within(workload: str, since: datetime, until: datetime) -> tuple[ColumnElement[bool], ...]:
    return (_decision.workload == workload, _decision.at >= since, _decision.at < until)


def _thinned(within: tuple[ColumnElement[bool], ...], stride: int) -> Select[Any]:
    """The last decision of every `stride`, with their highest demand and P99."""
    order = (_decision.at, _decision.id)
    bucket = (func.row_number().over(order_by=order).cast(Integer) - 1) // stride
    numbered = (
        select(_decision.id, *(_decision[name] for name in PEAKS), bucket.label("bucket"))
        .where(*within)
        .subquery()
    )
    highest = (
        select(*(func.max(numbered.c[name]).label(name) for name in ("id", *PEAKS)))
        .group_by(numbered.c.bucket)
        .subquery()
    )
    return (
        select(*(highest.c[name] if name in PEAKS else _decision[name] for name in COLUMNS))
        .join(highest, highest.c.id == _decision.id)
        .order_by(*order)
    )


def _columns(workload: str, rows: Sequence[Row[Any]]) -> Timeline:
    columns = dict(
        zip(COLUMNS, zip(*rows, strict=True) if rows else [()] * len(COLUMNS), strict=True)
    )
    return Timeline(
        workload=workload,
        time=_seconds(columns["at"]),
        forecast_at=_seconds(columns["forecast_at"]),
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


@contextmanager
def _reading(engine: Engine) -> Iterator[Connection]:
    try:
        with engine.connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        raise StoreError(f"the decision log cannot be read: {driver_words(error)}") from error
