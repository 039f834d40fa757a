"""TrafficHistory: grids, gaps, joins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from forecaster.history import SPARE_STEPS, GrowingHistory, TrafficHistory, on_grid

START = datetime(2026, 3, 16, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def history(*values: float, start: datetime = START, step: int = 60) -> TrafficHistory:
    return TrafficHistory("x", start, step, np.array(values, dtype=np.float64))


def test_a_gap_is_not_zero() -> None:
    built = on_grid("x", [(START.timestamp() + 60, 5.0)], START, START + 3 * MINUTE, 60)
    assert np.array_equal(built.values, [np.nan, 5.0, np.nan], equal_nan=True)
    assert built.last_known_end == START + 2 * MINUTE


def test_duplicates_and_order_of_samples_change_nothing() -> None:
    samples = [(START.timestamp() + 60 * minute, float(minute)) for minute in range(5)]
    straight = on_grid("x", samples, START, START + 5 * MINUTE, 60)
    shuffled = on_grid("x", [*samples[::-1], *samples], START, START + 5 * MINUTE, 60)
    assert np.array_equal(straight.values, shuffled.values)


def test_samples_outside_are_left_out_and_off_the_grid_refused() -> None:
    assert len(on_grid("x", [(START.timestamp() - 60, 1.0)], START, START + MINUTE, 60)) == 1
    with pytest.raises(ValueError, match="off the grid"):
        on_grid("x", [(START.timestamp() + 7, 1.0)], START, START + MINUTE, 60)


@pytest.mark.parametrize("bad", [-1.0, np.inf])
def test_impossible_values_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        history(1.0, bad)


def test_a_start_that_is_not_utc_is_refused() -> None:
    with pytest.raises(ValueError, match="UTC"):
        history(1.0, start=START.astimezone(timezone(timedelta(hours=2))))


def test_values_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        history(1.0).values[0] = 2.0


def test_split_and_joined_is_the_whole() -> None:
    whole = history(1, 2, np.nan, 4, 5)
    for cut in range(1, 5):
        left = whole.between(whole.start, whole.start + cut * MINUTE)
        right = whole.between(whole.start + cut * MINUTE, whole.end)
        assert np.array_equal(left.extended(right, 10).values, whole.values, equal_nan=True)


def test_the_newer_reading_wins_unless_it_is_a_gap() -> None:
    joined = history(1, 2, 3).extended(history(np.nan, 30, 40, start=START + MINUTE), 10)
    assert joined.values.tolist() == [1, 2, 30, 40]


def test_joining_keeps_the_newest_steps_and_marks_holes() -> None:
    joined = history(1, 2).extended(history(5, start=START + 4 * MINUTE), 4)
    assert joined.start == START + MINUTE
    assert np.array_equal(joined.values, [2, np.nan, np.nan, 5], equal_nan=True)


def test_grids_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot join"):
        history(1).extended(history(1, step=30), 5)
    with pytest.raises(ValueError, match="shifted"):
        history(1).extended(history(1, start=START + timedelta(seconds=30)), 5)


def test_resampling_means_known_values_on_aligned_steps() -> None:
    fine = history(9, 1, 2, np.nan, 4, 5, np.nan, np.nan, np.nan, 1, start=START - MINUTE)
    coarse = fine.resampled(180)
    assert coarse.start == START
    assert np.array_equal(coarse.values, [1.5, 4.5, np.nan], equal_nan=True)


def test_between_takes_whole_steps_only() -> None:
    cut = history(1, 2, 3).between(START + timedelta(seconds=1), START + timedelta(seconds=179))
    assert cut.values.tolist() == [2]


@pytest.mark.parametrize("seconds", [0, 59, 60, 120, 179, 180, 240, 301])
def test_until_ends_at_the_last_whole_step(seconds: int) -> None:
    whole = history(1, 2, np.nan).until(START + timedelta(seconds=seconds))
    expected = [1, 2, np.nan, np.nan, np.nan][: seconds // 60]
    assert np.array_equal(whole.values, expected, equal_nan=True)
    with pytest.raises(ValueError, match="read-only"):
        whole.values[:] = 0.0


def test_the_newest_known_step_is_found_before_gaps() -> None:
    assert history(1, 2).last_known_end == START + 2 * MINUTE
    assert history(1, 2, np.nan, np.nan).last_known_end == START + 2 * MINUTE
    assert history(np.nan).last_known_end is None
    assert history().last_known_end is None


@pytest.mark.parametrize("keep", [1, 7, 100, 3 * SPARE_STEPS])
def test_growing_is_joining_and_changes_nothing_handed_out(keep: int) -> None:
    """Pieces of all lengths, some overlapping, some after a hole; long enough to be moved."""
    rng = np.random.default_rng(3)
    growing, joined = GrowingHistory(keep), history(start=START)
    handed_out: list[tuple[TrafficHistory, list[float]]] = []
    for number in range(300):
        shift = int(rng.integers(-3, 3)) if number % 10 == 0 else 0
        start = max(START, joined.end + shift * MINUTE)
        values = np.where(rng.random(size := int(rng.integers(1, 60))) < 0.1, np.nan, number)
        newer = history(*values[:size], start=start)
        joined = newer if number == 0 else joined.extended(newer, keep)
        joined = joined.last(keep)
        grown = growing.extend(newer)
        assert (grown.start, grown.end) == (joined.start, joined.end)
        assert np.array_equal(grown.values, joined.values, equal_nan=True)
        handed_out.append((grown, grown.values.tolist()))
    for old, values_then in handed_out:
        assert np.array_equal(old.values, values_then, equal_nan=True)
    with pytest.raises(ValueError, match="read-only"):
        grown.values[0] = 1.0


def test_growing_by_another_step_is_refused() -> None:
    growing = GrowingHistory(10)
    growing.extend(history(1, 2))
    with pytest.raises(ValueError, match="cannot join"):
        growing.extend(history(3, start=START + 2 * MINUTE, step=30))
