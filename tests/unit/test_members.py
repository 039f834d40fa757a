"""Members of the combination: each by the contract of a member, and what is its own."""

from __future__ import annotations

import warnings
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

import numpy as np
import pytest

from forecaster import cycle
from forecaster.calendar import DAY_SECONDS, WEEK_SECONDS, Calendar
from forecaster.cycle import autoregression, local_means
from forecaster.demand import Demand, Ints, demand_of
from forecaster.forecast import FittedModel, ForecastError, Parameters, Window
from forecaster.history import Floats, TrafficHistory
from forecaster.member import Member
from forecaster.models import double_seasonal
from forecaster.models.direct import Direct
from forecaster.models.double_seasonal import DoubleSeasonal
from forecaster.models.harmonic import Harmonic
from forecaster.models.mstl import Decomposition
from forecaster.models.seasonal_naive import DampedSeasonalNaive
from forecaster.registry import MEMBERS
from storage import codec
from tests.traffic import MONDAY, weeks

WINDOWS = (Window("order", 3, 6), Window("hold", 0, 5))
OURS: list[Member] = [
    Direct(),
    Direct(past_days=False),
    DampedSeasonalNaive(),
    Decomposition(),
    DoubleSeasonal(),
    Harmonic(),
]
WITH_PATH = [Decomposition(), DoubleSeasonal(), Harmonic()]
FITTED = 20 * 1440
"""Steps that are fitted on; what follows is forecast."""


def demand(values: Floats, step_seconds: int = 60, start: datetime = MONDAY) -> Demand:
    return demand_of(TrafficHistory("x", start, step_seconds, values), Calendar())


def fit(member: Member, seen: Demand) -> Parameters:
    return member.fit(seen, WINDOWS)


def fitted(member: Member) -> Parameters:
    """On the part of the month that is not forecast."""
    return _fitted(OURS.index(member))


@cache
def _fitted(place: int) -> Parameters:
    return fit(OURS[place], demand(weeks().values).before(FITTED))


def from_step(seen: Demand, first: int) -> Demand:
    logs, local, day_type = seen.logs[first:], seen.local[first:], seen.day_type[first:]
    return Demand(logs, local, day_type, seen.step_seconds, seen.offset)


def numbers(parameters: Parameters, name: str) -> Floats:
    return np.asarray(parameters[name], dtype=np.float64)


@pytest.fixture(scope="module")
def month() -> Demand:
    return demand(weeks().values)


ORIGINS = np.arange(FITTED, FITTED + 900, 7, dtype=np.int64)


@pytest.mark.parametrize("member", OURS, ids=lambda member: member.name)
class TestEveryMember:
    """A member in the list above cannot be left out of these."""

    def test_it_is_known_by_its_name(self, member: Member) -> None:
        assert MEMBERS[member.name]() == member

    def test_it_forecasts_days_that_it_has_not_seen(self, member: Member, month: Demand) -> None:
        parameters = fitted(member)
        origins = np.arange(FITTED, len(month) - 10, 11, dtype=np.int64)
        located = member.locate(parameters, month, WINDOWS, origins)
        peaks = np.column_stack([month.peaks(window, origins) for window in WINDOWS])
        assert located.shape == peaks.shape
        assert np.abs(located - peaks).mean() < 0.05

    def test_it_does_not_look_ahead(self, member: Member, month: Demand) -> None:
        parameters = fitted(member)
        logs = month.logs.copy()
        logs[ORIGINS[-1] :] += 3.0
        said = member.locate(parameters, month, WINDOWS, ORIGINS)
        changed = member.locate(parameters, replace(month, logs=logs), WINDOWS, ORIGINS)
        np.testing.assert_array_equal(changed, said)

    def test_one_origin_or_many_give_the_same_bits(self, member: Member, month: Demand) -> None:
        """Or a restart would not continue exactly where the daemon was."""
        parameters = fitted(member)
        many = member.locate(parameters, month, WINDOWS, ORIGINS[::-1])[::-1]
        for row in (0, 50, len(ORIGINS) - 1):
            origin = ORIGINS[row : row + 1]
            alone = member.locate(parameters, month.before(int(origin[0])), WINDOWS, origin)
            np.testing.assert_array_equal(alone[0], many[row])

    def test_it_may_be_asked_of_a_demand_that_starts_later(
        self, member: Member, month: Demand
    ) -> None:
        parameters = fitted(member)
        cut = 3 * 1440 + 77
        whole = member.locate(parameters, month, WINDOWS, ORIGINS)
        later = member.locate(parameters, from_step(month, cut), WINDOWS, ORIGINS - cut)
        np.testing.assert_array_equal(later, whole)

    def test_demand_times_k_adds_log_k(self, member: Member, month: Demand) -> None:
        large = demand(weeks().values * 1000)
        small = member.locate(fitted(member), month, WINDOWS, ORIGINS)
        scaled = member.locate(fit(member, large.before(FITTED)), large, WINDOWS, ORIGINS)
        np.testing.assert_allclose(scaled, small + np.log(1000), atol=1e-6)

    def test_gaps_are_no_drop_in_demand(self, member: Member, month: Demand) -> None:
        """An hour not long ago, a day, and single steps everywhere, of which two are the newest."""
        logs = month.logs.copy()
        logs[FITTED - 300 : FITTED - 240] = np.nan
        logs[9 * 1440 : 10 * 1440] = np.nan
        logs[::97] = logs[FITTED - 2 : FITTED] = np.nan
        origin = np.array([FITTED])
        holed = replace(month, logs=logs)
        whole = member.locate(fitted(member), month, WINDOWS, origin)
        parameters = fit(member, holed.before(FITTED))
        said = member.locate(parameters, holed, WINDOWS, origin)
        np.testing.assert_allclose(said, whole, atol=0.03)

    def test_an_outage_in_the_past_bends_it_little(self, member: Member, month: Demand) -> None:
        logs = month.logs.copy()
        at = FITTED - 5 * 1440  # at the clock time of the origin
        logs[at - 60 : at + 60] -= 4.0
        origin = np.array([FITTED])
        bent = replace(month, logs=logs)
        whole = member.locate(fitted(member), month, WINDOWS, origin)
        said = member.locate(fit(member, bent.before(FITTED)), bent, WINDOWS, origin)
        np.testing.assert_allclose(said, whole, atol=0.05)

    def test_too_little_history_is_said(self, member: Member) -> None:
        short = demand(weeks().values[:1440])
        with pytest.raises(ForecastError, match=f"{member.name}: needs"):
            fit(member, short)

    def test_its_parameters_are_stored_exactly(self, member: Member, month: Demand) -> None:
        parameters = fitted(member)
        model = FittedModel(member.name, MONDAY, MONDAY, 60, WINDOWS, parameters)
        stored = codec.decode_model(codec.encode_model(model)).parameters
        again = member.locate(stored, month, WINDOWS, ORIGINS)
        np.testing.assert_array_equal(again, member.locate(parameters, month, WINDOWS, ORIGINS))

    def test_no_origin_is_no_answer(self, member: Member, month: Demand) -> None:
        none = np.empty(0, dtype=np.int64)
        assert member.locate(fitted(member), month, WINDOWS, none).shape == (0, 2)

    @pytest.mark.parametrize(("month_", "day"), [(3, 29), (10, 25)])
    def test_the_day_after_the_clocks_change_is_as_any_other(
        self, member: Member, month_: int, day: int
    ) -> None:
        """Traffic goes by the clock of Berlin, with an hour that rises threefold."""
        change = datetime(2026, month_, day, 1, tzinfo=UTC)
        start = datetime.fromtimestamp(change.timestamp() - 16 * DAY_SECONDS - 3600, UTC)
        history = by_the_clock(start, 19)
        seen = demand_of(history, Calendar("Europe/Berlin"))
        windows = (Window("order", 1, 3), Window("hour", 12, 13))
        parameters = member.fit(seen.before(16 * 288), windows)
        origins = np.arange(17 * 288, 18 * 288, dtype=np.int64)
        located = member.locate(parameters, seen, windows, origins)
        peaks = np.column_stack([seen.peaks(window, origins) for window in windows])
        off = np.abs(located - peaks).mean(axis=0)
        assert off[0] < 0.05
        if member != Direct(past_days=False):  # it knows no clock
            assert off[1] < 0.10


@pytest.mark.parametrize(
    "member", [m for m in OURS if m != DoubleSeasonal()], ids=lambda member: member.name
)
def test_where_nothing_is_known_it_says_nothing(member: Member, month: Demand) -> None:
    """Double seasonal smoothing goes by its states alone, as through any gap."""
    empty = replace(month, logs=np.full(len(month), np.nan))
    located = member.locate(fitted(member), empty, WINDOWS, np.array([0, len(month)]))
    assert np.isnan(located).all()


def by_the_clock(start: datetime, days: int) -> TrafficHistory:
    """Five-minute steps; a smooth day and a steep hour from 09:00 on, local time."""
    seconds = round(start.timestamp()) + 300 * np.arange(days * 288, dtype=np.int64)
    local = Calendar("Europe/Berlin").local_seconds(seconds) % DAY_SECONDS
    hours = local / 3600
    shape = 2.0 + np.sin(2 * np.pi * (hours - 8) / 24) + np.clip(hours - 9, 0, 1)
    noise = np.random.Generator(np.random.Philox(key=5)).standard_normal(len(local))
    return TrafficHistory("x", start, 300, 1000 * shape * np.exp(0.01 * noise))


@pytest.mark.parametrize("member", WITH_PATH, ids=lambda member: member.name)
def test_a_windows_peak_is_the_highest_step_of_its_path(member: Member, month: Demand) -> None:
    parameters = member.fit(month.before(FITTED), [Window("w", 40, 60)])
    origins = np.array([FITTED + 480, FITTED + 1200])  # on a rise, on a fall
    whole = member.locate(parameters, month, [Window("w", 40, 60)], origins)[:, 0]
    steps = [Window(str(step), step, step + 1) for step in range(40, 60)]
    path = member.locate(parameters, month, steps, origins)
    np.testing.assert_array_equal(whole, path.max(axis=1))
    assert (path.argmax(axis=1) == [19, 0]).all()


class TestCycle:
    def test_slots_go_by_the_wall_clock(self) -> None:
        """From 00:07 on: three minutes of the first slot, a gap in the third."""
        values = np.arange(1.0, 19.0)
        values[8:13] = np.nan
        start = MONDAY.replace(minute=7)
        means = local_means(demand(values, start=start), 300)
        assert means.first * 300 == demand(values, start=start).local[0] - 120
        expected = [np.log([1, 2, 3]).mean(), np.log([4, 5, 6, 7, 8]).mean(), np.nan]
        np.testing.assert_allclose(means.values[:3], expected, atol=0.01)

    def test_the_hour_that_comes_twice_is_the_mean_of_both(self) -> None:
        start = datetime(2026, 10, 25, tzinfo=UTC)
        values = np.array([8.0, 4.0, 16.0, 2.0])  # 02:00, 02:00, 03:00, 04:00 in Berlin
        seen = demand_of(TrafficHistory("x", start, 3600, values), Calendar("Europe/Berlin"))
        expected = np.log([np.sqrt(32.0), 16.0, 2.0])
        np.testing.assert_allclose(local_means(seen, 300).values, expected, atol=0.005)

    def test_a_profile_is_read_on_straight_lines(self) -> None:
        profile = np.arange(7.0)  # a slot a day
        noon = DAY_SECONDS / 2
        assert cycle.profile_at(profile, noon) == 0.0
        assert cycle.profile_at(profile, noon + 0.25 * DAY_SECONDS) == pytest.approx(0.25)
        assert cycle.profile_at(profile, 0.0) == pytest.approx(3.0)  # half Sunday, half Monday
        assert cycle.profile_at(profile, WEEK_SECONDS + noon) == 0.0

    def test_the_autoregression_is_found(self) -> None:
        rng = np.random.Generator(np.random.Philox(key=1))
        deviations = np.zeros(8000)
        for step in range(2, 8000):
            deviations[step] = 0.6 * deviations[step - 1] + 0.3 * deviations[step - 2]
            deviations[step] += rng.standard_normal()
        lags = autoregression(deviations)
        np.testing.assert_allclose(lags[:2], [0.6, 0.3], atol=0.05)
        np.testing.assert_allclose(lags[2:], 0.0, atol=0.05)

    def test_no_deviation_grows_for_ever(self) -> None:
        """By plain least squares it would by half a per cent a step."""
        noise = np.random.Generator(np.random.Philox(key=2)).normal(0, 0.01, 2000)
        lags = autoregression(1.005 ** np.arange(2000.0) + noise)
        ahead = cycle._ahead_weights(lags, 5000)
        assert np.abs(ahead[-1]).sum() < 0.1

    @pytest.mark.parametrize("deviations", [np.zeros(2000), np.full(30, 1.0)])
    def test_without_deviations_nothing_is_carried_on(self, deviations: Floats) -> None:
        assert not autoregression(deviations).any()

    def test_what_is_ahead_follows_from_the_lags(self) -> None:
        lags = np.array([0.5, 0.3])
        expected = np.array([lags, [0.5 * 0.5 + 0.3, 0.5 * 0.3]])
        np.testing.assert_allclose(cycle._ahead_weights(lags, 2), expected)

    def test_a_deviation_is_carried_on(self) -> None:
        """Half an hour 20 % above a flat profile; the newest slot's deviation lasts by halves."""
        parameters: Parameters = {"profile": [7.0] * 2016, "lags": [0.5, 0.0]}
        logs = np.full(600, 7.0)
        logs[570:] += 0.2
        seen = replace(demand(np.ones(600)), logs=logs)
        windows = [Window("now", 0, 5), Window("next", 5, 10), Window("both", 0, 10)]
        located = cycle.locate(parameters, seen, windows, np.array([600]))[0]
        np.testing.assert_allclose(located, [7.1, 7.05, 7.1])

    def test_an_unknown_slot_deviates_as_the_known_ones_do(self) -> None:
        parameters: Parameters = {"profile": [7.0] * 2016, "lags": [0.5, 0.0]}
        logs = np.full(600, 7.2)
        logs[595:] = np.nan
        seen = replace(demand(np.ones(600)), logs=logs)
        located = cycle.locate(parameters, seen, [Window("now", 0, 5)], np.array([600]))
        np.testing.assert_allclose(located, 7.1)


class TestHarmonic:
    def test_waves_are_found_through_outages(self) -> None:
        at = np.arange(28 * 288) * 300 / 86_400
        logs = 5 + np.sin(2 * np.pi * at) + 0.2 * np.cos(2 * np.pi * 3 * at / 7)
        broken = logs.copy()
        for day in range(3, 25, 4):
            broken[day * 288 + 100 : day * 288 + 124] -= 5.0
        seen = replace(demand(np.ones(len(at)), 300), logs=broken)
        profile = numbers(fit(Harmonic(), seen), "profile")
        np.testing.assert_allclose(profile, logs[:2016], atol=0.03)

    def test_a_week_is_learned_from_two(self) -> None:
        seen = demand(weeks().values)
        for days, same in ((13, True), (15, False)):
            profile = numbers(fit(Harmonic(), seen.before(days * 1440)), "profile")
            sunday, monday = profile[-288:], profile[:288]
            assert np.allclose(sunday, monday) is same


class TestDecomposition:
    def test_a_week_stands_at_its_own_days(self) -> None:
        """A history that begins in the middle of a week; each weekday has a height of its own."""
        start = datetime(2026, 3, 5, 9, tzinfo=UTC)  # a Thursday
        local = Calendar().local_seconds(
            round(start.timestamp()) + 3600 * np.arange(24 * 28, dtype=np.int64)
        )
        hours = local // 3600 % 168
        height = 5 + hours // 24 * 0.1 + 0.5 * np.sin(2 * np.pi * hours / 24)
        seen = demand(np.exp(height), 3600, start)
        profile = numbers(fit(Decomposition(), seen), "profile")
        expected = np.empty(168)
        expected[hours] = height
        np.testing.assert_allclose(profile, expected, atol=0.02)

    def test_gaps_are_filled_by_the_clock(self) -> None:
        """statsmodels would answer with NaN alone, and say nothing."""
        hours = np.arange(24 * 21)
        logs = 5 + np.sin(2 * np.pi * hours / 24)
        holed = logs.copy()
        holed[200:215] = np.nan
        seen = replace(demand(np.ones(len(hours)), 3600), logs=holed)
        profile = numbers(fit(Decomposition(), seen), "profile")
        np.testing.assert_allclose(profile, logs[:168], atol=0.01)

    def test_less_than_two_weeks_know_no_week(self) -> None:
        seen = demand(weeks().values[: 13 * 1440])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            profile = numbers(fit(Decomposition(), seen), "profile")
        np.testing.assert_array_equal(profile[:24], profile[24:48])


class TestDoubleSeasonal:
    def test_it_is_taylors_recursion(self) -> None:
        """Against the equations as printed, where every error is small enough to be followed."""
        values = weeks().resampled(600).values
        seen = demand(values, 600)
        cut = len(seen) - 500
        parameters: Parameters = {**fit(DoubleSeasonal(), seen.before(cut)), "clip": 100.0}
        level_rate, day_rate, week_rate, lasting = numbers(parameters, "rates")
        day, week = list(numbers(parameters, "day")), list(numbers(parameters, "week"))
        level, error = numbers(parameters, "now")
        origins = np.arange(cut + 1, len(seen) + 1, dtype=np.int64)
        located = DoubleSeasonal().locate(parameters, seen, [Window("next", 0, 1)], origins)[:, 0]
        since = int(np.argmax(seen.local >= numbers(parameters, "since")))
        for t in range(since, len(seen)):
            d, w = t % 144, t % 1008
            error = seen.logs[t] - level - day[d] - week[w]
            level += level_rate * error
            day[d] += day_rate * error
            week[w] += week_rate * error
            if t >= cut:
                expected = level + day[(t + 1) % 144] + week[(t + 1) % 1008] + lasting * error
                assert located[t - cut] == pytest.approx(expected, abs=1e-9)

    def test_the_share_that_lasts_is_found(self) -> None:
        rng = np.random.Generator(np.random.Philox(key=3))
        deviations = np.zeros(28 * 144)
        for step in range(1, len(deviations)):
            deviations[step] = 0.9 * deviations[step - 1] + 0.02 * rng.standard_normal()
        day = np.tile(np.sin(2 * np.pi * np.arange(144) / 144), 28)
        rates = numbers(fit(DoubleSeasonal(), demand(np.exp(5 + day + deviations), 600)), "rates")
        assert rates[0] == 0.0
        assert rates[3] == 0.9

    def test_it_is_silent_of_what_lies_before_its_states(self, month: Demand) -> None:
        parameters = fit(DoubleSeasonal(), month)
        origins = np.array([0, len(month) - 4 * 1440, len(month)])
        known = np.isfinite(DoubleSeasonal().locate(parameters, month, WINDOWS, origins))
        assert known[:, 0].tolist() == [False, False, True]

    def test_no_candidate_follows_more_than_there_is(self) -> None:
        assert (double_seasonal.CANDIDATES[:, :3].sum(axis=1) < 1).all()
        assert (double_seasonal.CANDIDATES[:, 3] < 1).all()


class TestDampedSeasonalNaive:
    def at(self, days: int, growth: Floats) -> tuple[Demand, Parameters]:
        day = 5 + np.sin(2 * np.pi * np.arange(288) / 288)
        seen = demand(
            np.exp(np.tile(day, days) + np.repeat(growth, 288 * days // len(growth))), 300
        )
        return seen, DampedSeasonalNaive().fit(seen, WINDOWS)

    def test_a_level_that_lasts_is_carried_on_whole(self) -> None:
        seen, parameters = self.at(21, np.array([0.0, 0.2, 0.5]))
        np.testing.assert_allclose(numbers(parameters, "damping"), 1.0, atol=0.01)
        origin = np.array([len(seen)])
        located = DampedSeasonalNaive().locate(parameters, seen, WINDOWS, origin)
        week_ago = np.column_stack([seen.peaks(window, origin - 2016) for window in WINDOWS])
        np.testing.assert_allclose(located, week_ago + 0.3, atol=0.01)

    def test_what_does_not_last_is_damped(self) -> None:
        rng = np.random.Generator(np.random.Philox(key=2))
        _, parameters = self.at(21, rng.standard_normal(21 * 288 // 6))  # new every half hour
        assert (numbers(parameters, "damping") < 0.6).all()

    def test_below_eight_days_it_goes_by_yesterday(self) -> None:
        seen, parameters = self.at(7, np.zeros(7))
        assert numbers(parameters, "season_days") == 1
        origins: Ints = np.array([len(seen)])
        far = [Window("a day ahead", 288, 290)]
        located = DampedSeasonalNaive().locate({**parameters, "damping": [1.0]}, seen, far, origins)
        np.testing.assert_allclose(located[0], seen.peaks(Window("w", 0, 2), origins - 288))
