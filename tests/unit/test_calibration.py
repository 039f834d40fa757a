"""Calibration: scales that follow the moment, and quantiles that keep their promise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from forecaster import calibration
from forecaster.calibration import (
    CERTAIN,
    LEVELS,
    MINUTE,
    MIX,
    SCORE,
    SHARE,
    STATE_WIDTH,
    STEADY,
    Rates,
)
from forecaster.demand import Ints
from forecaster.history import Floats

FIRST, LAST = 3, 5
"""A window of two steps, three steps ahead."""
STEP_SECONDS = 60


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """Demand as log rates, and what was said of each row's window; an origin a step."""

    logs: Floats
    located: Floats
    said: Floats

    @property
    def origins(self) -> Ints:
        return np.arange(1, len(self.logs), dtype=np.int64)

    @property
    def clock(self) -> Ints:
        """The minute of the day."""
        return (self.origins - 1) % 1440

    @property
    def hours(self) -> Ints:
        return self.clock // 60

    def peaks(self) -> Floats:
        """Of each origin's window; NaN where it is not known whole."""
        padded = np.concatenate([self.logs, np.full(LAST, np.nan)])
        spans = np.lib.stride_tricks.sliding_window_view(padded, LAST - FIRST)
        return np.asarray(spans[self.origins + FIRST].max(axis=1))


@dataclass(slots=True, eq=False)
class Followed:
    """What was said along a stream: scales and quantile scores by row."""

    state: Floats
    scales: Floats
    scores: Floats


def test_a_window_of_which_nothing_has_come_yet_errs_as_the_worst_of_the_others() -> None:
    errors = np.full((50, 3), [0.05, -0.1, np.nan])
    errors[:40, 0] = np.nan
    state = calibration.initial_state(errors)
    assert np.isfinite(state).all()
    assert state[:, calibration.SLOW].tolist() == pytest.approx([0.05, 0.1, 0.1])


def follow(
    stream: Stream,
    known: int | None = None,
    tracking: float = calibration.TRACKING_RATE,
    state: Floats | None = None,
) -> Followed:
    """Row by row, as ticks come: each row with what was known at its origin."""
    rows = len(stream.origins) if known is None else int((stream.origins <= known).sum())
    logs = stream.logs if known is None else stream.logs[:known]
    if state is None:
        state = calibration.initial_state(np.full((50, 1), 0.05))
    scales, usual, means = (np.zeros((rows, 1)) for _ in range(3))
    scores, fed = np.zeros((rows, len(LEVELS))), np.zeros(1, dtype=np.int64)
    for row in range(rows):
        calibration.advance(
            logs,
            int(stream.origins[row]),
            stream.origins,
            stream.clock,
            np.array([FIRST]),
            np.array([LAST]),
            stream.located[:, None],
            stream.said[:, None],
            state,
            Rates.every(STEP_SECONDS).values,
            tracking,
            fed,
            scales,
            usual,
            means,
            row,
            row + 1,
        )
        scores[row] = state[0, SCORE:STEADY]
    return Followed(state, scales[:, 0], scores)


@cache
def changing(count: int = 30_000, seed: int = 5) -> Stream:
    """Calm nights and days whose error is five times as wide; what is said of it is too small."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    minute = np.arange(count) % 1440
    true_scale = np.where((minute > 480) & (minute < 1200), 0.10, 0.02)
    logs = 8.0 + true_scale * rng.standard_normal(count)
    return Stream(logs, np.full(count - 1, 8.0), 0.5 * true_scale[1:])


def covered(stream: Stream, followed: Followed, level: float, rows: slice) -> float:
    """The share of peaks at or below what was said of a level when they were still to come."""
    place = LEVELS.index(level)
    upper = stream.located + followed.scores[:, place] * followed.scales
    peaks = stream.peaks()
    known = np.isfinite(peaks[rows])
    return float((peaks[rows] <= upper[rows])[known].mean())


@cache
def followed_days() -> Followed:
    return follow(changing())


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.98, 0.99])
def test_coverage_approaches_its_level_while_the_error_changes(level: float) -> None:
    stream, followed = changing(), followed_days()
    assert covered(stream, followed, level, slice(10_000, None)) == pytest.approx(level, abs=0.01)
    # Day and night nearly alike: the scale carries most of the change, not the score.
    day = np.flatnonzero((stream.hours >= 9) & (stream.hours < 20) & (stream.origins > 10_000))
    night = np.flatnonzero((stream.hours < 8) & (stream.origins > 10_000))
    place = LEVELS.index(level)
    upper = stream.located + followed.scores[:, place] * followed.scales
    for part in (day, night):
        kept = stream.peaks()[part] <= upper[part]
        assert float(kept[:-LAST].mean()) == pytest.approx(level, abs=0.07)


def test_scales_follow_the_error() -> None:
    stream, scales = changing(), followed_days().scales
    noon, night = (scales[20_000:][stream.hours[20_000:] == hour].mean() for hour in (12, 3))
    assert noon > 2 * night


def test_nothing_that_came_after_an_origin_changes_what_was_said_there() -> None:
    stream = changing(3_000)
    known = 2_000
    wild = stream.logs.copy()
    wild[known:] = 20.0
    before = follow(stream)
    after = follow(Stream(wild, stream.located, stream.said))
    rows = stream.origins <= known
    assert np.array_equal(before.scales[rows], after.scales[rows])
    assert np.array_equal(before.scores[rows], after.scores[rows])
    assert not np.array_equal(before.scales, after.scales)


def test_a_window_is_learned_from_once_it_has_ended_and_not_before() -> None:
    """A burst in step 1,000: the row that it belongs to first is fed LAST steps later."""
    stream = changing(3_000)
    burst = stream.logs.copy()
    burst[1_000] += 3.0
    plain = follow(stream)
    shaken = follow(Stream(burst, stream.located, stream.said))
    differs = stream.origins[plain.scales != shaken.scales]
    # The first window that holds the step is that of the origin 1000 - LAST + 1, ended at 1001.
    assert differs[0] == 1_001


def test_row_by_row_and_all_at_once_say_the_same() -> None:
    stream = changing(3_000)
    state = calibration.initial_state(np.full((50, 1), 0.05))
    rows = len(stream.origins)
    scales, usual, means = (np.zeros((rows, 1)) for _ in range(3))
    calibration.advance(
        stream.logs,
        len(stream.logs),
        stream.origins,
        stream.clock,
        np.array([FIRST]),
        np.array([LAST]),
        stream.located[:, None],
        stream.said[:, None],
        state,
        Rates.every(STEP_SECONDS).values,
        calibration.TRACKING_RATE,
        np.zeros(1, dtype=np.int64),
        scales,
        usual,
        means,
        0,
        rows,
    )
    assert np.array_equal(scales[:, 0], follow(stream).scales)


def test_windows_that_are_not_known_whole_teach_nothing() -> None:
    stream = changing(3_000)
    holed = stream.logs.copy()
    holed[1_000:1_200] = np.nan
    followed = follow(Stream(holed, stream.located, stream.said))
    # From the first window with a gap on until the first whole one after it nothing moves.
    silent = (stream.origins > 1_001) & (stream.origins < 1_200 + (LAST - FIRST))
    assert len(np.unique(followed.scores[silent], axis=0)) == 1
    assert np.isfinite(followed.state).all()
    assert np.isfinite(followed.scales).all()


def test_a_location_that_was_not_said_teaches_nothing() -> None:
    stream = changing(2_000)
    silent = np.full(len(stream.located), np.nan)
    followed = follow(Stream(stream.logs, silent, stream.said))
    assert len(np.unique(followed.scores, axis=0)) == 1


def test_tracked_quantiles_stay_within_bounds() -> None:
    stream = changing(5_000)
    low = follow(Stream(stream.logs + 50.0, stream.located, stream.said), tracking=0.5)
    assert np.abs(low.scores).max() <= calibration.MAX_SCORE


def shaped(errors: Floats, scales: Floats) -> tuple[float, Floats]:
    """The steady share chosen for one window, and the scales after it."""
    state = np.zeros((1, STATE_WIDTH))
    mixed = scales[:, None].copy()
    calibration.shape(errors[:, None], mixed, np.full((len(errors), 1), 8.0), state)
    return float(state[0, SHARE]), mixed[:, 0]


def test_where_errors_follow_the_moment_the_scale_does() -> None:
    rng = np.random.Generator(np.random.Philox(key=1))
    scales = np.where(np.arange(20_000) % 1440 < 720, 0.01, 0.10)
    share, mixed = shaped(scales * rng.standard_normal(len(scales)), scales)
    assert share == 0.0
    assert np.array_equal(mixed, scales)


def test_where_errors_come_out_of_calm_the_scale_stays_the_same() -> None:
    """Bursts strike whenever they like, mostly while all is calm; the scale widens after them."""
    rng = np.random.Generator(np.random.Philox(key=1))
    errors = 0.01 * rng.standard_normal(20_000)
    errors[rng.integers(0, len(errors), 200)] = 0.7
    after_burst = np.convolve(errors > 0.5, np.ones(10))[: len(errors)] > 0
    scales = np.where(np.roll(after_burst, 1) & (errors < 0.5), 0.3, 0.01)
    share, mixed = shaped(errors, scales)
    assert share == 1.0
    assert mixed == pytest.approx(np.sqrt((scales**2).mean()))


def test_errors_that_are_not_known_have_no_say_in_the_shape() -> None:
    rng = np.random.Generator(np.random.Philox(key=1))
    scales = np.where(np.arange(20_000) % 1440 < 720, 0.01, 0.10)
    errors = scales * rng.standard_normal(len(scales))
    errors[::3] = np.nan
    assert shaped(errors, scales)[0] == 0.0


def test_the_first_scores_are_the_quantiles_of_those_that_were() -> None:
    rng = np.random.Generator(np.random.Philox(key=2))
    scores = rng.standard_normal((40_000, 1))
    scores[::7] = np.nan
    state = np.zeros((1, STATE_WIDTH))
    scales, usual = np.full_like(scores, 0.1), np.full_like(scores, 0.5)
    calibration.steady_scores(0.1 * scores, scales, usual, state)
    expected = np.quantile(scores[np.isfinite(scores)], LEVELS)
    assert state[0, SCORE:STEADY] == pytest.approx(expected, abs=0.1)
    assert state[0, CERTAIN] == state[0, SCORE + LEVELS.index(0.98)]
    few = np.zeros((1, STATE_WIDTH))
    calibration.steady_scores(scores[:40], scales[:40], usual[:40], few)
    assert not few.any()


JOB_MINUTES = (5, 6, 7)
JOB_SIZE = 1.5


def jobs(days: int = 14) -> tuple[Floats, Floats]:
    """Errors of a row a minute: jobs of one hour in four, at three minutes of it. Beside them the
    minute of the hour."""
    rng = np.random.Generator(np.random.Philox(key=3))
    minute = (np.arange(days * 1440) % 60).astype(np.float64)
    errors = 0.03 * rng.standard_normal(len(minute))
    runs = np.repeat(rng.random(days * 24) < 0.25, 60)
    errors[runs & np.isin(minute, JOB_MINUTES)] += JOB_SIZE
    return errors, minute


def mixed(errors: Floats, usual: Floats) -> Floats:
    """The shares chosen for one window whose scale knows nothing of the minute."""
    state, flat = np.zeros((1, STATE_WIDTH)), np.full((len(errors), 1), 0.2)
    levels = np.full((len(errors), 1), 8.0)
    calibration.mix(errors[:, None], flat, usual[:, None], levels, state)
    shares: Floats = state[0, MIX:]
    return shares


def usual_of(errors: Floats, minute: Floats) -> Floats:
    squares = np.array([np.nanmean(errors[minute == each] ** 2) for each in range(60)])
    return np.asarray(np.sqrt(squares)[minute.astype(int)], dtype=np.float64)


def quantiles(state: Floats, located: float, scale: float, clock: int) -> Floats:
    rates = np.empty(len(LEVELS))
    calibration.quantiles_at(state, located, scale, clock, np.inf, 0.0, rates)
    return rates


def test_where_jobs_start_by_the_clock_the_minute_has_a_part_in_the_quantiles() -> None:
    errors, minute = jobs()
    shares = mixed(errors, usual_of(errors, minute))
    assert (shares[[LEVELS.index(level) for level in (0.9, 0.95, 0.98)]] > 0).all()
    holed = errors.copy()
    holed[::7] = np.nan
    assert mixed(holed, usual_of(holed, minute)).tolist() == shares.tolist()


def test_where_the_minute_tells_nothing_it_has_no_part() -> None:
    errors, minute = jobs()
    shuffled = np.random.Generator(np.random.Philox(key=4)).permutation(errors)
    assert not mixed(shuffled, usual_of(shuffled, minute)).any()
    assert not mixed(np.full(100, np.nan), np.full(100, 0.1)).any()


def test_the_usual_error_of_a_minute_is_learned_and_read_at_that_minute() -> None:
    errors, minute = jobs()
    state = calibration.initial_state(np.full((50, 1), 0.05))[0]
    for error, each in zip(errors, minute.astype(int).tolist(), strict=True):
        calibration.feed(state, error, 0.1, 0.1, each, Rates.every(60).values, 0.0)
    usual = np.sqrt(state[MINUTE:MIX])
    assert usual[list(JOB_MINUTES)] == pytest.approx(JOB_SIZE / 2, rel=0.4)
    assert np.delete(usual, JOB_MINUTES).max() < 0.05
    state[MIX:] = 1.0
    highest = {clock: quantiles(state, 0.0, 0.2, clock)[-1] for clock in (6, 666, 30)}
    assert highest[6] == highest[666] > 2 * highest[30]


def test_a_state_stored_before_minutes_had_a_part_says_the_same() -> None:
    state = calibration.initial_state(np.full((50, 2), 0.05))
    older = state[:, : SHARE + 1]
    again = calibration.stored_state(older)
    assert again[:, MIX:].sum() == 0.0
    assert again[:, CERTAIN].tolist() == state[:, SCORE + LEVELS.index(0.98)].tolist()
    for row, before in zip(again, state, strict=True):
        said, was = (quantiles(each, 8.0, 0.1, 77) for each in (row, before))
        assert said.tolist() == was.tolist()


def test_what_is_all_but_certain_is_measured_in_the_plain_scale_whatever_quantiles_are_in() -> None:
    """An edge is told from a smooth day by it: decisions must not depend on how bands are drawn."""
    errors, minute = jobs()
    columns = errors[:, None], np.full((len(errors), 1), 0.2), usual_of(errors, minute)[:, None]
    plain, by_minute = np.zeros((1, STATE_WIDTH)), np.zeros((1, STATE_WIDTH))
    by_minute[0, MIX:] = 1.0
    for state in (plain, by_minute):
        calibration.steady_scores(*columns, state)
    assert by_minute[0, SCORE:STEADY].tolist() != plain[0, SCORE:STEADY].tolist()
    assert by_minute[0, CERTAIN] == plain[0, CERTAIN] == plain[0, SCORE + LEVELS.index(0.98)]
    for state in (plain, by_minute):
        calibration.feed(state[0], 0.3, 0.2, 0.9, 5, Rates.every(60).values, 0.02)
    assert by_minute[0, CERTAIN] == plain[0, CERTAIN]
