"""Traces: the CSV contract, and generated ones."""

from __future__ import annotations

import os
import threading
import tracemalloc
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from simulator.traces.arrivals import poisson_counts, rates_by_second
from simulator.traces.edit import scaled_to_peak, with_surge
from simulator.traces.generate import Diurnal, generate
from simulator.traces.trace_file import TraceError, read_trace
from tests.traffic import MONDAY

GOOD = "timestamp,qps\n2026-03-02T00:00:00Z,10\n2026-03-02T00:01:00Z,\n2026-03-02T00:02:00Z,12.5\n"


def write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "trace.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_trace_is_read_with_its_gaps(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, GOOD))
    assert (trace.start, trace.step_seconds) == (MONDAY, 60)
    assert np.array_equal(trace.values, [10, np.nan, 12.5], equal_nan=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "line 1: expected the header timestamp,qps, got 'nothing'"),
        ("time,rate\n", "line 1: expected the header timestamp,qps, got 'time,rate'"),
        ("timestamp,qps\n", "at least two rows"),
        (GOOD.replace(",10", ",-1"), "line 2: expected a rate >= 0 or an empty field, got '-1'"),
        (GOOD.replace(",10", ",nan"), "line 2: expected a rate"),
        (GOOD.replace(",10", ",1e999"), "line 2: expected a rate"),
        (GOOD.replace(",10", ",10,3"), "line 2: expected two fields, got 3"),
        (GOOD.replace("00:02:00Z", "00:03:00Z"), "line 4: expected the time 60 s after 2026-"),
        (GOOD.replace("00:02:00Z", "00:00:30Z"), "line 4: expected the time 60 s after 2026-"),
        (GOOD.replace("00:01:00Z", "23:00:00Z"), "line 4: expected the time 82800 s after 2026-"),
        (GOOD.replace("00:01:00Z", "00:00:00Z"), "line 3: expected a time whole seconds after"),
        (GOOD.replace("00:01:00Z", "00:01:00"), "line 3: expected UTC"),
        (GOOD.replace("00:01:00Z", "00:01:00+02:00"), "line 3: expected UTC"),
        (GOOD.replace("2026-03-02T00:01:00Z", "yesterday"), "line 3: expected an ISO-8601"),
        (b"\x89PNG\r\n\x1a\n\x00\xff\xfe", "line 1: expected the header timestamp,qps, got"),
        (GOOD.encode() + b"\xff\x00,1\n", "line 5: expected an ISO-8601 UTC time, got"),
        (GOOD.encode() + bytes(1 << 20), "line 5: expected two fields, got 1"),
    ],
)
def test_a_broken_trace_is_told_where(tmp_path: Path, text: str | bytes, expected: str) -> None:
    with pytest.raises(TraceError) as caught:
        read_trace(write(tmp_path, text))
    assert expected in str(caught.value)
    assert "trace.csv" in str(caught.value)


def test_a_huge_trace_that_is_wrong_at_its_end_takes_little_memory(tmp_path: Path) -> None:
    """What two thousand megabytes meet, on ten: eight bytes a step, and a word now and then."""
    times = np.datetime_as_string(np.datetime64("2026-03-02T00:00:00") + np.arange(300_000))
    rows = "".join(f"{time}Z,1{'0' * 8}.5\n" for time in times)
    path, told = write(tmp_path, f"timestamp,qps\n{rows}{times[-1]}Z,1\n"), list[float]()
    tracemalloc.start()
    with pytest.raises(TraceError, match="line 300002: expected the time 1 s after"):
        read_trace(path, told.append)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3_500_000 < path.stat().st_size / 2
    assert told == [pytest.approx((1 << 18) / 300_000, rel=0.01)]


def test_a_trace_comes_through_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "days.csv"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(GOOD,))
    writer.start()
    assert len(read_trace(pipe)) == 3
    writer.join()


def test_a_missing_trace_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"no.csv: cannot be read"):
        read_trace(tmp_path / "no.csv")


def test_scaling_puts_the_highest_step_at_the_peak(tmp_path: Path) -> None:
    scaled = scaled_to_peak(read_trace(write(tmp_path, GOOD)), 200_000)
    assert np.nanmax(scaled.values) == 200_000


def test_the_same_seed_gives_the_same_trace_and_another_another() -> None:
    shape = Diurnal()
    first, again = generate(shape, MONDAY, 2, 1), generate(shape, MONDAY, 2, 1)
    assert np.array_equal(first.values, again.values)
    assert not np.array_equal(first.values, generate(shape, MONDAY, 2, 2).values)


def test_a_generated_week_has_its_peaks_and_its_quiet_weekend() -> None:
    trace = generate(Diurnal(), MONDAY, 7, 1)
    days = trace.values.reshape(7, 1440)
    assert 180_000 < days[:5].max() < 230_000
    assert days[5:].max() < 0.9 * days[:5].max()
    assert days.min() < 0.25 * days.max()


def test_days_that_begin_in_the_morning_are_by_the_clock() -> None:
    shape = Diurnal(noise=0.0)
    late = generate(shape, MONDAY + timedelta(hours=9), 7, 1)
    whole = generate(shape, MONDAY, 8, 1).between(late.start, late.end)
    assert np.array_equal(late.values, whole.values)


def test_a_surge_rises_and_fades_and_leaves_the_rest() -> None:
    flat = generate(Diurnal(noise=0.0), MONDAY, 1, 1)
    at = MONDAY + timedelta(hours=12)
    surged = with_surge(flat, at, rise_minutes=10, fade_minutes=20, ratio=1.5)
    ratio = surged.values / flat.values
    assert ratio.max() == pytest.approx(1.5)
    assert int(ratio.argmax()) == 12 * 60 + 9
    assert (ratio[: 12 * 60] == 1).all()
    assert (ratio[12 * 60 + 31 :] == 1).all()


def test_arrivals_are_poisson_counts_of_the_rate() -> None:
    trace = generate(Diurnal(noise=0.0), MONDAY, 1, 1)
    arrivals = poisson_counts(rates_by_second(trace), seed=3)
    noon = slice(11 * 3600, 12 * 3600)
    rate = trace.values[11 * 60 : 12 * 60].mean()
    assert arrivals[noon].mean() == pytest.approx(rate, rel=0.002)
    residual = arrivals[noon] - np.convolve(arrivals[noon], np.ones(31) / 31, mode="same")
    spread = residual[40:-40].var() / rate
    assert 0.85 < spread < 1.1
    assert np.array_equal(arrivals, poisson_counts(rates_by_second(trace), seed=3))
