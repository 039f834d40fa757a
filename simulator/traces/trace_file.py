"""The trace file: CSV with the header `timestamp,qps`, ISO-8601 UTC, a fixed step, gaps empty.

Says in which line a file breaks the contract, and reads no more of it than it needs for that.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np

from forecaster.history import TrafficHistory
from simulator.traces.whole_file import whole_file

LATEST = datetime(9900, 1, 1, tzinfo=UTC)
"""Room for what is looked up of times after a trace's end."""
MAX_STEPS = 20_000_000
"""Two thirds of a year in seconds; more is a mistake, and would not fit in memory."""
FEWEST_STEPS = 2
"""One row does not say how long its step is."""
MAX_LINE = 200
TOLD_EVERY = 1 << 18
"""Rows between two words on how far the reading is; about a quarter of a second."""
OnProgress = Callable[[float], None]


class TraceError(Exception):
    """A trace that breaks the contract; the message names file, line, what it got and wants."""


def read_trace(path: Path, on_progress: OnProgress = lambda _: None) -> TrafficHistory:
    """A trace CSV as history; `on_progress` is told the share read so far. Raises TraceError."""
    try:
        # Bytes that are no text become text that is no field, so that their line is told too.
        with path.open(encoding="utf-8", errors="backslashreplace") as file:
            return _parse(path, file, on_progress)
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror}") from error


def write_trace(trace: TrafficHistory, path: Path) -> None:
    """Whole or not at all; raises TraceError where the file cannot be written, or not be read."""
    if len(trace) < FEWEST_STEPS:
        raise TraceError(f"{path}: expected at least two steps to write, got {len(trace)}")
    if trace.end > LATEST:
        raise TraceError(f"{path}: the trace would go on beyond the year {LATEST:%Y}")
    try:
        with whole_file(path) as file:
            file.write("timestamp,qps\n")
            at = trace.start
            for value in map(float, trace.values):  # a list of them all would be large
                rate = "" if math.isnan(value) else repr(value)
                file.write(f"{at:%Y-%m-%dT%H:%M:%SZ},{rate}\n")
                at += trace.step
    except OSError as error:
        raise TraceError(f"{path}: cannot be written: {error.strerror}") from error


def _parse(path: Path, file: TextIO, on_progress: OnProgress) -> TrafficHistory:
    rows, size = _rows(path, file), path.stat().st_size
    head = list(islice(rows, FEWEST_STEPS))
    if len(head) < FEWEST_STEPS:
        raise TraceError(f"{path}: expected at least two rows below the header, got {len(head)}")
    (start, first), (last, second) = head
    step = _step(path, start, last)
    values = array("d", (first, second))
    for number, (at, value) in enumerate(rows, 4):
        if at - last != step:
            raise TraceError(
                f"{path}, line {number}: expected the time {step.total_seconds():g} s after "
                f"{last.isoformat()}, as all steps are equally long, got {at.isoformat()}"
            )
        if len(values) == MAX_STEPS:
            raise TraceError(f"{path}, line {number}: expected at most {MAX_STEPS:,} steps")
        values.append(value)
        last = at
        if number % TOLD_EVERY == 0 and size:  # a pipe has none
            on_progress(file.buffer.tell() / size)
    if last > LATEST - step:
        raise TraceError(f"{path}: the trace goes on beyond {LATEST:%Y}")
    return TrafficHistory(path.stem, start, int(step.total_seconds()), np.array(values))


def _step(path: Path, start: datetime, second: datetime) -> timedelta:
    step = second - start
    if step < timedelta(seconds=1) or step.total_seconds() % 1:
        raise TraceError(
            f"{path}, line 3: expected a time whole seconds after {start.isoformat()}, got "
            f"{second.isoformat()}"
        )
    return step


def _rows(path: Path, file: TextIO) -> Iterator[tuple[datetime, float]]:
    header = file.readline(MAX_LINE).strip()
    if header != "timestamp,qps":
        raise TraceError(
            f"{path}, line 1: expected the header timestamp,qps, got {header[:80] or 'nothing'!r}"
        )
    number = 1
    while line := file.readline(MAX_LINE):
        number += 1
        fields = line.strip().split(",")
        if len(fields) != 2:
            raise TraceError(
                f"{path}, line {number}: expected two fields, got {len(fields)}: {line[:80]!r}"
            )
        yield _time(path, number, fields[0]), _rate(path, number, fields[1])


def _time(path: Path, number: int, text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise TraceError(
            f"{path}, line {number}: expected an ISO-8601 UTC time, got {text[:80]!r}"
        ) from None
    if at.tzinfo is not UTC:  # what a Z and +00:00 are read as
        raise TraceError(f"{path}, line {number}: expected UTC (a Z or +00:00), got {text!r}")
    return at


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
