"""Formats that people have, as traces: request logs are counted, ranges are taken as they are.

Knows World Cup 98 logs, the Azure LLM inference and BurstGPT CSV files, and the JSON of a
Prometheus range query. Every mistake names file and record.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from forecaster.history import TrafficHistory, on_grid
from simulator.traces.trace_file import TraceError

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

Importer = Callable[[Path, int], TrafficHistory]


def import_wc98(path: Path, step_seconds: int) -> TrafficHistory:
    """A binary log of the 1998 World Cup site (Arlitt and Jin), plain or gzipped: 20-byte
    big-endian records. Raises TraceError."""
    data = _bytes(path)
    if not data or len(data) % WC98_RECORD.itemsize:
        raise TraceError(
            f"{path}: expected whole records of {WC98_RECORD.itemsize} bytes, got {len(data)} bytes"
        )
    seconds = np.frombuffer(data, WC98_RECORD)["timestamp"].astype(np.int64)
    first, last = (round(year.timestamp()) for year in WC98_YEARS)
    wrong = np.flatnonzero((seconds < first) | (seconds >= last))
    if len(wrong):
        raise TraceError(
            f"{path}, record {wrong[0] + 1}: expected a time in 1998, got {seconds[wrong[0]]}; "
            f"this is not a World Cup 98 log"
        )
    return _counted(path, seconds, step_seconds)


def import_azure_llm(path: Path, step_seconds: int) -> TrafficHistory:
    """The Azure LLM inference trace: TIMESTAMP,ContextTokens,GeneratedTokens, a row a request."""
    column = _column(path, "TIMESTAMP", {"ContextTokens", "GeneratedTokens"})
    times = pd.to_datetime(column, utc=True, errors="coerce", format="ISO8601")
    _require_all(path, times.isna().to_numpy(), column, "a time")
    seconds = pd.DatetimeIndex(times).as_unit("s").asi8
    return _counted(path, seconds, step_seconds)


def import_burstgpt(path: Path, step_seconds: int) -> TrafficHistory:
    """BurstGPT: Timestamp (seconds from the start of the trace), a row a request.

    The file names no date, so the trace starts at 1970-01-01.
    """
    column = _column(path, "Timestamp", {"Model", "Request tokens", "Response tokens"})
    seconds = pd.to_numeric(column, errors="coerce")
    bad = ~(seconds >= 0).to_numpy()
    _require_all(path, bad, column, "seconds from the start, 0 or more")
    return _counted(path, np.floor(seconds.to_numpy()).astype(np.int64), step_seconds)


def import_prometheus(path: Path, step_seconds: int) -> TrafficHistory:
    """The JSON of /api/v1/query_range with one series of requests a second, on the given step.

    A sample evaluated at T stands for the step before T. Absent and NaN samples are gaps.
    """
    document = _json(path)
    if not isinstance(document, dict) or document.get("status") != "success":
        raise TraceError(f"{path}: expected the JSON of a successful Prometheus range query")
    series = document.get("data", {}).get("result", [])
    if document.get("data", {}).get("resultType") != "matrix" or len(series) != 1:
        raise TraceError(f"{path}: expected a matrix of one series, got {len(series)}")
    samples = [_sample(path, number, pair) for number, pair in enumerate(series[0]["values"], 1)]
    known = [(at - step_seconds, value) for at, value in samples if value == value]  # noqa: PLR0124
    if not known:
        raise TraceError(f"{path}: holds no sample")
    start = datetime.fromtimestamp(known[0][0], UTC)
    end = datetime.fromtimestamp(known[-1][0], UTC) + timedelta(seconds=step_seconds)
    try:
        return on_grid(path.stem, known, start, end, step_seconds)
    except ValueError as error:
        raise TraceError(f"{path}: {error}; give the step of the query") from error


IMPORTERS: dict[str, Importer] = {
    "wc98": import_wc98,
    "azure-llm": import_azure_llm,
    "burstgpt": import_burstgpt,
    "prometheus": import_prometheus,
}


def _counted(path: Path, seconds: npt.NDArray[np.int64], step_seconds: int) -> TrafficHistory:
    """Requests a second in whole steps from the first to the last request's."""
    slots = seconds // step_seconds
    counts = np.bincount(slots - slots.min())
    start = datetime.fromtimestamp(int(slots.min()) * step_seconds, UTC)
    return TrafficHistory(path.stem, start, step_seconds, counts / step_seconds)


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror or error}") from error


def _column(path: Path, name: str, others: set[str]) -> pd.Series[str]:
    try:
        header = pd.read_csv(path, nrows=0)
        missing = ({name} | others) - set(header.columns)
        if missing:
            raise TraceError(f"{path}, line 1: expected the columns {', '.join(sorted(missing))}")
        return pd.read_csv(path, usecols=[name], dtype=str)[name]
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, UnicodeDecodeError) as error:  # pandas' parser errors are ValueErrors
        raise TraceError(f"{path}: is not a CSV file: {error}") from error


def _require_all(
    path: Path, bad: npt.NDArray[np.bool_], column: pd.Series[str], expected: str
) -> None:
    if not len(column):
        raise TraceError(f"{path}: holds no request")
    if bad.any():
        row = int(bad.argmax())
        raise TraceError(f"{path}, line {row + 2}: expected {expected}, got {column.iloc[row]!r}")


def _json(path: Path) -> Any:
    try:
        return json.loads(_bytes(path))
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{path}: is not JSON: {error}") from error


def _sample(path: Path, number: int, pair: Any) -> tuple[float, float]:
    try:
        at, value = float(pair[0]), float(pair[1])
    except (TypeError, ValueError, IndexError, KeyError):
        raise TraceError(f"{path}, sample {number}: expected [time, value], got {pair!r}") from None
    if value < 0 or value in (float("inf"), float("-inf")):
        raise TraceError(f"{path}, sample {number}: expected a rate >= 0 or NaN, got {pair[1]!r}")
    return at, value
