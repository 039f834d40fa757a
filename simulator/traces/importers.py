"""Formats that people have, as traces: request logs are counted, ranges are taken as they are.

Knows World Cup 98 logs, the Azure LLM inference and BurstGPT CSV files, and the JSON of a
Prometheus range query, each plain or gzipped. A log may be larger than memory: it is counted block
by block. Every mistake names file and record.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from forecaster.history import TrafficHistory, on_grid
from simulator.traces.log_file import BLOCK, OnProgress, blocks, columns, ignored
from simulator.traces.trace_file import MAX_STEPS, TraceError

WC98_RECORD = np.dtype(
    [
        ("timestamp", ">u4"),
        ("client", ">u4"),
        ("object", ">u4"),
        ("size", ">u4"),
        ("method", "u1"),
        ("status", "u1"),
        ("type", "u1"),
        ("server", "u1"),
    ]
)
WC98_YEARS = (datetime(1998, 1, 1, tzinfo=UTC), datetime(1999, 1, 1, tzinfo=UTC))

LATEST = 1e10
"""Seconds since 1970, or since the start of a trace: three centuries are a mistake."""
MAX_JSON = 32 << 20
"""Bytes; a million samples, which take some ten times as much memory. Prometheus itself answers
with 11,000 at most."""

Seconds = npt.NDArray[np.int64]


def import_wc98(
    path: Path, step_seconds: int, on_progress: OnProgress = ignored, block_bytes: int = BLOCK
) -> TrafficHistory:
    """A binary log of the 1998 World Cup site (Arlitt and Jin): 20-byte big-endian records.

    Raises TraceError.
    """
    size = WC98_RECORD.itemsize
    first, last = (round(year.timestamp()) for year in WC98_YEARS)
    tally, done = _Tally(path, step_seconds), 0
    for block in blocks(path, max(1, block_bytes // size) * size, on_progress):
        if len(block) % size:
            raise TraceError(
                f"{path}, record {done + len(block) // size + 1}: expected {size} bytes, got "
                f"{len(block) % size}: the file is cut off, or no World Cup 98 log"
            )
        seconds = np.frombuffer(block, WC98_RECORD)["timestamp"].astype(np.int64)
        wrong = np.flatnonzero((seconds < first) | (seconds >= last))
        if len(wrong):
            raise TraceError(
                f"{path}, record {done + wrong[0] + 1}: expected a time in 1998, got "
                f"{seconds[wrong[0]]}; this is not a World Cup 98 log"
            )
        start = done + 1
        tally.add(seconds, lambda row, start=start: f"record {start + row}")  # type: ignore[misc]
        done += len(seconds)
    return tally.history()


def import_azure_llm(
    path: Path, step_seconds: int, on_progress: OnProgress = ignored, block_bytes: int = BLOCK
) -> TrafficHistory:
    """The Azure LLM inference trace: TIMESTAMP,ContextTokens,GeneratedTokens, a row a request.

    Raises TraceError.
    """
    tally = _Tally(path, step_seconds)
    others = {"ContextTokens", "GeneratedTokens"}
    for column in columns(path, "TIMESTAMP", others, on_progress, block_bytes):
        times = pd.to_datetime(column.texts, utc=True, errors="coerce", format="ISO8601")
        column.require(~times.isna().to_numpy(), "a time")
        tally.add(pd.DatetimeIndex(times).as_unit("s").asi8, column.place)
    return tally.history()


def import_burstgpt(
    path: Path, step_seconds: int, on_progress: OnProgress = ignored, block_bytes: int = BLOCK
) -> TrafficHistory:
    """BurstGPT: Timestamp (seconds from the start of the trace), a row a request.

    The file names no date, so the trace starts at 1970-01-01. Raises TraceError.
    """
    tally = _Tally(path, step_seconds)
    others = {"Model", "Request tokens", "Response tokens"}
    for column in columns(path, "Timestamp", others, on_progress, block_bytes):
        seconds = pd.to_numeric(column.texts, errors="coerce").to_numpy(dtype=np.float64)
        sound = (seconds >= 0) & (seconds < LATEST)
        column.require(sound, "seconds from the start, 0 or more")
        tally.add(np.floor(seconds).astype(np.int64), column.place)
    return tally.history()


def import_prometheus(
    path: Path, step_seconds: int, on_progress: OnProgress = ignored, max_bytes: int = MAX_JSON
) -> TrafficHistory:
    """The JSON of /api/v1/query_range with one series of requests a second, on the given step.

    A sample evaluated at T stands for the step before T. Absent and NaN samples are gaps. Raises
    TraceError, also where the file is too large to be read at once.
    """
    document = _json(path, on_progress, max_bytes)
    samples = [
        _sample(path, number, pair) for number, pair in enumerate(_one_series(path, document), 1)
    ]
    known = [(at - step_seconds, value) for at, value in samples if value == value]  # noqa: PLR0124
    if not known:
        raise TraceError(f"{path}: holds no sample")
    times = [at for at, _ in known]
    first, last = min(times), max(times)
    if last - first >= MAX_STEPS * step_seconds:
        raise TraceError(f"{path}: expected at most {MAX_STEPS:,} steps of {step_seconds} s")
    start, end = (datetime.fromtimestamp(round(at), UTC) for at in (first, last))
    try:
        return on_grid(path.stem, known, start, end + timedelta(seconds=step_seconds), step_seconds)
    except ValueError as error:
        raise TraceError(f"{path}: {error}; give the step of the query") from error


Importer = Callable[[Path, int, OnProgress], TrafficHistory]
IMPORTERS: dict[str, Importer] = {
    "wc98": import_wc98,
    "azure-llm": import_azure_llm,
    "burstgpt": import_burstgpt,
    "prometheus": import_prometheus,
}


class _Tally:
    """Requests in each step, as blocks of a log come in."""

    def __init__(self, path: Path, step_seconds: int) -> None:
        self._path = path
        self._step = step_seconds
        self._first = 0
        self._length = 0
        self._counts = np.zeros(0)

    def add(self, seconds: Seconds, place: Callable[[int], str]) -> None:
        """Times in seconds since 1970, in any order; `place` names the record of a row."""
        if not len(seconds):
            return
        slots = seconds // self._step
        low, high = int(slots.min()), int(slots.max())
        if not self._length:
            self._first = int(slots[0])
        first = min(low, self._first)
        length = max(high + 1, self._first + self._length) - first
        if length > MAX_STEPS:
            away = int(np.abs(slots - self._first).argmax())
            raise TraceError(
                f"{self._path}, {place(away)}: expected all within {MAX_STEPS:,} steps of "
                f"{self._step} s, got {datetime.fromtimestamp(int(seconds[away]), UTC)}"
            )
        self._grow(first, length)
        found = np.bincount(slots - low)
        self._counts[low - first : low - first + len(found)] += found

    def _grow(self, first: int, length: int) -> None:
        """Room for so many steps from the first on; twice what is needed, since most logs grow."""
        before = self._first - first
        if before or length > len(self._counts):
            grown = np.zeros(min(2 * length, MAX_STEPS))
            grown[before : before + self._length] = self._counts[: self._length]
            self._counts = grown
        self._first, self._length = first, length

    def history(self) -> TrafficHistory:
        """Requests a second in whole steps from the first to the last request's."""
        if not self._length:
            raise TraceError(f"{self._path}: holds no request")
        start = datetime.fromtimestamp(self._first * self._step, UTC)
        rates = self._counts[: self._length] / self._step
        return TrafficHistory(self._path.stem, start, self._step, rates)


def _json(path: Path, on_progress: OnProgress, max_bytes: int) -> Any:
    data = next(blocks(path, max_bytes + 1, on_progress), b"")
    if len(data) > max_bytes:
        raise TraceError(
            f"{path}: expected at most {max_bytes >> 20} MiB of JSON; ask for a shorter range or a "
            f"longer step, and join the traces with daybreak trace edit --append"
        )
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{path}: is not JSON: {error}") from error


def _one_series(path: Path, document: Any) -> list[Any]:
    """The samples of an answer; raises TraceError where it is another kind of answer."""
    if not isinstance(document, dict) or document.get("status") != "success":
        raise TraceError(f"{path}: expected the JSON of a successful Prometheus range query")
    found = document.get("data")
    data = found if isinstance(found, dict) else {}
    series = data.get("result")
    if not isinstance(series, list) or data.get("resultType") != "matrix" or len(series) != 1:
        got = len(series) if isinstance(series, list) else "none"
        raise TraceError(f"{path}: expected a matrix of one series, got {got}")
    values = series[0].get("values") if isinstance(series[0], dict) else None
    if not isinstance(values, list):
        raise TraceError(f"{path}: expected a series with values")
    return values


def _sample(path: Path, number: int, pair: Any) -> tuple[float, float]:
    try:
        at, value = float(pair[0]), float(pair[1])
    except (TypeError, ValueError, IndexError, KeyError, OverflowError):
        raise TraceError(
            f"{path}, sample {number}: expected [time, value], got {str(pair)[:80]!r}"
        ) from None
    if not 0 <= at < LATEST:
        raise TraceError(f"{path}, sample {number}: expected a time since 1970, got {at:g}")
    if value < 0 or math.isinf(value):
        raise TraceError(f"{path}, sample {number}: expected a rate >= 0 or NaN, got {pair[1]!r}")
    return at, value
