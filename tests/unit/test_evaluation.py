"""Rolling-origin evaluation: scores by hand, nothing seen before its time, failures counted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import numpy as np
import pytest

from forecaster.calendar import Calendar
from forecaster.contenders import contender, known_models
from forecaster.demand import Demand, Ints
from forecaster.evaluation import (
    Judged,
    Plain,
    RollingOrigin,
    judge,
    pinball,
    rolling_origin,
    score,
    steepest,
    target_window,
    trailing_quantiles,
)
from forecaster.forecast import ForecastError, Parameters, Window
from forecaster.history import Floats, TrafficHistory
from forecaster.member import Member
from forecaster.models.baselines import LastValue, Trend
from forecaster.models.peers.seasonal_naive import SeasonalNaive
from forecaster.regimes import REGIMES, by_regime, error_by_hour, regimes, worst_misses
from forecaster.registry import MEMBERS
from tests.traffic import weeks

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
STEP = 300
PER_DAY = 288
LEVELS = (0.95, 0.99)
AHEAD = (Window("5m", 1, 2), Window("1h", 12, 14))


def history(values: Floats) -> TrafficHistory:
    return TrafficHistory("made", MONDAY, STEP, values)


def noisy(days: int = 14, seed: int = 1) -> TrafficHistory:
    rng = np.random.Generator(np.random.Philox(key=seed))
    at = np.arange(days * PER_DAY)
    curve = 1000 * (1.2 + np.sin(2 * np.pi * at / PER_DAY))
    return history(curve * np.exp(0.05 * rng.standard_normal(len(at))))


def plan(of: TrafficHistory, **asked: Any) -> RollingOrigin:
    return rolling_origin(of, AHEAD, LEVELS, **asked)


def judged(member: Member, of: TrafficHistory, **asked: Any) -> list[Judged]:
    return judge(Plain(member), plan(of, **asked), lambda: 0.0)


@dataclass(frozen=True)
class Watching(LastValue):
    """Last value that notes what it was shown."""

    fitted: list[Demand] = field(default_factory=list)
    asked: list[tuple[int, int]] = field(default_factory=list)

    def fit(self, demand: Demand, windows: Sequence[Window]) -> Parameters:
        self.fitted.append(demand)
        return super().fit(demand, windows)

    def locate(
        self, parameters: Parameters, demand: Demand, windows: Sequence[Window], origins: Ints
    ) -> Floats:
        self.asked.append((len(demand), int(origins.max())))
        return super().locate(parameters, demand, windows, origins)


class Peeking(LastValue):
    """Looks at the newest step that it is shown, though an earlier origin does not know it."""

    def locate(
        self, parameters: Parameters, demand: Demand, windows: Sequence[Window], origins: Ints
    ) -> Floats:
        return np.full((len(origins), len(windows)), demand.logs[-1])


@dataclass(frozen=True)
class Failing(LastValue):
    """Cannot be fitted on some days, and has nothing to say at some origins."""

    refused: int = 0
    silent: int = 0

    def fit(self, demand: Demand, windows: Sequence[Window]) -> Parameters:
        if len(demand) < self.refused:
            raise ForecastError(f"needs {self.refused} steps")
        return {}

    def locate(
        self, parameters: Parameters, demand: Demand, windows: Sequence[Window], origins: Ints
    ) -> Floats:
        located = super().locate(parameters, demand, windows, origins)
        located[origins % 7 < self.silent] = np.nan
        return located


@pytest.mark.parametrize(
    ("lead", "lasts", "step", "first", "last"),
    [
        (300, 60, 60, 5, 6),
        (300, 300, 60, 5, 10),
        (330, 60, 60, 5, 7),  # [5.5, 6.5] minutes touch two steps
        (0, 60, 60, 0, 1),
        (300, 3600, 3600, 0, 2),
        (3600, 0, 3600, 1, 2),  # at least one step
        (86_400, 300, 300, 288, 289),
        (1.1 * 3600, 60, 60, 66, 67),  # not the 66.00000000000001 that they are computed as
    ],
)
def test_a_target_is_every_step_that_the_commitment_touches(
    lead: float, lasts: float, step: int, first: int, last: int
) -> None:
    assert target_window("w", lead, lasts, step) == Window("w", first, last)


def test_half_the_trace_is_history_but_no_more_than_28_days() -> None:
    assert plan(noisy(14)).cut == 7 * PER_DAY
    assert plan(noisy(80)).cut == 28 * PER_DAY
    assert plan(noisy(14), train_days=3).cut == 3 * PER_DAY


def test_origins_are_bounded_and_leave_out_no_clock_time() -> None:
    every = plan(noisy(14))
    assert every.stride == 1
    assert len(every) == 7 * PER_DAY - 14 + 1
    some = plan(noisy(60), max_points=1000)
    assert math.gcd(some.stride, PER_DAY) == 1
    assert 800 < len(some) < 1250
    assert set(some.origins % 12) == set(range(12))
    few = plan(noisy(60), max_points=10)
    assert few.stride == 11  # a week of errors still makes a quantile
    assert plan(noisy(60).resampled(3600), max_points=10).stride == 1
    assert plan(noisy(60), max_days=5).scored_until == MONDAY + timedelta(days=33)


@pytest.mark.parametrize("asked", [{"train_days": 14}, {"train_days": 0}, {"train_days": 13.99}])
def test_nothing_to_score_is_refused(asked: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"leave nothing to score of a trace of 14\.00 days"):
        plan(noisy(14), **asked)


def test_a_trace_without_traffic_before_the_cut_is_refused() -> None:
    with pytest.raises(ForecastError, match="no traffic"):
        plan(history(np.zeros(14 * PER_DAY)))


def test_a_model_is_fitted_daily_on_what_was_known_and_shown_no_more() -> None:
    watching = Watching()
    of = noisy(60)
    found = judge(Plain(watching), plan(of, train_days=30), lambda: 0.0)
    ends = [round(demand.local[-1] - watching.fitted[0].local[-1]) for demand in watching.fitted]
    assert ends == [86_400 * day for day in range(len(ends))]
    assert len(ends) == found[0].fits == 7 + 30
    assert {len(demand) for demand in watching.fitted} == {23 * PER_DAY, 24 * PER_DAY} | {
        days * PER_DAY for days in range(25, 29)
    }
    assert all(shown == last for shown, last in watching.asked)


def altered(of: TrafficHistory, first: int) -> TrafficHistory:
    values = np.array(of.values)
    values[first:] *= 3.0
    return replace(of, values=values)


def looks_ahead(name_or_member: str | Member) -> bool:
    """Whether a model says something else when only the future changes."""
    of = noisy(16)
    middle = 12 * PER_DAY + 100  # within a day's origins, all of which share one call
    before, after = (
        judge(
            contender(name_or_member, Calendar())
            if isinstance(name_or_member, str)
            else Plain(name_or_member),
            plan(one, train_days=10, max_points=300),
            lambda: 0.0,
        )
        for one in (of, altered(of, middle))
    )
    for one, other in zip(before, after, strict=True):
        known = one.origins <= middle
        assert known.sum() > 50
        same = np.array_equal(one.median_qps[known], other.median_qps[known], equal_nan=True)
        if not same or not np.array_equal(
            one.upper_qps[known], other.upper_qps[known], equal_nan=True
        ):
            return True
    return False


@pytest.mark.parametrize("name", ["combined", *MEMBERS])
def test_no_model_looks_ahead(name: str) -> None:
    assert not looks_ahead(name)


def test_a_model_that_looks_ahead_is_caught() -> None:
    assert looks_ahead(Peeking())


def test_scores_are_those_worked_out_by_hand() -> None:
    targets = np.array([100.0, 200.0, 300.0, np.nan, 400.0])
    latest = np.array([100.0, 190.0, 100.0, 100.0, 390.0])
    median = np.array([110.0, 180.0, 300.0, 100.0, np.nan])
    upper = np.array([[120.0], [190.0], [300.0], [200.0], [500.0]])
    found = score((0.9,), targets, latest, median, upper)
    assert found.points == 3
    assert found.failures == 1
    assert found.wape == pytest.approx((10 + 20 + 0) / 600)
    (level,) = found.levels
    assert level.pinball == pytest.approx((0.1 * 20 + 0.9 * 10 + 0) / 600)
    assert level.coverage == pytest.approx(2 / 3)
    assert level.coverage_steepest == 1.0  # the rise by 200 was covered


def test_without_points_figures_are_unknown_and_not_zero() -> None:
    nothing = np.full(3, np.nan)
    found = score((0.9,), np.ones(3), np.ones(3), nothing, nothing[:, None])
    assert found.failures == 3
    assert math.isnan(found.wape)
    assert math.isnan(found.levels[0].coverage)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_pinball_loss_is_least_at_the_quantile(level: float) -> None:
    targets = np.random.Generator(np.random.Philox(key=2)).lognormal(size=5000)
    grid = np.linspace(0, 12, 2401)
    losses = [pinball(targets, np.full(5000, at), level).mean() for at in grid]
    assert grid[int(np.argmin(losses))] == pytest.approx(np.quantile(targets, level), rel=0.02)


def test_the_steepest_tenth_is_a_tenth_and_rises_most() -> None:
    rng = np.random.Generator(np.random.Philox(key=3))
    latest = rng.uniform(100, 200, 1000)
    targets = latest + rng.normal(0, 10, 1000)
    chosen = steepest(targets, latest)
    assert chosen.sum() == 100
    assert (targets - latest)[chosen].min() >= (targets - latest)[~chosen].max()


def test_quantiles_stand_on_errors_that_had_ended_and_are_recent() -> None:
    rng = np.random.Generator(np.random.Philox(key=4))
    origins = np.arange(0, 3000, 3, dtype=np.int64)
    errors = rng.normal(size=len(origins))
    errors[::11] = np.nan
    reach, memory = 50, 900
    found = trailing_quantiles(errors, origins, reach, memory, (0.9,))
    for row in (0, 20, 99, 500, 999):
        origin = origins[row]
        usable = [
            error
            for error, at in zip(errors, origins, strict=True)
            if math.isfinite(error) and origin - memory < at + reach <= origin
        ]
        if len(usable) < 20:
            assert np.isnan(found[row])
        else:
            rank = min(math.ceil((len(usable) + 1) * 0.9), len(usable))
            assert found[row, 0] == sorted(usable)[rank - 1]


@pytest.mark.parametrize("level", LEVELS)
def test_quantiles_of_errors_keep_their_promise_on_errors_without_a_pattern(level: float) -> None:
    rng = np.random.Generator(np.random.Philox(key=5))
    origins = np.arange(20_000, dtype=np.int64)
    errors = rng.standard_t(4, size=len(origins))
    found = trailing_quantiles(errors, origins, 1, 2000, (level,))[:, 0]
    known = np.isfinite(found)
    assert (errors <= found)[known].mean() == pytest.approx(level, abs=0.004)


def test_a_repeating_day_is_no_error_to_yesterday_and_one_to_the_last_value() -> None:
    at = np.arange(14 * PER_DAY)
    of = history(1000 * (1.2 + np.sin(2 * np.pi * at / PER_DAY)))
    naive = judged(SeasonalNaive(1), of)
    last = judged(LastValue(), of)
    for one, other in zip(naive, last, strict=True):
        assert one.score.wape == pytest.approx(0, abs=1e-9)
        assert one.score.levels[0].coverage == 1.0
        assert other.score.wape > 0.01
    # A sine's mean rise in k steps, over its mean: 1.2 in units of the amplitude.
    ahead = 2 * np.sin(np.pi * 2 / PER_DAY) * 2 / np.pi / 1.2
    assert last[0].score.wape == pytest.approx(ahead, rel=0.01)


def test_a_straight_line_is_no_error_to_the_trend() -> None:
    of = history(np.linspace(1000.0, 1000.0 + 3.0 * (14 * PER_DAY - 1), 14 * PER_DAY))
    for one in judged(Trend(), of):
        assert one.score.wape == pytest.approx(0, abs=1e-9)
    first, second = judged(LastValue(), of)
    # From an origin the newest step is one back; the highest of a window is its last step.
    mean = float(np.mean(first.target_qps))
    assert first.score.wape == pytest.approx(2 * 3 / mean)
    assert second.score.wape == pytest.approx(14 * 3 / float(np.mean(second.target_qps)))


def test_targets_that_touch_a_gap_do_not_count() -> None:
    whole, holed = noisy(14), np.array(noisy(14).values)
    gap = slice(10 * PER_DAY, 10 * PER_DAY + 5)
    holed[gap] = np.nan
    for before, after, touched in zip(
        judged(LastValue(), whole), judged(LastValue(), history(holed)), (5, 6), strict=True
    ):
        assert after.score.points == before.score.points - touched
        assert after.score.failures == 0  # nobody could have been right or wrong there


def test_what_a_model_does_not_say_is_counted_and_told() -> None:
    silent = judged(Failing(silent=2), noisy(14))[0]
    assert silent.score.failures == pytest.approx(silent.score.points * 2 / 5, rel=0.01)
    assert silent.errors == ()
    refusing = judged(Failing(refused=9 * PER_DAY), noisy(14))[0]
    assert refusing.errors == ("needs 2592 steps",)
    assert refusing.score.failures == pytest.approx(2 * PER_DAY, abs=25)  # and until it has errors
    assert refusing.score.points > 4 * PER_DAY


def test_a_day_that_begins_in_a_gap_is_not_lost_to_our_forecaster() -> None:
    """It does not speak where the newest minutes are not known, and does as soon as they are."""
    values = np.array(noisy(14).values)
    for day in range(14):
        values[day * PER_DAY - 6 : day * PER_DAY] = np.nan
    of = history(values)
    ours = judge(contender("combined", Calendar()), plan(of, max_days=3), lambda: 0.0)[0]
    assert 0 < ours.score.failures < 0.05 * ours.score.points


def test_seconds_are_read_from_the_stopwatch() -> None:
    ticks = count()
    one = judge(Plain(LastValue()), plan(noisy(14)), lambda: float(next(ticks)))[0]
    assert one.fit_seconds == 1.0
    assert one.predict_seconds == 1.0


def test_a_gap_before_an_origin_is_bridged_by_the_baselines() -> None:
    values = np.array(noisy(14).values)
    values[8 * PER_DAY : 8 * PER_DAY + 6] = np.nan
    for member in (LastValue(), Trend()):
        found = judged(member, history(values))[0]
        within = (found.origins > 8 * PER_DAY) & (found.origins <= 8 * PER_DAY + 6)
        assert np.isfinite(found.median_qps[within]).all()


def test_regimes_tell_ramps_from_nights() -> None:
    of = weeks(4).resampled(STEP)
    the_plan = plan(of)
    one = judge(Plain(LastValue()), the_plan, lambda: 0.0)[0]
    named = regimes(the_plan, one, Calendar())
    assert set(named) == set(REGIMES)
    rise = one.target_qps - one.latest_qps
    assert rise[named == "ramp up"].mean() > 0 > rise[named == "ramp down"].mean()
    assert one.target_qps[named == "night"].max() <= one.target_qps[named == "plateau"].min()
    weekday = (one.origins + one.window.first) // PER_DAY % 7
    assert set(weekday[named == "day off"]) == {5, 6}
    scores = by_regime(one, named)
    assert sum(each.points for each in scores) == one.score.points
    weighed = sum(each.coverage * each.points for each in scores) / one.score.points
    assert weighed == pytest.approx(one.score.levels[0].coverage)
    by_name = {each.regime: each.coverage for each in scores}
    assert by_name["ramp up"] < by_name["ramp down"]  # of a last value


def test_errors_by_hour_add_up_to_the_whole_error() -> None:
    the_plan = plan(noisy(28))
    one = judge(Plain(LastValue()), the_plan, lambda: 0.0)[0]
    found = error_by_hour(the_plan, one, Calendar())
    assert found.shape == (168,)
    hour = (one.origins + one.window.first) // 12 % 168
    totals = np.bincount(hour, one.target_qps, 168)
    assert (found * totals).sum() / totals.sum() == pytest.approx(one.score.wape)
    berlin = error_by_hour(the_plan, one, Calendar("Europe/Berlin"))
    assert berlin[[10, 20, 30]] == pytest.approx(found[[9, 19, 29]])


def test_worst_misses_are_apart_and_above_the_quantile() -> None:
    the_plan = plan(noisy(28))
    one = judge(Plain(LastValue()), the_plan, lambda: 0.0)[0]
    chosen = worst_misses(the_plan, one, 5)
    short = one.target_qps[chosen] - one.upper_qps[chosen, 0]
    assert len(chosen) == 5
    assert (short > 0).all()
    assert (np.diff(short) <= 0).all()
    assert np.diff(np.sort(one.origins[chosen])).min() >= 72


def test_names_are_told_apart() -> None:
    assert len(set(known_models())) == len(known_models())
    with pytest.raises(KeyError):
        contender("oracle", Calendar())
