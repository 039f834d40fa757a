"""The audit in figures and sentences: what was saved, what it cost, how bad it got.

Pure: an AuditReport in, text out. Knows how numbers are written for people; knows no layout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import numpy as np

from storage.reports.audit import RECORDED, AuditReport, PolicyRun
from storage.reports.counterfactual import Reproduction
from storage.reports.findings import Compliance, ForecastQuality, Objective, WorstMinute
from storage.reports.minutes import Minutes

STATIC = "static"
TARGET = "targetQps"
"""The parameter that says how much a replica is to carry."""
UNKNOWN = "\N{EM DASH}"
MINUS = "\N{MINUS SIGN}"
NARROW_SPACE = "\N{NARROW NO-BREAK SPACE}"
UNITS = (
    ("day", timedelta(days=1), timedelta(days=3)),
    ("hour", timedelta(hours=1), timedelta(hours=1)),
    ("minute", timedelta(minutes=1), timedelta.min),
)
"""What a period is told in, from which length on."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One big number: what it is, the number, and a sentence that puts it in place."""

    name: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """One row of the table of policies: a measure and its value for each run."""

    measure: str
    values: tuple[str, ...]


def headline(report: AuditReport) -> str:
    """The outcome in one or two sentences."""
    ours = report.runs[0]
    period = _period(report.since, report.until, [covered(report.minutes)])
    price = report.objective.price_per_pod_hour
    text = f"Over {period} {ours.label} used {count(ours.pod_hours)} GPU-hours"
    if price is not None:
        text += f", which cost {money(ours.pod_hours * price)} ({price:g} per GPU-hour)"
    parts = [
        f"{_more_or_fewer(ours.pod_hours, other.pod_hours)} than {other.label}"
        for other in report.runs[1:]
    ]
    if parts:
        text += (": " if price is None else ". That is ") + _listed(parts)
    text += "."
    if ours.bad_ratio is not None:
        bad = [f"{share(run.bad_ratio)} with {run.label}" for run in report.runs]
        text += f" Bad requests: {', '.join(bad)}."
    return text


class Row(Protocol):
    """What the outcome of many workloads is summed up from."""

    @property
    def since(self) -> datetime: ...
    @property
    def until(self) -> datetime: ...
    @property
    def pod_hours(self) -> float: ...
    @property
    def clairvoyant_pod_hours(self) -> float | None: ...
    @property
    def burn(self) -> float | None: ...
    @property
    def met(self) -> bool | None: ...
    @property
    def covered(self) -> timedelta: ...


def fleet_headline(rows: Sequence[Row]) -> str:
    """The outcome of many workloads in two sentences."""
    hours = sum(row.pod_hours for row in rows)
    over = sum(row.met is False for row in rows)
    perhaps = sum(row.met is None and (row.burn or 0.0) > 1 for row in rows)
    open_still = sum(row.met is None for row in rows) - perhaps
    period = _period(rows[0].since, rows[0].until, [row.covered for row in rows])
    text = f"Over {period} {len(rows)} workloads used {count(hours)} GPU-hours"
    text += _against_optimum(rows)
    told = [f"{over} of them overspent their error budget"] if over else []
    if perhaps:
        told.append(f"{perhaps} may have overspent {'it' if told else 'their error budget'}")
    if open_still:
        told.append(f"of {open_still} of them nothing certain can be said")
    if not told:
        told.append("all kept their objective")
    sentence = _listed(told)
    return f"{text}. {sentence[0].upper()}{sentence[1:]}."


def _against_optimum(rows: Sequence[Row]) -> str:
    """Of those that have one: without a known demand there is none."""
    known = [row for row in rows if row.clairvoyant_pod_hours]
    if not known:
        return ""
    optimum = sum(row.clairvoyant_pod_hours or 0.0 for row in known)
    ratio = signed_share(sum(row.pod_hours for row in known) / optimum - 1)
    link = "," if len(known) == len(rows) else "; where demand is known,"
    return f"{link} {ratio} against the optimum with the future known"


def figures(report: AuditReport) -> tuple[Figure, ...]:
    """Four at most, the most telling first."""
    ours = report.runs[0]
    found = [_against(report, other) for other in _yardsticks(report)]
    if ours.policy == RECORDED:
        found = [*found[:1], _budget(report)]
    found.insert(0, _cost(report, ours))
    found += [_quality(report, ours), _foresight(report)]
    return tuple(found[:4])


def worst_sentence(found: WorstMinute, objective: Objective) -> str:
    """When it went worst, and why."""
    known, slo = found.p99_seconds is not None, objective.slo_seconds
    p99 = f", with a P99 of {seconds(found.p99_seconds, slo)}" if known else ""
    return f"The worst minute was {clock(found.at)} UTC{p99}. {found.cause}"


def comparisons(report: AuditReport) -> tuple[Comparison, ...]:
    """Measures as rows and runs as columns, so that the table also fits a narrow screen."""
    of_a_day = report.until - report.since <= timedelta(days=1)
    price, slo = report.objective.price_per_pod_hour, report.objective.slo_seconds
    best = report.clairvoyant_pod_hours
    rows: list[tuple[str, Callable[[PolicyRun], str]]] = [
        ("GPU-hours", lambda run: count(run.pod_hours)),
        *([("cost", lambda run: money(run.pod_hours * price))] if price is not None else []),
        ("above the optimum", lambda run: signed_share(run.excess)),
        ("bad requests", lambda run: share(run.bad_ratio)),
        ("minutes short of replicas", lambda run: count(run.short_minutes)),
        ("requests in those minutes", lambda run: share(run.short_ratio)),
        ("P99 of all requests", lambda run: seconds(run.p99_seconds, slo)),
        ("minutes with P99 over the objective", lambda run: count(run.minutes_p99_over_slo)),
        ("P99 of the worst minute", lambda run: seconds(run.worst_minute_p99, slo)),
        ("worst minute at (UTC)", lambda run: clock(run.worst_minute_at, dated=not of_a_day)),
        ("scale-ups", lambda run: count(run.scale_ups)),
        ("scale-downs", lambda run: count(run.scale_downs)),
        ("most replicas at once", lambda run: count(run.max_replicas)),
    ]
    if best is None:
        rows = [row for row in rows if row[0] != "above the optimum"]
    table = [Comparison(name, tuple(cell(run) for run in report.runs)) for name, cell in rows]
    return tuple(row for row in table if set(row.values) != {UNKNOWN})


def count(number: float | None) -> str:
    """A number to its whole, or to three digits where it is small."""
    if number is None:
        return UNKNOWN
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:,.3g}"


def money(amount: float) -> str:
    return f"{amount:,.0f}"


def seconds(value: float | None, objective: float | None = None) -> str:
    """To three digits, or as many as show on which side of an objective it lies."""
    if value is None:
        return UNKNOWN
    told = (f"{value:.{digits}g}" for digits in range(3, 9))
    above = objective is not None and value > objective
    found = next(
        (text for text in told if objective is None or (float(text) > objective) == above),
        f"{value:g}",
    )
    return f"{found}{NARROW_SPACE}s"


def set_up(run: PolicyRun, objective: Objective) -> str:
    """How a policy of the comparison was set, in brackets; empty where that is not known."""
    told = [
        f"{name} {count(value)}"
        + (f", {share(value / objective.qps_per_replica)} of what one carries" * (name == TARGET))
        for name, value in run.parameters or ()
    ]
    return f" ({'; '.join(told)})" if told else ""


def share(ratio: float | None) -> str:
    """A ratio as a percentage; one near 0 or 1 keeps two digits, so that 1e-5 is not shown as 0."""
    if ratio is None:
        return UNKNOWN
    percent = ratio * 100
    digits = f"{percent:,.1f}".removesuffix(".0") if percent >= 1 else f"{percent:.2g}"
    if 99 < percent < 100:
        # As exact as what is missing, so that 99.99 is not shown as 100.
        digits = f"{percent:.{max(1, 1 - math.floor(math.log10(100 - percent)))}f}".rstrip("0")
    if "e" in digits:
        digits = f"{percent:.7f}".rstrip("0")
    return f"{digits.removesuffix('.')}{NARROW_SPACE}%"


def burn(ratio: float | None) -> str:
    """How much of a budget is used up: as a percentage, or how many times over."""
    if ratio is None or ratio < 10:
        return share(ratio)
    return f"{ratio:,.0f} times"


def signed_share(ratio: float | None) -> str:
    if ratio is None:
        return UNKNOWN
    sign = MINUS if ratio < 0 else "+"
    return f"{sign}{_percent(ratio)}"


def clock(at: datetime | None, dated: bool = True) -> str:
    """A moment in UTC, to the minute."""
    if at is None:
        return UNKNOWN
    return f"{at:%d %b %H:%M}" if dated else f"{at:%H:%M}"


def stretch(since: datetime, until: datetime) -> str:
    """From one moment to another, in UTC, with the years that it takes to tell them."""
    year = "" if since.year == until.year else f" {since.year}"
    return f"{since:%d %b}{year} {since:%H:%M} to {until:%d %b} {until.year} {until:%H:%M} UTC"


def duration(span: timedelta) -> str:
    """A stretch of time to the minute, such as "5 h 40 min"."""
    hours, minutes = divmod(round(span.total_seconds() / 60), 60)
    parts = [f"{hours:,} h"] if hours else []
    return " ".join([*parts, *([f"{minutes} min"] if minutes or not hours else [])])


def _yardsticks(report: AuditReport) -> list[PolicyRun]:
    """The fleet of fixed size and the first other policy."""
    others = report.runs[1:]
    fixed = [run for run in others if run.policy == STATIC][:1]
    reactive = [run for run in others if run.policy != STATIC][:1]
    return fixed + reactive


def _against(report: AuditReport, other: PolicyRun) -> Figure:
    ours, price = report.runs[0], report.objective.price_per_pod_hour
    difference = other.pod_hours - ours.pod_hours
    verb = "saved" if difference >= 0 else "more"
    note = f"{count(abs(difference))} GPU-hours {verb}"
    if price is not None:
        note += f", {money(abs(difference) * price)} at {price:g} per GPU-hour"
    if ours.bad_ratio is not None and other.bad_ratio is not None:
        alike = share(ours.bad_ratio) == share(other.bad_ratio)
        note += (
            "; bad requests alike: " if alike else f"; bad requests {share(ours.bad_ratio)}, not "
        )
        note += share(other.bad_ratio)
    value = signed_share(ours.pod_hours / other.pod_hours - 1 if other.pod_hours else None)
    return Figure(f"GPU-hours against {other.label}", value, note + ".")


def _cost(report: AuditReport, ours: PolicyRun) -> Figure:
    price = report.objective.price_per_pod_hour
    notes = [f"Up to {count(ours.max_replicas)} replicas at once"]
    if ours.excess is not None:
        notes.append(f"{signed_share(ours.excess)} against the optimum with the future known")
    if price is not None:
        notes.append(f"{money(ours.pod_hours * price)} at {price:g} per GPU-hour")
    return Figure("GPU-hours used", count(ours.pod_hours), "; ".join(notes) + ".")


def _budget(report: AuditReport) -> Figure:
    found = report.compliance
    name = "Error budget used up"
    if found.burn is None:
        return Figure(name, UNKNOWN, "No demand was logged.")
    bad = f"{count(found.bad_requests)} of {count(found.requests)} requests were bad"
    if not found.exact and found.bad_requests:
        bad, name = f"At most {bad}", f"{name}, at most"
    note = f"{bad}; {share(1 - found.good_ratio)} may be."
    if found.minutes_blind:
        note += f" Of {_minutes(found.minutes_blind)} nothing is known."
    return Figure(name, burn(found.burn), note)


def budget_sentence(found: Compliance) -> str:
    """Whether the objective was kept, and how sure that is."""
    told = [_verdict(found)]
    if found.minutes_assumed:
        told.append(
            f"{_minutes(found.minutes_assumed)} that went badly while demand was not known count "
            f"with the last demand that was."
        )
    if found.minutes_blind:
        told.append(
            f"Of {count(found.minutes_blind)} of {_minutes(found.minutes)} neither demand nor "
            f"latency is known."
        )
    return " ".join(told)


def _verdict(found: Compliance) -> str:
    if found.burn is None:
        if not found.bad_requests and not found.minutes_over:
            return "No demand was logged, so nothing can be said."
        return (
            f"Demand was never known, so nothing can be said; P99 was over the objective in "
            f"{_minutes(found.minutes_over)}, and {count(found.failed_requests)} requests failed."
        )
    if found.met is None and found.burn > 1:
        return (
            f"It may have been overspent: of the minutes whose P99 was over the objective the log "
            f"does not hold single requests, so between {count(found.failed_requests)} and "
            f"{count(found.bad_requests)} were bad, and {count(found.budget_requests)} may be."
        )
    if found.met is None:
        return (
            "It cannot be said: it was kept as far as is known, and the minutes of which nothing "
            "is known may have held more bad requests than were left."
        )
    return "It was kept." if found.met else "It was overspent."


def _minutes(number: int) -> str:
    return f"{count(number)} minute{'' if number == 1 else 's'}"


def judged_sentence(found: ForecastQuality) -> str:
    """What the forecasts were held against."""
    exact = "What came is what the decisions within that span saw"
    if not found.minutes_estimated:
        return f"{exact}."
    estimate = "estimated from the mean and the peak of each minute"
    if found.minutes_estimated == found.minutes:
        return f"What came is {estimate}: the decisions themselves are no longer kept."
    return (
        f"{exact}; for {count(found.minutes_estimated)} of {count(found.minutes)} forecasts, whose "
        f"decisions are no longer kept, it is {estimate}."
    )


def reproduction_sentence(found: Reproduction) -> str:
    """Whether the comparisons can be trusted: the policy that ran, computed the same way."""
    how = (
        f"each of the {found.decisions:,} decisions of {_clocks(found)} was taken again from what "
        f"it had seen, on a fleet whose replicas serve a median cold start after they are asked "
        f"for and are gone at once. It comes"
        if found.decisions
        else f"the policy that ran, decided again by the last decision of each minute of "
        f"{_clocks(found)}, comes"
    )
    parts = "; ".join(
        f"{signed_hours(amount)} {what}" for amount, what in _unlike(found) if abs(amount) >= 0.05
    )
    return (
        f"Check: {how} to {count(found.recomputed)} GPU-hours where the log recorded "
        f"{count(found.recorded)}, {_apart(found.difference_ratio)}."
        + (f" The difference in GPU-hours: {parts}." if parts else "")
    )


def _unlike(found: Reproduction) -> Iterator[tuple[float, str]]:
    """What makes the recorded fleet differ from the one computed, in GPU-hours."""
    yield found.draining, "in replicas that still drained or were more than was asked for"
    yield found.elsewhere, "that were asked for beside the decisions"
    rest = "from when replicas began to count, within an interval or by their cold start"
    yield found.rest, rest if found.decisions else "that deciding once a minute leaves out"


def method_sentence(found: Reproduction) -> str:
    """How the other policies' figures were computed, and how far off that may be."""
    text = "The other policies decide once a minute on the demand that was recorded"
    if not found.decisions:
        return f"{text}, in the same way."
    return (
        f"{text}; deciding so, the policy that ran would come to "
        f"{count(found.once_a_minute)} GPU-hours, {_apart(found.once_a_minute_ratio)}. "
        f"Differences between policies that are no larger than this say nothing."
    )


def _clocks(found: Reproduction) -> str:
    return f"{clock(found.since)} to {clock(found.until)}"


def _apart(ratio: float) -> str:
    return signed_share(ratio) if abs(ratio) >= 0.0005 else "less than 0.1 % apart"


def signed_hours(hours: float) -> str:
    sign = MINUS if hours < 0 else "+"
    return f"{sign}{abs(hours):,.1f}"


def _quality(report: AuditReport, ours: PolicyRun) -> Figure:
    over, slo = ours.minutes_p99_over_slo, report.objective.slo_seconds
    worst = (
        f"The worst: P99 {seconds(ours.worst_minute_p99, slo)} at {clock(ours.worst_minute_at)}."
    )
    if over is None:
        return Figure("Minutes over the objective", UNKNOWN, "No latency was measured.")
    measured = int(np.isfinite(ours.p99_by_minute).sum())
    name = f"Minutes with P99 over {slo:g}{NARROW_SPACE}s"
    return Figure(name, count(over), f"Of {measured:,} measured. {worst}")


def _foresight(report: AuditReport) -> Figure:
    found = report.forecast
    name = "Minutes within the forecast"
    if found is None:
        return Figure(name, UNKNOWN, "The log holds no forecast whose moment came.")
    if found.covered_ratio is None:
        return Figure(name, UNKNOWN, "No forecast was trusted, so nothing was ordered by one.")
    note = (
        f"Demand stayed at or below what was ordered for one lead time ahead. Median error "
        f"{share(found.error_ratio)}; assuming no change, {share(found.unchanged_error_ratio)}."
    )
    return Figure(name, share(found.covered_ratio), note)


def covered(minutes: Minutes) -> timedelta:
    """For how long the log tells what ran."""
    return timedelta(seconds=float(minutes.held_seconds.sum()))


def _period(since: datetime, until: datetime, spans: Sequence[timedelta]) -> str:
    """How long that is, and what part of it the log covers: of each of several workloads."""
    whole = until - since
    name, unit = next((name, unit) for name, unit, least in UNITS if whole >= least)
    told_as = duration if min(spans) < unit else lambda span: count(span / unit)
    total = count(whole / unit)
    least, most = told_as(min(spans)), told_as(max(spans))
    told = f"{total} {name}{'' if total == '1' else 's'}"
    # A count of minutes: one may be missing at either end.
    if whole - min(spans) <= timedelta(minutes=2) or least == total:
        return told
    if least == most:
        return f"the {least} of {told} that the log covers"
    return f"{told}, of which the log covers {least} to {most} for each,"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]


def _more_or_fewer(ours: float, other: float) -> str:
    ratio = ours / other - 1 if other else 0.0
    word = "fewer" if ratio < 0 else "more"
    return f"{_percent(ratio)} {word}"


def _percent(ratio: float) -> str:
    """Without its sign; one digit after the point below ten."""
    percent = abs(ratio) * 100
    return f"{percent:.{0 if percent >= 9.95 else 1}f}{NARROW_SPACE}%"
