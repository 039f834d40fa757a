"""The gaps file: which steps of a trace were filled, and are gaps again where that matters.

CSV with the columns trace, start and end (ISO-8601 UTC, end exclusive); others are left alone.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from forecaster.history import TrafficHistory
from simulator.traces.trace_file import TraceError

COLUMNS = ("trace", "start", "end")
Stretch = tuple[datetime, datetime]


def gaps_of(path: Path, series: str) -> list[Stretch]:
    """The filled stretches of one trace; raises TraceError where the file has none of it."""
    found = read_gaps(path)
    if series not in found:
        names = ", ".join(sorted(found)) or "none"
        raise TraceError(f"{path}: expected gaps of the trace {series}, got those of: {names}")
    return found[series]


def read_gaps(path: Path) -> dict[str, list[Stretch]]:
    """The filled stretches by the trace's name; raises TraceError with the line that is wrong."""
    found: dict[str, list[Stretch]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise TraceError(
                    f"{path}, line 1: expected the columns {', '.join(COLUMNS)}, "
                    f"got {','.join(reader.fieldnames or ())[:80] or 'nothing'!r}"
                )
            for row in reader:
                found.setdefault(row["trace"], []).append(_stretch(path, reader.line_num, row))
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{path}: expected CSV text in UTF-8: {error}") from error
    return found


def emptied(trace: TrafficHistory, stretches: list[Stretch]) -> TrafficHistory:
    """The trace with these stretches as gaps; what lies outside it is passed over."""
    values = np.array(trace.values)
    for start, end in stretches:
        first, last = (round((at - trace.start) / trace.step) for at in (start, end))
        values[max(0, first) : max(0, last)] = np.nan
    return replace(trace, values=values)


def _stretch(path: Path, line: int, row: dict[str, str]) -> Stretch:
    start, end = (_time(path, line, row[name]) for name in ("start", "end"))
    if start >= end:
        raise TraceError(f"{path}, line {line}: expected an end after {row['start']}")
    return start, end


def _time(path: Path, line: int, text: str | None) -> datetime:
    try:
        at = datetime.fromisoformat(text or "")
    except ValueError:
        at = datetime.min  # noqa: DTZ901  # without a time zone, so it is refused below
    if at.utcoffset() != timedelta(0):
        raise TraceError(f"{path}, line {line}: expected an ISO-8601 UTC time, got {text!r}")
    return at.astimezone(UTC)
