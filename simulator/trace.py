"""Traces: read from CSV, generated, scaled.

Knows the file contract (`timestamp,qps`; ISO-8601 UTC; fixed step; an empty field is a gap) and
says in which line a file breaks it.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from forecaster.history import Floats, TrafficHistory


class TraceError(Exception):
    """A trace that breaks the contract; the message names file, line, what it got and wants."""


def read_trace(path: Path) -> TrafficHistory:
    """A trace CSV as history; raises TraceError."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(_rows(path, csv.reader(file)))
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{path}: is not CSV text in UTF-8: {error}") from error
    if len(rows) < 2:
        raise TraceError(f"{path}: expected at least two rows below the header, got {len(rows)}")
    start, step = rows[0][0], rows[1][0] - rows[0][0]
    for number, (at, _) in enumerate(rows):
        if at != start + number * step or step <= timedelta(0):
            raise TraceError(
                f"{path}, line {number + 2}: expected {(start + number * step).isoformat()} on a "
                f"fixed rising step of {step.total_seconds():g} s, got {at.isoformat()}"
            )
    if step.total_seconds() % 1:
        raise TraceError(f"{path}, line 3: the step must be whole seconds, got {step}")
    values = np.array([value for _, value in rows])
    return TrafficHistory(path.stem, start, int(step.total_seconds()), values)


def scaled_to_peak(trace: TrafficHistory, peak_qps: float) -> TrafficHistory:
    """The trace times a factor, so that its highest step is the peak."""
    factor = peak_qps / float(np.nanmax(trace.values))
    return TrafficHistory(trace.series, trace.start, trace.step_seconds, trace.values * factor)


@dataclass(frozen=True, slots=True)
class Diurnal:
    """A generated service: two humps a day, quieter nights and weekends, wandering level.

    `night_ratio` and `weekend_ratio` are relative to the weekday peak; `noise` is the standard
    deviation of the wandering log level, which keeps `persistence` of itself from minute to
    minute.
    """

    peak_qps: float = 200_000.0
    night_ratio: float = 0.18
    weekend_ratio: float = 0.75
    noise: float = 0.02
    persistence: float = 0.97


def generate(shape: Diurnal, start: datetime, days: int, seed: int) -> TrafficHistory:
    """Minutes of a diurnal trace from `start` on; same arguments, same trace."""
    minutes = np.arange(days * 1440)
    rng = np.random.Generator(np.random.Philox(key=seed))
    hour = minutes / 60 % 24
    # A steep start of the working day is what a cold start cannot follow.
    morning = 1 / (1 + np.exp(-(hour - 8.2) / 0.35))
    evening = 1 / (1 + np.exp((hour - 20.5) / 0.8))
    lunch = 1 - 0.12 * np.exp(-(((hour - 12.6) / 0.7) ** 2))
    day = shape.night_ratio + (1 - shape.night_ratio) * morning * evening * lunch
    weekday = (start.weekday() + minutes // 1440) % 7
    level = np.where(weekday >= 5, shape.weekend_ratio, 1.0)
    shocks = rng.standard_normal(len(minutes)) * shape.noise * math.sqrt(1 - shape.persistence**2)
    wander = np.zeros(len(minutes))
    for minute in range(1, len(minutes)):
        wander[minute] = shape.persistence * wander[minute - 1] + shocks[minute]
    return TrafficHistory("diurnal", start, 60, shape.peak_qps * day * level * np.exp(wander))


def with_surge(
    trace: TrafficHistory, at: datetime, rise_minutes: int, fade_minutes: int, ratio: float
) -> TrafficHistory:
    """The trace with a surge that no past day announces: a rise to `ratio` times, then a fade."""
    first = int((at - trace.start).total_seconds() // trace.step_seconds)
    rise = np.linspace(0, 1, rise_minutes * 60 // trace.step_seconds + 1)[1:]
    fade = np.linspace(1, 0, fade_minutes * 60 // trace.step_seconds)
    shape = np.concatenate([rise, fade])[: len(trace) - first]
    values = trace.values.copy()
    values[first : first + len(shape)] *= 1 + (ratio - 1) * shape
    return TrafficHistory(trace.series, trace.start, trace.step_seconds, values)


def arrivals_by_second(trace: TrafficHistory, seed: int) -> Floats:
    """Poisson counts of arrivals in each second, the rate interpolated between step centres.

    Gaps are bridged, since a replay needs traffic in every second.
    """
    known = np.flatnonzero(np.isfinite(trace.values))
    seconds = np.arange(len(trace) * trace.step_seconds) + 0.5
    centres = (known + 0.5) * trace.step_seconds
    rate = np.interp(seconds, centres, trace.values[known])
    rng = np.random.Generator(np.random.Philox(key=seed))
    return np.asarray(rng.poisson(rate), dtype=np.float64)


def _rows(path: Path, lines: Iterator[list[str]]) -> Iterator[tuple[datetime, float]]:
    header = next(lines, None)
    if header != ["timestamp", "qps"]:
        shown = ",".join(header)[:80] if header else "nothing"
        raise TraceError(f"{path}, line 1: expected the header timestamp,qps, got {shown!r}")
    for number, fields in enumerate(lines, start=2):
        if len(fields) != 2:
            raise TraceError(f"{path}, line {number}: expected two fields, got {len(fields)}")
        yield _time(path, number, fields[0]), _rate(path, number, fields[1])


def _time(path: Path, number: int, text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise TraceError(
            f"{path}, line {number}: expected an ISO-8601 UTC time, got {text[:80]!r}"
        ) from None
    if at.tzinfo is None or at.utcoffset() != timedelta(0):
        raise TraceError(f"{path}, line {number}: expected UTC (a Z or +00:00), got {text!r}")
    return at.astimezone(UTC)


def _rate(path: Path, number: int, text: str) -> float:
    if text.strip() == "":
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise TraceError(
            f"{path}, line {number}: expected a rate >= 0 or an empty field, got {text[:80]!r}"
        )
    return value
