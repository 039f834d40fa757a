"""What the figures mean: how good the forecast was, and what caused the worst minute.

Pure: timelines and per-minute figures in, findings out. Knows no database and no layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from forecaster.history import Floats
from storage.reports.timeline import Timeline

MINUTE = 60.0
FORESEEN_SECONDS = 90.0
"""A forecast counts as made for a minute if its moment lies this near to the minute's middle."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What a fleet is measured against: the latency objective, the rate that one replica serves
    within it, and the price of a replica for an hour in any one currency (None if not given)."""

    slo_seconds: float
    qps_per_replica: float
    price_per_pod_hour: float | None = None


@dataclass(frozen=True, slots=True)
class ForecastQuality:
    """The forecast made one lead time ahead, against the demand that came, minute by minute.

    `covered_ratio` is the share of minutes at or below the upper quantile. `error_ratio` is the
    sum of absolute errors of the median over the sum of demand; `unchanged_error_ratio` is the
    same for the guess that demand stays as it is for one lead time. `skill` is
    1 - error_ratio / unchanged_error_ratio.
    """

    minutes: int
    covered_ratio: float
    error_ratio: float
    unchanged_error_ratio: float

    @property
    def skill(self) -> float | None:
        if self.unchanged_error_ratio == 0:
            return None
        return 1 - self.error_ratio / self.unchanged_error_ratio


@dataclass(frozen=True, slots=True)
class WorstMinute:
    """The minute with the highest P99, and what the log knows about it; None where nothing."""

    at: datetime
    p99_seconds: float
    demand_qps: float | None
    capacity_qps: float | None
    missing_replicas: int | None
    forecast_high_qps: float | None
    reason: str | None
    cause: str


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute of a run: what was asked of the fleet and what it had."""

    at: datetime
    p99_seconds: float
    demand_qps: float
    ready: float


def forecast_quality(line: Timeline) -> ForecastQuality | None:
    """How good the forecast was, or None where no forecast met its moment in the log."""
    known = np.isfinite(line.demand_qps)
    made = known & np.isfinite(line.forecast_at) & np.isfinite(line.forecast_high_qps)
    if known.sum() < 2 or not made.any():
        return None
    target = line.forecast_at[made]
    came = np.interp(target, line.time[known], line.demand_qps[known])
    came[~_near(line.time[known], target)] = np.nan
    minute = (target // MINUTE).astype(np.int64)
    columns = (came, line.forecast_median_qps[made], line.forecast_high_qps[made])
    actual, median, high, unchanged = (
        _minute_means(minute, column) for column in (*columns, line.demand_qps[made])
    )
    judged = np.isfinite(actual) & np.isfinite(median)
    total = float(actual[judged].sum())
    if total == 0:
        return None
    return ForecastQuality(
        minutes=int(judged.sum()),
        covered_ratio=float((actual[judged] <= high[judged]).mean()),
        error_ratio=float(np.abs(actual - median)[judged].sum()) / total,
        unchanged_error_ratio=float(np.abs(actual - unchanged)[judged].sum()) / total,
    )


def worst_minute(minute: Minute, line: Timeline, objective: Objective) -> WorstMinute:
    """What was known about a run's worst minute, and its likely cause in a sentence."""
    middle = minute.at.timestamp() + MINUTE / 2
    capacity = minute.ready * objective.qps_per_replica
    missing = max(0, int(np.ceil(minute.demand_qps / objective.qps_per_replica - minute.ready)))
    high = _forecast_for(line, middle)
    reason = _common_reason(line, middle)
    return WorstMinute(
        at=minute.at,
        p99_seconds=minute.p99_seconds,
        demand_qps=minute.demand_qps,
        capacity_qps=capacity,
        missing_replicas=missing,
        forecast_high_qps=high,
        reason=reason,
        cause=_cause(minute, missing, high, reason, objective),
    )


def _cause(
    minute: Minute, missing: int, high: float | None, reason: str | None, objective: Objective
) -> str:
    if minute.p99_seconds <= objective.slo_seconds:
        return "Even this minute met the objective."
    if not missing:
        return (
            "The ready replicas carried the minute's mean demand: look for a burst within the "
            "minute, a backlog from the minutes before, or replicas slower than their capacity "
            "says."
        )
    if reason == "TooManyReplicas":
        return "Demand was above what maxReplicas allows."
    if high is None:
        return "No forecast was available for it; only observed demand could order replicas."
    if high < minute.demand_qps:
        return (
            "Demand rose above the forecast's upper edge, so it was not foreseen; replicas ordered "
            "when it was seen were still starting."
        )
    return (
        "The forecast did cover it, so enough was foreseen: replicas were ready later than the "
        "lead time says, or a limit held them back."
    )


def _forecast_for(line: Timeline, at: float) -> float | None:
    """The upper forecast whose moment is nearest to `at`."""
    made = np.flatnonzero(np.isfinite(line.forecast_at) & np.isfinite(line.forecast_high_qps))
    if not len(made):
        return None
    nearest = made[np.argmin(np.abs(line.forecast_at[made] - at))]
    if abs(line.forecast_at[nearest] - at) > FORESEEN_SECONDS:
        return None
    return float(line.forecast_high_qps[nearest])


def _common_reason(line: Timeline, middle: float) -> str | None:
    """The reason that most often bound within the minute."""
    within = np.flatnonzero(np.abs(line.time - middle) <= MINUTE / 2)
    seen = [line.reason[index] for index in within]
    return max(seen, key=seen.count) if seen else None


def _near(known: Floats, target: Floats) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether a known time lies close enough on both sides to interpolate."""
    step = float(np.median(np.diff(known)))
    after = np.searchsorted(known, target)
    inside = (after > 0) & (after < len(known))
    gap = np.full(len(target), np.inf)
    gap[inside] = known[after[inside]] - known[after[inside] - 1]
    close: np.ndarray[tuple[int], np.dtype[np.bool_]] = gap <= max(5 * step, 2 * MINUTE)
    return close


def _minute_means(minute: np.ndarray[tuple[int], np.dtype[np.int64]], column: Floats) -> Floats:
    """The mean of each minute that occurs; NaN where a minute has an unknown value."""
    _, index = np.unique(minute, return_inverse=True)
    return np.asarray(np.bincount(index, column) / np.bincount(index), dtype=np.float64)


def minute_grid(line: Timeline, column: Floats, since: datetime, until: datetime) -> Floats:
    """A column's mean in each whole minute of [since, until); NaN where nothing was logged."""
    minutes = int((until - since).total_seconds() // MINUTE)
    index = ((line.time - since.timestamp()) // MINUTE).astype(np.int64)
    use = (index >= 0) & (index < minutes) & np.isfinite(column)
    sums = np.bincount(index[use], column[use], minlength=minutes)
    counts = np.bincount(index[use], minlength=minutes)
    means: Floats = np.divide(sums, counts, out=np.full(minutes, np.nan), where=counts > 0)
    return means
