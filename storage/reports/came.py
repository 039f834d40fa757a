"""What came: the highest demand of the span that each minute's forecast was made for.

Knows how a span is read from the decisions in it, and how it is estimated from whole minutes where
these are gone. Raises StoreError where the log cannot be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine, String, select, type_coerce

from forecaster.history import Floats
from storage import rollups, schema
from storage.database import reading
from storage.reports.minutes import MINUTE, Minutes, contexts_of, still_whole

MOST_READ = 180_000
"""Decisions that are read of a long period, the newest ones: a month of them at the usual interval.
More would take seconds."""
HOLE_INTERVALS = 2.0
"""Decisions further apart than so many usual intervals leave a span that is not known whole."""

_decision = schema.decision.c

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Came:
    """For each minute's forecast the highest demand of its span, in requests a second; NaN where
    the span is not known whole. `exact` where the decisions in it are still there."""

    qps: Floats
    exact: Bools


@dataclass(frozen=True, slots=True, eq=False)
class _Spans:
    """From when to when each forecast is to be judged, in seconds since 1970; NaN without one."""

    start: Floats
    end: Floats


def metric_lag(engine: Engine, minutes: Minutes) -> float:
    """In seconds, as the newest decision went by it: what was seen at a moment is what came so
    long before. 0 where its context is not there or cannot be read."""
    newest = next(contexts_of(engine, minutes.newest(1)), None)
    return 0.0 if newest is None else newest.lead_time.metric_lag_seconds


def came(engine: Engine, minutes: Minutes, lag_seconds: float) -> Came:
    """By the decisions in each span where they are kept and no more than can be read, else
    estimated from whole minutes."""
    spans = _spans(minutes, lag_seconds)
    times, demand = _decided(engine, still_whole(engine, minutes, MOST_READ))
    exact = spans.start >= (times[0] if len(times) else np.inf)
    qps = _from_minutes(minutes, spans)
    qps[exact] = _from_decisions(times, demand, _Spans(spans.start[exact], spans.end[exact]))
    return Came(qps, exact)


def came_by_minutes(minutes: Minutes) -> Came:
    """Estimated from whole minutes alone, with no database at hand and no lag known."""
    spans = _spans(minutes, 0.0)
    return Came(_from_minutes(minutes, spans), np.zeros(len(minutes), dtype=np.bool_))


def _spans(minutes: Minutes, lag_seconds: float) -> _Spans:
    start = minutes.forecast_at + lag_seconds
    # Version 1 logged a moment without an end.
    length = np.nan_to_num(minutes.forecast_until - minutes.forecast_at, nan=MINUTE)
    return _Spans(start, start + np.maximum(length, 1.0))


def _decided(engine: Engine, minutes: Minutes) -> tuple[Floats, Floats]:
    """When the decisions of these minutes were made, and the demand that they saw."""
    if not len(minutes):
        return np.zeros(0), np.zeros(0)
    since, until = minutes.at(0), minutes.at(len(minutes) - 1) + rollups.MINUTE
    # Of a month there are half a million: as text, a time is read ten times as fast.
    as_text = engine.dialect.name == "sqlite"
    at = type_coerce(_decision.at, String) if as_text else _decision.at
    query = (
        select(at, _decision.demand_qps)
        .where(_decision.workload == minutes.workload, _decision.at >= since, _decision.at < until)
        .order_by(_decision.at)
    )
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    times: list[datetime | str] = [row[0] for row in rows]
    demand = np.array([row[1] for row in rows], dtype=np.float64)
    if as_text:
        return np.array(times, dtype="datetime64[us]").astype(np.int64) / 1e6, demand
    return np.array([time.timestamp() for time in times if isinstance(time, datetime)]), demand


def _from_decisions(times: Floats, demand: Floats, spans: _Spans) -> Floats:
    first, last = (np.searchsorted(times, edge) for edge in (spans.start, spans.end))
    found = _highest(demand, first, last, np.nan)
    if not len(found):
        return found
    apart = np.diff(times)
    holes = np.cumsum(apart > HOLE_INTERVALS * np.median(apart)) if len(apart) else np.zeros(0)
    holes = np.concatenate([[0], holes])
    touched = holes[np.minimum(last, len(times) - 1)] > holes[np.maximum(first - 1, 0)]
    reached = times[-1] >= spans.end - 1.0
    return np.where(reached & ~touched, found, np.nan)


def _from_minutes(minutes: Minutes, spans: _Spans) -> Floats:
    """A minute that lies in the span gives its peak; one of which a part does, the part's way from
    its mean to its peak: so much higher a shorter stretch may be expected to reach."""
    found = np.full(len(minutes), np.nan)
    origin = float(minutes.time[0])
    place = ((minutes.time - origin) // MINUTE).astype(np.int64)
    mean, peak = (np.full(int(place[-1]) + 1, np.nan) for _ in range(2))
    mean[place], peak[place] = minutes.demand_qps, minutes.demand_peak_qps
    start, end = (spans.start - origin) / MINUTE, (spans.end - origin) / MINUTE
    inside = (start >= 0) & (np.ceil(end) <= len(peak))
    start, end = start[inside], end[inside]
    first, last = np.floor(start).astype(np.int64), np.ceil(end).astype(np.int64) - 1

    def edge(at: Ints) -> Floats:
        part = np.minimum(end, at + 1) - np.maximum(start, at)
        return np.asarray(mean[at] + part * (peak[at] - mean[at]), dtype=np.float64)

    between = _highest(peak, np.minimum(first + 1, last), last, -np.inf)
    found[inside] = np.maximum(between, np.maximum(edge(first), edge(last)))
    return found


def _highest(column: Floats, first: Ints, last: Ints, otherwise: float) -> Floats:
    """The highest value of each [first, last), NaN where one is not known; `otherwise` of none."""
    pairs = np.column_stack([first, last]).ravel()
    found = np.maximum.reduceat(np.append(column, np.nan), pairs)[::2] if len(pairs) else column[:0]
    return np.where(last > first, found, otherwise)
