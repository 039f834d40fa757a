"""What the figures mean: how good the forecast was, what the objective came to, what went worst.

Pure: minutes in, findings out. Knows no database and no layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from forecaster.history import Floats
from storage.reports.came import Bools, Came
from storage.reports.minutes import MINUTE, Minutes

FORESEEN_SECONDS = 90.0
"""A forecast counts as made for a minute if its span lies this near to the minute's middle."""
GOOD_RATIO = 0.9999
"""Share of requests that are to be served within the objective, unless told otherwise."""
APART_MINUTES = 15
"""Bad minutes closer together are one incident, of which the worst is told."""
RISE_MINUTES = 10
WORTH_TELLING = 0.03
"""A rise of demand is told as part of a cause from so much on."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What a fleet is measured against.

    The latency objective, the rate that one replica serves within it, the price of a replica for
    an hour in any one currency (None if not given), and the share of requests that are to be good.
    """

    slo_seconds: float
    qps_per_replica: float
    price_per_pod_hour: float | None = None
    good_ratio: float = GOOD_RATIO


@dataclass(frozen=True, slots=True)
class ForecastQuality:
    """The forecast for what a replica ordered then would serve, against what came, by the minute.

    What came is the highest demand of the forecast's span; of `minutes_estimated` the decisions in
    it are gone, and it is estimated from whole minutes. `covered_ratio` is the share of minutes
    at or below the rate that was ordered for, of those with a trusted forecast; None without any,
    since nothing was ordered by the others. `below_low_ratio` is the share below the lower edge (a
    5 % quantile). `error_ratio` is the sum of absolute errors of the median over the sum of what
    came; `unchanged_error_ratio` is the same for the guess that demand stays as it is. `skill` is
    1 - error_ratio / unchanged_error_ratio. `trusted_ratio` is of all decisions.
    """

    minutes: int
    minutes_estimated: int
    covered_ratio: float | None
    below_low_ratio: float
    error_ratio: float
    unchanged_error_ratio: float
    trusted_ratio: float

    @property
    def skill(self) -> float | None:
        if self.unchanged_error_ratio == 0:
            return None
        return 1 - self.error_ratio / self.unchanged_error_ratio


@dataclass(frozen=True, slots=True)
class Compliance:
    """Requests against the objective, minute by minute.

    Where single requests were measured, `bad_requests` is `exact`. Else every request of a minute
    whose P99 was over the objective counts as bad, as does one that failed: the most that there can
    have been. Where no latency was measured, a minute counts whose demand was above the capacity
    that was ready. Of the `minutes_unknown` without a known demand those that went badly count with
    the last one that was known (`minutes_assumed`), and of `minutes_blind`, which lie between the
    first and the last of the log, nothing is known, their latency neither. `burn` is the share of
    the error budget that is used up, 1 when all of it is.
    """

    requests: float
    bad_requests: float
    failed_requests: float
    minutes: int
    minutes_measured: int
    minutes_over: int
    minutes_short: int
    minutes_unknown: int
    minutes_assumed: int
    minutes_blind: int
    good_ratio: float
    exact: bool

    @property
    def bad_ratio(self) -> float | None:
        return self.bad_requests / self.requests if self.requests else None

    @property
    def budget_requests(self) -> float:
        return (1 - self.good_ratio) * self.requests

    @property
    def burn(self) -> float | None:
        return self.bad_requests / self.budget_requests if self.requests else None

    @property
    def met(self) -> bool | None:
        """None where it cannot be said: the most that can have been bad is too much, what is known
        to have failed is not; or demand was never known; or what came in the minutes of which
        nothing is known can have been more than what is left of the budget."""
        if self.burn is None:
            return None
        if self.burn > 1:
            return False if self.exact or self.failed_requests > self.budget_requests else None
        unseen = self.minutes_blind * self.requests / max(1, self.minutes - self.minutes_unknown)
        allowed = (1 - self.good_ratio) * (self.requests + unseen)
        return True if self.bad_requests + unseen <= allowed else None


@dataclass(frozen=True, slots=True)
class WorstMinute:
    """A minute that went badly, and what the log knows about it; None where nothing."""

    at: datetime
    p99_seconds: float | None
    demand_qps: float | None
    capacity_qps: float | None
    missing_replicas: int | None
    forecast_median_qps: float | None
    forecast_high_qps: float | None
    reason: str | None
    cause: str
    forecast_trusted: bool | None = None


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute of a run: what was asked of the fleet and what it had."""

    at: datetime
    p99_seconds: float | None
    demand_qps: float
    ready: float


def forecast_quality(minutes: Minutes, judged_on: Came) -> ForecastQuality | None:
    """How good the forecast was, or None where no forecast met its span in the log."""
    came, now = judged_on.qps, minutes.demand_peak_qps
    judged = np.isfinite(minutes.forecast_high_qps) & np.isfinite(came) & np.isfinite(now)
    ordered = judged & (minutes.trusted == minutes.decisions)
    within = came <= minutes.forecast_high_qps
    total = float(came[judged].sum())
    if total == 0:
        return None
    return ForecastQuality(
        minutes=int(judged.sum()),
        minutes_estimated=int((judged & ~judged_on.exact).sum()),
        covered_ratio=float(within[ordered].mean()) if ordered.any() else None,
        below_low_ratio=float((came < minutes.forecast_low_qps)[judged].mean()),
        error_ratio=float(np.abs(came - minutes.forecast_median_qps)[judged].sum()) / total,
        unchanged_error_ratio=float(np.abs(came - now)[judged].sum()) / total,
        trusted_ratio=float(minutes.trusted.sum() / minutes.decisions.sum()),
    )


def compliance(minutes: Minutes, objective: Objective, span_minutes: int) -> Compliance:
    """Of a stretch of so many minutes, in some of which nothing may have been logged."""
    counted = minutes.counted_seconds / MINUTE
    known, measured = np.isfinite(minutes.demand_qps), np.isfinite(minutes.latency_p99_seconds)
    came = requests(minutes, objective)
    return Compliance(
        requests=float(came.sum()),
        bad_requests=float(bad_requests(minutes, objective).sum()),
        failed_requests=float(_failed(minutes).sum()),
        minutes=span_minutes,
        minutes_measured=int(measured.sum()),
        minutes_over=int((minutes.latency_p99_seconds > objective.slo_seconds).sum()),
        minutes_short=int((shortfall(minutes, minutes.ready) > 0).sum()),
        minutes_unknown=max(0, span_minutes - round(float(counted[known].sum()))),
        minutes_assumed=int((~known & (came > 0)).sum()),
        minutes_blind=max(0, _covered(minutes) - round(float(counted[known | measured].sum()))),
        good_ratio=objective.good_ratio,
        exact=minutes.bad_requests is not None,
    )


def _covered(minutes: Minutes) -> int:
    """Minutes from the first to the last: of what lies outside of them the log promises nothing."""
    return round((minutes.time[-1] - minutes.time[0]) / MINUTE) + 1 if len(minutes) else 0


def requests(minutes: Minutes, objective: Objective) -> Floats:
    """In each minute. One that went badly while demand was not known has as many as the last known
    demand would have brought, or as failed; of others none are known."""
    known, bad = np.isfinite(minutes.demand_qps), _went_badly(minutes, objective)
    if not known.any():
        return np.zeros(len(minutes))
    assumed = np.where(bad, np.fmax(minutes.carried_demand_qps, minutes.errors_qps), 0.0)
    return np.where(known, minutes.demand_qps, assumed) * minutes.counted_seconds


def bad_requests(minutes: Minutes, objective: Objective) -> Floats:
    """In each minute, as `Compliance` says: measured, or the most that there can have been."""
    if minutes.bad_requests is not None:
        return np.nan_to_num(minutes.bad_requests)
    all_of_them = np.maximum(requests(minutes, objective), _failed(minutes))
    return np.where(_over_or_short(minutes, objective), all_of_them, _failed(minutes))


def _went_badly(minutes: Minutes, objective: Objective) -> Bools:
    if minutes.bad_requests is not None:
        return np.nan_to_num(minutes.bad_requests) > 0
    return _over_or_short(minutes, objective) | (_failed(minutes) > 0)


def _over_or_short(minutes: Minutes, objective: Objective) -> Bools:
    p99, short = minutes.latency_p99_seconds, shortfall(minutes, minutes.ready) > 0
    return np.where(np.isfinite(p99), p99 > objective.slo_seconds, short)


def _failed(minutes: Minutes) -> Floats:
    """No more than came, where that is known."""
    failed = np.nan_to_num(minutes.errors_qps)
    return np.fmin(failed, minutes.demand_qps) * minutes.counted_seconds


def shortfall(minutes: Minutes, ready: Floats) -> Floats:
    """Replicas that each minute's mean demand needed beyond the ready ones; 0 where not known."""
    return np.maximum(0.0, np.nan_to_num(minutes.need - ready))


def worst_minutes(minutes: Minutes, objective: Objective, count: int) -> tuple[WorstMinute, ...]:
    """The minutes with the highest P99 over the objective, and those that were short of replicas
    while no latency was measured; each the worst of its incident, the worst first."""
    late = np.nan_to_num(minutes.latency_p99_seconds / objective.slo_seconds)
    short = np.where(
        np.isnan(minutes.latency_p99_seconds), 1 + shortfall(minutes, minutes.ready), 0.0
    )
    badness = np.maximum(late, short)
    found: list[int] = []
    for index in np.argsort(-badness, kind="stable"):
        if badness[index] <= 1 or len(found) == count:
            break
        near = np.abs(minutes.time[found] - minutes.time[index]) < APART_MINUTES * MINUTE
        if not near.any():
            found.append(int(index))
    return tuple(worst_minute(_minute(minutes, index), minutes, objective) for index in found)


def _minute(minutes: Minutes, index: int) -> Minute:
    p99 = float(minutes.latency_p99_seconds[index])
    return Minute(
        minutes.at(index),
        p99 if np.isfinite(p99) else None,
        float(minutes.demand_qps[index]),
        float(minutes.ready[index]),
    )


def worst_minute(minute: Minute, minutes: Minutes, objective: Objective) -> WorstMinute:
    """What was known about a bad minute, and its likely cause in a sentence."""
    middle = minute.at.timestamp() + MINUTE / 2
    known = bool(np.isfinite(minute.demand_qps) and np.isfinite(minute.ready))
    missing = (
        # The nearest: part of a replica within a part of the minute is none that was missing.
        max(0, round(minute.demand_qps / objective.qps_per_replica - minute.ready))
        if known
        else None
    )
    foreseen = _forecast_for(minutes, middle)
    reason = _common_reason(minutes, minute.at.timestamp())
    return WorstMinute(
        at=minute.at,
        p99_seconds=minute.p99_seconds,
        demand_qps=minute.demand_qps if known else None,
        capacity_qps=minute.ready * objective.qps_per_replica if known else None,
        missing_replicas=missing,
        forecast_median_qps=None if foreseen is None else foreseen.median_qps,
        forecast_high_qps=None if foreseen is None else foreseen.high_qps,
        reason=reason,
        cause=_cause(minute, missing, foreseen, reason, objective) + _rise(minutes, minute),
        forecast_trusted=None if foreseen is None else foreseen.trusted,
    )


def _cause(
    minute: Minute,
    missing: int | None,
    foreseen: _Foreseen | None,
    reason: str | None,
    goal: Objective,
) -> str:
    if minute.p99_seconds is not None and minute.p99_seconds <= goal.slo_seconds:
        return "Even this minute met the objective. " + _load(minute, foreseen, goal)
    if missing is None:
        return "Demand was not known then."
    if not missing:
        return (
            "The ready replicas carried the minute's mean demand: look for a burst within the "
            "minute, a backlog from the minutes before, or replicas slower than their capacity "
            "says."
        )
    if reason == "TooManyReplicas":
        return "Demand was above what maxReplicas allows."
    return _unforeseen(foreseen, minute.demand_qps)


def _load(minute: Minute, foreseen: _Foreseen | None, goal: Objective) -> str:
    """How a minute that went well came nearest to going badly."""
    capacity = minute.ready * goal.qps_per_replica
    if not np.isfinite(minute.demand_qps) or not capacity > 0:
        return "Demand was not known then."
    text = f"Its demand took {_percent(minute.demand_qps / capacity, 0)} of the ready capacity"
    if foreseen is None:
        return text + "; no forecast had been made for it."
    off = minute.demand_qps / foreseen.median_qps - 1 if foreseen.median_qps > 0 else 0.0
    if abs(off) < 0.005:
        return text + ", as forecast."
    margin = ", which used up the margin" if off > 0 and minute.demand_qps > 0.98 * capacity else ""
    return (
        text + f": {_percent(abs(off))} {'more' if off > 0 else 'less'} than forecast came{margin}."
    )


def _unforeseen(foreseen: _Foreseen | None, demand_qps: float) -> str:
    if foreseen is None:
        return "No forecast was available for it; only observed demand could order replicas."
    if not foreseen.trusted:
        return "Its forecast was not trusted; only observed demand could order replicas."
    if foreseen.high_qps < demand_qps:
        beyond = demand_qps / foreseen.high_qps - 1 if foreseen.high_qps > 0 else 1.0
        return (
            f"Demand rose {_percent(beyond)} above the forecast's upper edge, so it was not "
            f"foreseen; replicas ordered when it was seen were still starting."
        )
    return (
        "The forecast did cover it, so enough was foreseen: replicas were ready later than the "
        "lead time says, or a limit held them back."
    )


def _rise(minutes: Minutes, minute: Minute) -> str:
    """How steeply demand rose towards a minute, where it did."""
    at = minute.at.timestamp()
    before = (minutes.time >= at - RISE_MINUTES * MINUTE) & (minutes.time < at)
    known = minutes.demand_qps[before & np.isfinite(minutes.demand_qps)]
    if not len(known) or not np.isfinite(minute.demand_qps) or not known.min() > 0:
        return ""
    rise = minute.demand_qps / float(known.min()) - 1
    if rise < WORTH_TELLING:
        return ""
    return f" Demand had risen by {_percent(rise, 0)} within {RISE_MINUTES} minutes."


def _percent(ratio: float, digits: int = 1) -> str:
    return f"{ratio * 100:.{digits}f}\N{NARROW NO-BREAK SPACE}%"


@dataclass(frozen=True, slots=True)
class _Foreseen:
    """What was forecast for a minute: the median and what was ordered for, if it was trusted."""

    median_qps: float
    high_qps: float
    trusted: bool


def _forecast_for(minutes: Minutes, at: float) -> _Foreseen | None:
    """The forecast whose span lies around `at`, or nearest to it."""
    made = np.flatnonzero(np.isfinite(minutes.forecast_at) & np.isfinite(minutes.forecast_high_qps))
    if not len(made):
        return None
    starts, ends = (
        minutes.forecast_at[made],
        np.fmax(minutes.forecast_until[made], minutes.forecast_at[made]),
    )
    distance = np.maximum(0.0, np.maximum(starts - at, at - ends))
    nearest = int(np.argmin(distance))
    if distance[nearest] > FORESEEN_SECONDS:
        return None
    found = made[nearest]
    return _Foreseen(
        float(minutes.forecast_median_qps[found]),
        float(minutes.forecast_high_qps[found]),
        bool(minutes.trusted[found] == minutes.decisions[found]),
    )


def _common_reason(minutes: Minutes, at: float) -> str | None:
    """The reason that most often bound within the minute."""
    index = int(np.searchsorted(minutes.time, at))
    if index >= len(minutes) or minutes.time[index] >= at + MINUTE:
        return None
    counts = minutes.reasons[index]
    return max(counts, key=lambda name: counts[name])


def minute_grid(minutes: Minutes, column: Floats, since: datetime, until: datetime) -> Floats:
    """A column with a value for each whole minute of [since, until), NaN where nothing was
    logged."""
    count = int((until - since).total_seconds() // MINUTE)
    place = ((minutes.time - since.timestamp()) // MINUTE).astype(np.int64)
    inside = (place >= 0) & (place < count)
    grid = np.full(count, np.nan)
    grid[place[inside]] = column[inside]
    return grid
