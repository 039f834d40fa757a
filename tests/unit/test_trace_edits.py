"""Edits and importers of traces."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from forecaster.history import TrafficHistory
from simulator.traces import edit
from simulator.traces.arrivals import on_step, poisson_counts, rates_by_second
from simulator.traces.importers import (
    WC98_RECORD,
    import_azure_llm,
    import_burstgpt,
    import_prometheus,
    import_wc98,
)
from simulator.traces.trace_file import TraceError, read_trace, write_trace
from tests.traffic import MONDAY, weeks

HOUR = timedelta(hours=1)
NOON = MONDAY + timedelta(hours=12)


def two_weeks() -> TrafficHistory:
    return weeks(2)


def test_a_written_trace_reads_back_exactly(tmp_path: Path) -> None:
    values = two_weeks().values.copy()
    values[7:9] = np.nan
    trace = TrafficHistory("back", MONDAY, 60, values)
    write_trace(trace, tmp_path / "back.csv")
    back = read_trace(tmp_path / "back.csv")
    assert (back.start, back.step_seconds) == (trace.start, 60)
    assert np.array_equal(back.values, trace.values, equal_nan=True)


def test_what_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    with pytest.raises(TraceError, match=r"out.csv: expected at least two steps to write, got 1"):
        write_trace(two_weeks().steps(0, 1), out)
    late = TrafficHistory("late", datetime(9899, 12, 31, tzinfo=UTC), 86_400, np.ones(2))
    with pytest.raises(TraceError, match="would go on beyond the year 9900"):
        write_trace(late, out)
    assert not out.exists()


def test_an_outage_falls_and_is_back() -> None:
    ratio = edit.with_outage(two_weeks(), NOON, 30, 0.1).values / two_weeks().values
    assert ratio[720:750] == pytest.approx(0.1)
    assert ratio[719] == ratio[750] == 1


def test_a_launch_stays() -> None:
    ratio = edit.with_launch(two_weeks(), NOON, 1.4, 60).values / two_weeks().values
    assert ratio[:720] == pytest.approx(1)
    assert ratio[790:] == pytest.approx(1.4)


def test_a_holiday_lasts_a_day() -> None:
    day = MONDAY + timedelta(days=3)
    ratio = edit.with_holiday(two_weeks(), day, 0.5).values / two_weeks().values
    assert ratio[3 * 1440 + 720] == pytest.approx(0.5)
    assert ratio[: 3 * 1440].min() == ratio[4 * 1440 :].min() == 1


def test_clocks_going_forward_bring_users_an_hour_earlier() -> None:
    moved = edit.with_clock_change(two_weeks(), NOON, 1)
    assert np.array_equal(moved.values[720:-60], two_weeks().values[780:])
    back = edit.with_clock_change(two_weeks(), NOON, -1)
    assert np.array_equal(back.values[780:], two_weeks().values[720:-60])
    assert len(moved) == len(back) == len(two_weeks())


def test_clocks_going_back_near_the_start_take_the_hours_of_the_week_after() -> None:
    at = MONDAY + HOUR
    back = edit.with_clock_change(two_weeks(), at, -3)
    assert np.array_equal(back.values[180:], two_weeks().values[:-180])
    assert np.array_equal(back.values[:60], two_weeks().values[:60])
    week = 7 * 1440
    assert np.array_equal(back.values[60:180], two_weeks().values[week - 120 : week])


@pytest.mark.parametrize(
    "finer",
    [
        lambda t: edit.with_clock_change(t, NOON, 0.25),
        lambda t: edit.with_clock_change(t, NOON, 0),
        lambda t: edit.with_outage(t, NOON, 5),
        lambda t: edit.with_outage(t, NOON, 0),
        lambda t: edit.with_launch(t, NOON, 2, 90),
        lambda t: edit.with_surge(t, NOON, 10, 60, 2),
    ],
)
def test_an_edit_is_of_whole_steps(
    finer: Callable[[TrafficHistory], TrafficHistory],
) -> None:
    with pytest.raises(
        ValueError, match=r"whole number of steps of 3600 s, at least \d, got \d+ m"
    ):
        finer(two_weeks().resampled(3600))


def test_what_is_not_to_take_time_happens_at_once() -> None:
    launched = edit.with_launch(two_weeks(), NOON, 1.4, 0).values / two_weeks().values
    assert launched[719:721] == pytest.approx([1, 1.4])
    crowded = edit.with_surge(two_weeks(), NOON, 0, 2, 3.0).values / two_weeks().values
    assert crowded[719:722] == pytest.approx([1, 3, 1])
    with pytest.raises(ValueError, match="changes nothing"):
        edit.with_surge(two_weeks(), NOON, 0, 0, 3.0)


def test_stretching_keeps_gaps() -> None:
    gap = np.array([1.0, 2.0, np.nan, np.nan, 5.0, 6.0])
    longer = edit.stretched(TrafficHistory("gap", MONDAY, 60, gap), 2.0)
    assert np.flatnonzero(np.isnan(longer.values)).tolist() == [4, 5, 6, 7]
    nothing = TrafficHistory("nothing", MONDAY, 60, np.full(9, np.nan))
    with pytest.raises(ValueError, match="trace nothing: holds no known step"):
        edit.stretched(nothing, 2.0)


def test_stretching_and_splicing_change_the_length_alone() -> None:
    longer = edit.stretched(two_weeks(), 2.0)
    assert len(longer) == 2 * len(two_weeks())
    assert longer.values.max() == pytest.approx(two_weeks().values.max(), rel=0.01)
    assert len(edit.spliced(two_weeks(), two_weeks())) == 2 * len(two_weeks())


@pytest.mark.parametrize(
    "broken",
    [
        lambda t: edit.stretched(t, 0),
        lambda t: edit.with_outage(t, MONDAY - HOUR, 5),
        lambda t: edit.spliced(t, t.resampled(300)),
        lambda t: edit.scaled_to_peak(edit.scaled(t, 0.0), 5),
        lambda t: edit.cut(t, t.end, None),
    ],
)
def test_impossible_edits_are_refused(broken: object) -> None:
    assert callable(broken)
    with pytest.raises(ValueError, match=r"."):
        broken(two_weeks())


def test_a_finer_step_interpolates_and_keeps_gaps() -> None:
    coarse = TrafficHistory("x", MONDAY, 300, np.array([10.0, 20.0, np.nan, 40.0]))
    fine = on_step(coarse, 60)
    assert fine.values[2] == 10
    assert fine.values[7] == 20
    assert np.isnan(fine.values[10:15]).all()
    assert np.array_equal(on_step(coarse, 300).values, coarse.values, equal_nan=True)


def test_over_dispersed_arrivals_have_the_variance_asked_for() -> None:
    flat = TrafficHistory("x", MONDAY, 60, np.full(600, 400.0))
    counts = poisson_counts(rates_by_second(flat, dispersion=4.0, seed=2), 2)
    assert counts.mean() == pytest.approx(400, rel=0.01)
    assert counts.var() / counts.mean() == pytest.approx(4.0, rel=0.1)


def wc98(tmp_path: Path, seconds: list[int]) -> Path:
    records = np.zeros(len(seconds), WC98_RECORD)
    records["timestamp"] = seconds
    path = tmp_path / "wc_day.gz"
    path.write_bytes(gzip.compress(records.tobytes()))
    return path


def test_world_cup_logs_are_counted(tmp_path: Path) -> None:
    start = round(datetime(1998, 6, 10, tzinfo=UTC).timestamp())
    trace = import_wc98(wc98(tmp_path, [start, start + 1, start + 130]), 60)
    assert trace.start == datetime(1998, 6, 10, tzinfo=UTC)
    assert trace.values.tolist() == [2 / 60, 0, 1 / 60]


def test_azure_rows_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "azure.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
    )
    assert import_azure_llm(path, 60).values.tolist() == [2 / 60]


def test_a_prometheus_range_is_laid_at_the_start_of_its_steps(tmp_path: Path) -> None:
    at = round(MONDAY.timestamp())
    values = [[at + 60, "5"], [at + 120, "NaN"], [at + 180, "7.5"]]
    path = tmp_path / "range.json"
    result = [{"metric": {}, "values": values}]
    path.write_text(
        json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}})
    )
    trace = import_prometheus(path, 60)
    assert trace.start == MONDAY
    assert np.array_equal(trace.values, [5, np.nan, 7.5], equal_nan=True)


@pytest.mark.parametrize(
    ("importer", "content", "expected"),
    [
        (import_wc98, b"\x00" * 21, "expected 20 bytes, got 1"),
        (import_wc98, b"\x00" * 20, "expected a time in 1998"),
        (import_azure_llm, b"a,b\n1,2\n", "expected the columns"),
        (import_azure_llm, b"TIMESTAMP,\rContextTokens\n", "line 1: is not a CSV file"),
        (import_burstgpt, b"\x89PNG\r\x1a\n\x00", "line 1: is not a CSV file"),
        (
            import_azure_llm,
            b"TIMESTAMP,ContextTokens,GeneratedTokens\nsoon,1,2\n",
            "line 2: expected a time, got 'soon'",
        ),
        (
            import_burstgpt,
            b"Timestamp,Model,Request tokens,Response tokens\n-3,x,1,1\n",
            "line 2: expected seconds from the start",
        ),
        (import_prometheus, b"<html>", "is not JSON"),
        (import_prometheus, b'{"status":"error"}', "successful Prometheus range"),
        (
            import_prometheus,
            b'{"status":"success","data":{"resultType":"matrix","result":[{},{}]}}',
            "a matrix of one series, got 2",
        ),
    ],
)
def test_files_of_another_kind_are_told(
    tmp_path: Path, importer: object, content: bytes, expected: str
) -> None:
    path = tmp_path / "source"
    path.write_bytes(content)
    assert callable(importer)
    with pytest.raises(TraceError) as caught:
        importer(path, 60)
    assert expected in str(caught.value)
