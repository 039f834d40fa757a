"""What peers forecast with: each by its source's numbers, all by the contract of a member."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from statsmodels.tsa.holtwinters import ExponentialSmoothing

from forecaster.calendar import Calendar
from forecaster.demand import Demand, Ints, demand_of
from forecaster.forecast import FittedModel, ForecastError, Window
from forecaster.history import Floats, TrafficHistory
from forecaster.member import Member
from forecaster.models.peers import crane_dsp, dynamo, holt_winters
from forecaster.models.peers.blocks import blocks_of, rates_of
from forecaster.models.peers.crane_dsp import CraneDsp, Fourier, Highest
from forecaster.models.peers.dynamo import Constant, Kalman
from forecaster.models.peers.holt_winters import HoltWinters
from forecaster.models.peers.hour_of_week import HourOfWeek
from forecaster.models.peers.seasonal_naive import SeasonalNaive
from forecaster.registry import MEMBERS as MEMBERS_BY_NAME
from policies.registry import POLICIES
from storage import codec
from tests.traffic import MONDAY, weeks

WINDOWS = (Window("order", 3, 5), Window("hold", 0, 4))
MEMBERS: list[Member] = [
    Constant(),
    CraneDsp(),
    HoltWinters(),
    HourOfWeek(),
    HourOfWeek(300),
    Kalman(),
    SeasonalNaive(1),
    SeasonalNaive(7),
]


def demand(values: Floats, step_seconds: int = 60, start: datetime = MONDAY) -> Demand:
    return demand_of(TrafficHistory("x", start, step_seconds, values), Calendar("UTC"))


def located(member: Member, seen: Demand, origins: Ints) -> Floats:
    """Rates, a row an origin."""
    parameters = member.fit(seen, WINDOWS)
    return np.exp(member.locate(parameters, seen, WINDOWS, origins)) - seen.offset


def at_end(seen: Demand) -> Ints:
    return np.array([len(seen)], dtype=np.int64)


@pytest.fixture(scope="module")
def month() -> Demand:
    return demand(weeks(4).values)


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.name)
class TestEveryMember:
    """A member in the list above cannot be left out of these."""

    def test_its_name_is_its_own(self, member: Member) -> None:
        assert [other.name for other in MEMBERS].count(member.name) == 1

    def test_it_speaks_of_every_window(self, member: Member, month: Demand) -> None:
        origins = np.array([30_000, 35_000, len(month)], dtype=np.int64)
        found = located(member, month, origins)
        assert found.shape == (3, 2)
        actual = rates_of(month)[[29_999, 34_999, -1]]
        assert (np.abs(np.log(found / actual[:, None])) < 0.7).all()

    def test_it_does_not_look_ahead(self, member: Member, month: Demand) -> None:
        parameters = member.fit(month.before(30_000), WINDOWS)
        origins = np.arange(30_000, 31_000, 97, dtype=np.int64)
        logs = month.logs.copy()
        logs[origins[-1] :] += 3.0
        changed = replace(month, logs=logs)
        said = member.locate(parameters, month, WINDOWS, origins)
        np.testing.assert_array_equal(member.locate(parameters, changed, WINDOWS, origins), said)
        cut = month.before(int(origins[-1]))
        alone = member.locate(parameters, cut, WINDOWS, origins[-1:])
        np.testing.assert_allclose(alone, said[-1:], rtol=1e-12)

    def test_it_may_be_asked_of_a_demand_that_starts_later(
        self, member: Member, month: Demand
    ) -> None:
        parameters = member.fit(month, WINDOWS)
        cut = 10 * 1440 + 77
        later = Demand(month.logs[cut:], month.local[cut:], month.day_type[cut:], 60, month.offset)
        whole = member.locate(parameters, month, WINDOWS, at_end(month))
        part = member.locate(parameters, later, WINDOWS, at_end(later))
        np.testing.assert_allclose(part, whole, rtol=1e-12)

    def test_demand_times_k_gives_forecast_times_k(self, member: Member, month: Demand) -> None:
        large = demand(weeks(4).values * 1000)
        small, scaled = (located(member, seen, at_end(seen)) for seen in (month, large))
        np.testing.assert_allclose(scaled, 1000 * small, rtol=1e-6)

    def test_a_gap_is_no_drop_in_demand(self, member: Member) -> None:
        values = weeks(4).values.copy()
        whole = located(member, demand(values), np.array([len(values)]))
        values[-3000:-2950] = np.nan
        holed = located(member, demand(values), np.array([len(values)]))
        np.testing.assert_allclose(holed, whole, rtol=0.05)

    def test_too_little_history_is_said(self, member: Member) -> None:
        short = demand(weeks().values[:2])
        with pytest.raises(ForecastError, match=f"{member.name}: needs"):
            member.fit(short, WINDOWS)

    def test_its_parameters_are_stored_exactly(self, member: Member, month: Demand) -> None:
        parameters = member.fit(month, WINDOWS)
        fitted = FittedModel(member.name, MONDAY, MONDAY, 60, WINDOWS, parameters)
        stored = codec.decode_model(codec.encode_model(fitted))
        again = member.locate(stored.parameters, month, WINDOWS, at_end(month))
        first = member.locate(parameters, month, WINDOWS, at_end(month))
        np.testing.assert_array_equal(again, first)

    def test_no_origin_is_no_answer(self, member: Member, month: Demand) -> None:
        parameters = member.fit(month, WINDOWS)
        none = np.empty(0, dtype=np.int64)
        assert member.locate(parameters, month, WINDOWS, none).shape == (0, 2)


def test_policies_read_forecasters_that_there_are() -> None:
    named = {policy.forecaster for policy in POLICIES.values() if policy.forecasts}
    assert named - {"combined", "perfect"} <= set(MEMBERS_BY_NAME)
    assert {member.name for member in MEMBERS} <= set(MEMBERS_BY_NAME)


def test_blocks_begin_on_the_clock() -> None:
    """Minutes from 00:01 on: blocks of three begin at 00:03."""
    values = np.arange(10.0)
    values[5] = values[6] = np.nan
    blocks = blocks_of(demand(values, start=MONDAY + timedelta(minutes=1)), 180)
    assert (blocks.first, blocks.size) == (2, 3)
    assert blocks.means[0] == pytest.approx(3.0)
    assert np.isnan(blocks.means[1])
    assert blocks.complete(np.array([0, 4, 5, 10])).tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize(("days", "back"), [(1, 1440), (7, 10_080)])
def test_seasonal_naive_is_the_same_window_a_season_ago(
    days: int, back: int, month: Demand
) -> None:
    rates, end = rates_of(month), len(month)
    order, hold = located(SeasonalNaive(days), month, at_end(month))[0]
    assert order == pytest.approx(rates[end - back + 3 : end - back + 5].max())
    assert hold == pytest.approx(rates[end - back : end - back + 4].max())


def test_a_window_that_reaches_beyond_a_season_has_no_naive_answer(month: Demand) -> None:
    for last, known in ((1440, True), (1441, False)):
        windows = (Window("order", 1430, last),)
        found = SeasonalNaive(1).locate({}, month, windows, np.array([20_000]))
        assert bool(np.isfinite(found[0, 0])) is known


def test_hour_of_week_blends_what_it_saw() -> None:
    """Two Mondays of 100 and 200, all other days 40: (2 x 150 + mean of the days) / 3."""
    days = np.full(14, 40.0)
    days[0], days[7] = 100.0, 200.0
    seen = demand(np.repeat(days, 24), 3600)
    parameters = HourOfWeek().fit(seen, WINDOWS)
    profile = parameters["profile"]
    assert isinstance(profile, list)
    any_day = days.mean()
    assert profile[5] == pytest.approx((2 * 150 + any_day) / 3)
    assert profile[24 + 5] == pytest.approx((2 * 40 + any_day) / 3)


def test_hour_of_week_takes_the_highest_hour_that_a_window_touches() -> None:
    hours = np.tile(np.arange(24.0) + 1, 14)
    seen = demand(np.repeat(hours, 60))
    origin = np.array([len(seen) - 13 * 60 - 4])  # 10:56: the order window reaches into 11:00
    assert located(HourOfWeek(), seen, origin)[0] == pytest.approx([12.0, 11.0], rel=1e-6)


def test_constant_is_the_last_whole_interval() -> None:
    seen = demand(np.array([10.0, 10, 10, 40, 50, 60, 90, 90]))
    assert located(Constant(), seen, at_end(seen))[0] == pytest.approx([50.0, 50.0])


def test_kalman_is_the_local_linear_trend() -> None:
    """Against the textbook's matrices."""
    rng = np.random.Generator(np.random.Philox(key=1))
    values = (100 + np.cumsum(rng.standard_normal(60))).tolist()
    transition, read = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[1.0, 0.0]])
    state, variance = np.array([values[0], 0.0]), np.eye(2)
    expected = [values[0]]
    for seen in values[1:]:
        state = transition @ state
        variance = transition @ variance @ transition.T + np.diag([1.0, 0.1])
        gain = variance @ read.T / (read @ variance @ read.T + 10.0)
        state = state + gain[:, 0] * (seen - state[0])
        variance = variance - gain @ read @ variance
        expected.append((transition @ state)[0])
    assert dynamo.one_step_ahead(values) == pytest.approx(expected)


def test_kalman_skips_leading_zeros_and_moves_on_through_gaps() -> None:
    rising = [float(value) for value in range(100, 200)]
    ahead = dynamo.one_step_ahead([0.0, 0.0, *rising, np.nan, np.nan])
    assert np.isnan(ahead[:2]).all()
    assert ahead[2] == 100.0
    assert ahead[-3:] == pytest.approx([200.0, 201.0, 202.0], abs=0.05)


def test_kalman_is_never_below_none() -> None:
    assert dynamo.one_step_ahead([100.0, 50.0, 0.0, 0.0, 0.0, 0.0, 0.0])[-1] >= 0


@pytest.mark.parametrize("length", [48, 49, 97])
def test_holt_winters_is_that_of_statsmodels(length: int) -> None:
    season, model = 24, HoltWinters(0.5, 0.2, 0.3)
    rng = np.random.Generator(np.random.Philox(key=2))
    day = 100 + 10 * np.sin(np.arange(length) / season * 2 * np.pi)
    samples = day + rng.standard_normal(length)
    start = holt_winters.initial(samples[:48].tobytes(), season)
    fit = ExponentialSmoothing(
        samples,
        trend="add",
        seasonal="add",
        seasonal_periods=season,
        initialization_method="known",
        initial_level=start.level,
        initial_trend=start.trend,
        initial_seasonal=list(start.seasons),
    ).fit(smoothing_level=0.5, smoothing_trend=0.2, smoothing_seasonal=0.3, optimized=False)
    expected = [*fit.fittedvalues[1:], fit.forecast(1)[0]]
    np.testing.assert_allclose(model.one_step_ahead(samples, season), expected, rtol=1e-12)


def test_holt_winters_of_two_seasons_is_statsmodels_own_estimate() -> None:
    season = 24
    samples = 100 + 10 * np.sin(np.arange(48) / season * 2 * np.pi) + np.arange(48) / 7
    fit = ExponentialSmoothing(
        samples,
        trend="add",
        seasonal="add",
        seasonal_periods=season,
        initialization_method="estimated",
    ).fit(smoothing_level=0.9, smoothing_trend=0.9, smoothing_seasonal=0.9, optimized=False)
    ahead = HoltWinters(0.9, 0.9, 0.9).one_step_ahead(samples, season)
    assert ahead[-1] == pytest.approx(fit.forecast(1)[0])


def test_holt_winters_starts_at_a_midnight() -> None:
    """So a history that reaches a little further back changes nothing."""
    week = weeks(1)
    found = []
    for hours in (13, 20):
        start = week.start + timedelta(hours=hours)
        seen = demand(week.between(start, week.start + timedelta(days=4)).values, start=start)
        found.append(located(HoltWinters(), seen, at_end(seen))[0, 0])
    assert found[0] == pytest.approx(found[1], rel=1e-9)


def sine(days: int, hours: float, step_seconds: int = 300, noise: float = 0.0) -> Floats:
    rng = np.random.Generator(np.random.Philox(key=4))
    seconds = np.arange(days * 86_400 // step_seconds) * step_seconds
    wave = 100 + 40 * np.sin(2 * np.pi * seconds / (hours * 3600))
    return np.asarray(wave + noise * rng.standard_normal(len(seconds)), dtype=np.float64)


class TestCraneDsp:
    @pytest.mark.parametrize(
        ("error", "loss"), [(-0.1, 0.47), (-0.5, 3.11), (0.3, 0.3), (0.0, 0.0)]
    )
    def test_under_predictions_count_more(self, error: float, loss: float) -> None:
        assert crane_dsp.weighed(np.array([error]))[0] == pytest.approx(loss, abs=0.005)

    def test_near_zero_the_loss_is_absolute(self) -> None:
        series = np.array([2.0, 4.0, 0.0, 4.0])
        assert crane_dsp.loss_of(Highest(0.0), series, 2, 12) == 1.0

    def found(self, values: Floats) -> int | None:
        rng = np.random.Generator(np.random.Philox(key=0))
        return crane_dsp.found_period(crane_dsp.whole_periods(values, 300), 300, rng)

    def test_a_day_is_found(self) -> None:
        assert self.found(sine(5, 24, noise=5)) == 288

    def test_a_week_that_repeats_is_found_beside_its_days(self) -> None:
        week = np.repeat([1.0, 1, 1, 1, 1, 0.8, 0.7], 288)
        values = sine(14, 24) * np.tile(week, 2)
        assert crane_dsp.autocorrelation(values)[2016] == pytest.approx(1.0)
        assert self.found(values) == 2016

    def test_a_week_is_found(self) -> None:
        week = np.repeat([1.0, 1, 1, 1, 1, 0.3, 0.3], 288)
        assert self.found(sine(21, 24) * np.tile(week, 3)) == 2016

    @pytest.mark.parametrize("values", [sine(5, 12), sine(5, 24, noise=5) * 0 + 7])
    def test_another_period_or_none_is_not_predictable(self, values: Floats) -> None:
        with pytest.raises(ForecastError, match="no period of a day or a week"):
            CraneDsp().fit(demand(values, 300), WINDOWS)

    def test_a_period_is_a_peak_of_the_autocorrelation(self) -> None:
        lags = np.arange(600)
        peak, slope, trough = -np.abs(lags - 288), -lags, np.abs(lags - 288)
        found = [crane_dsp._peaks_at(c.astype(float), 288, 300) for c in (peak, slope, trough)]
        assert found == [True, False, False]

    def test_noise_has_no_period(self) -> None:
        rng = np.random.Generator(np.random.Philox(key=9))
        assert self.found(100 + rng.standard_normal(5 * 288)) not in (288, 2016)

    def test_weak_slow_components_keep_their_whole_size(self) -> None:
        """As shipped, the mirrored bin goes and half of the component with it."""
        seconds = np.arange(4 * 288) * 300
        slow = 0.5 * np.cos(2 * np.pi * seconds / (6 * 3600))
        strong = sum(
            3 * np.cos(2 * np.pi * seconds * place / (4 * 86_400)) for place in range(100, 576, 4)
        )
        kept = Fourier(3, 1.0, 0.0)(1000 + slow + strong, 288, 12)
        spectrum = np.abs(np.fft.rfft(kept)) / 288
        assert 2 * spectrum[4] == pytest.approx(0.5, rel=1e-6)

    def test_weak_fast_components_go(self) -> None:
        seconds = np.arange(4 * 288) * 300
        fast = 0.5 * np.cos(2 * np.pi * seconds / 900)
        kept = Fourier(1, 1.0, 0.1)(sine(4, 24) + fast, 288, 12)
        np.testing.assert_allclose(kept, 1.1 * sine(1, 24), atol=1e-6)

    def test_enough_bins_survive_whatever_the_least_amplitude(self) -> None:
        seconds = np.arange(4 * 288) * 300
        fast = 0.5 * np.cos(2 * np.pi * seconds / 900)
        kept = Fourier(2, 1e6, 0.0)(sine(4, 24) + fast, 288, 12)
        np.testing.assert_allclose(kept, sine(4, 24)[-288:] + fast[-288:], atol=1e-6)

    def test_a_bad_last_day_is_the_next_forecast(self) -> None:
        """As its users complain (gocrane/crane#787)."""
        values = sine(7, 24, noise=0.5)
        good = self.pattern(values)
        values[-288:] *= 0.5
        bad = self.pattern(values)
        assert bad.mean() == pytest.approx(0.5 * good.mean(), rel=0.02)

    def pattern(self, values: Floats) -> Floats:
        fitted = CraneDsp().fit(demand(values, 300), WINDOWS)
        return np.array(fitted["pattern"], dtype=np.float64)

    def test_it_serves_the_highest_of_its_own_window(self) -> None:
        seen = demand(sine(4, 24), 300)
        exact = (Highest(0.0),)
        # From midnight on the wave rises to 140 at 06:00.
        for seconds, expected in ((300, 0.0), (3600, 55 / 60), (43_200, 6.0)):
            found = located(CraneDsp(seconds, exact), seen, at_end(seen))[0, 0]
            rate = 100 + 40 * np.sin(2 * np.pi * expected / 24)
            assert found == pytest.approx(rate, rel=1e-3)

    def test_the_estimator_with_the_least_loss_wins(self) -> None:
        seen = demand(sine(4, 24), 300)
        estimators = (Fourier(3, 1.0, 0.2), Fourier(3, 1.0, 0.01), Fourier(3, 1.0, 0.1))
        found = located(CraneDsp(300, estimators), seen, at_end(seen))[0, 0]
        assert found == pytest.approx(1.01 * 100.0, rel=1e-3)

    def test_a_long_gap_drops_what_lies_before_it(self) -> None:
        values = sine(5, 24)
        values[288 : 288 + 13] = np.nan
        values[700:705] = np.nan
        series, end = crane_dsp.prepared(demand(values, 300))
        assert (len(series), end) == ((5 * 288 - 288 - 13) // 12 * 12, 5 * 288)
        assert np.isfinite(series).all()

    def test_outliers_take_the_value_before_them(self) -> None:
        values = sine(5, 24)
        values[1000] = 1e6
        series, _ = crane_dsp.prepared(demand(values, 300))
        assert series[1000] == pytest.approx(values[999])
