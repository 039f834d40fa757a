"""The models: what they reach on generated and on real traffic, and how they fail."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from forecaster.combine import default_forecaster
from forecaster.forecast import Forecast, Forecaster, ForecastError
from forecaster.history import TrafficHistory
from forecaster.models.harmonic import Harmonic
from forecaster.models.seasonal_naive import SeasonalNaive
from tests.traffic import real_trace, weeks

HORIZON = 12
LEAD = 4
MODELS: list[Forecaster] = [Harmonic(), SeasonalNaive(), default_forecaster("UTC")]


def cut(history: TrafficHistory, end: datetime) -> TrafficHistory:
    return history.between(history.start, end)


def rolling(
    model: Forecaster, history: TrafficHistory, end: datetime, points: int
) -> tuple[float, float]:
    """WAPE of the median and coverage of the 0.95 quantile, LEAD steps after each origin."""
    fitted = model.fit(cut(history, end), end, HORIZON)
    errors, actuals, covered = [], [], []
    for origin in range(points):
        now = end + origin * 7 * history.step
        forecast = model.predict(fitted, cut(history, now), now)
        actual = float(history.values[len(cut(history, now)) + LEAD])
        if np.isfinite(actual):
            errors.append(abs(actual - forecast.at_level(0.5).values[LEAD]))
            covered.append(actual <= forecast.at_level(0.95).values[LEAD])
            actuals.append(actual)
    return sum(errors) / sum(actuals), float(np.mean(covered))


def test_harmonic_follows_a_generated_week() -> None:
    history = weeks(4)
    wape, coverage = rolling(Harmonic(), history, history.start + timedelta(days=21), 600)
    assert wape < 0.02
    assert 0.88 < coverage < 0.995


@pytest.mark.parametrize(("name", "limit"), [("isp_uk_5min", 0.06), ("wc98_1min", 0.10)])
def test_harmonic_on_real_traffic_beats_last_week(name: str, limit: float) -> None:
    history = real_trace(name)
    end = history.start + timedelta(days=28)
    wape, coverage = rolling(Harmonic(), history, end, 250)
    naive, _ = rolling(SeasonalNaive(), history, end, 250)
    assert wape < limit
    assert wape < naive
    assert coverage > 0.85


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
class TestEveryModel:
    """A model in the list above cannot be left out of these."""

    def fit_and_predict(self, model: Forecaster, history: TrafficHistory) -> Forecast:
        fitted = model.fit(history, history.end, HORIZON)
        return model.predict(fitted, history, history.end)

    def test_starts_where_the_history_ends(self, model: Forecaster) -> None:
        forecast = self.fit_and_predict(model, weeks())
        assert forecast.starts_at == weeks().end
        assert len(forecast.quantiles[0].values) == HORIZON

    def test_demand_times_k_gives_forecast_times_k(self, model: Forecaster) -> None:
        history = weeks()
        scaled = replace(history, values=history.values * 1000.0)
        small = self.fit_and_predict(model, history)
        large = self.fit_and_predict(model, scaled)
        for low, high in zip(small.quantiles, large.quantiles, strict=True):
            assert high.values == pytest.approx([1000 * value for value in low.values], rel=1e-6)

    def test_a_history_read_in_two_parts_gives_the_same(self, model: Forecaster) -> None:
        history = weeks()
        middle = history.start + timedelta(days=9, hours=5)
        joined = cut(history, middle).extended(history.between(middle, history.end), 10**6)
        assert self.fit_and_predict(model, joined) == self.fit_and_predict(model, history)

    def test_an_hour_of_gaps_is_no_drop_in_demand(self, model: Forecaster) -> None:
        history = weeks()
        values = history.values.copy()
        values[-3000:-2940] = np.nan
        holed = self.fit_and_predict(model, replace(history, values=values))
        whole = self.fit_and_predict(model, history)
        assert holed.at_level(0.5).values[0] == pytest.approx(
            whole.at_level(0.5).values[0], rel=0.02
        )

    def test_an_outage_in_the_past_bends_the_forecast_little(self, model: Forecaster) -> None:
        history = weeks()
        values = history.values.copy()
        values[5000:5120] *= 0.01
        bent = self.fit_and_predict(model, replace(history, values=values))
        whole = self.fit_and_predict(model, history)
        assert bent.at_level(0.5).values[0] == pytest.approx(
            whole.at_level(0.5).values[0], rel=0.03
        )

    def test_too_little_history_is_said(self, model: Forecaster) -> None:
        short = weeks().last(1440)
        with pytest.raises(ForecastError, match="needs"):
            model.fit(short, short.end, HORIZON)

    def test_no_traffic_at_all_is_said(self, model: Forecaster) -> None:
        silent = replace(weeks(), values=np.zeros(len(weeks())))
        with pytest.raises(ForecastError):
            model.fit(silent, silent.end, HORIZON)

    def test_a_gap_just_before_now_is_said(self, model: Forecaster) -> None:
        history = weeks()
        fitted = model.fit(history, history.end, HORIZON)
        values = history.values.copy()
        values[-200:] = np.nan
        with pytest.raises(ForecastError, match="gaps"):
            model.predict(fitted, replace(history, values=values), history.end)


def test_a_few_missing_steps_move_the_start_back_not_the_level() -> None:
    history = weeks()
    model = Harmonic()
    fitted = model.fit(history, history.end, HORIZON)
    values = history.values.copy()
    values[-2:] = np.nan
    forecast = model.predict(fitted, replace(history, values=values), history.end)
    assert forecast.starts_at == history.end - 2 * history.step


def test_local_time_moves_the_cycle_with_the_clocks() -> None:
    """A pattern of the Berlin clock is met after the change to summer time on 2026-03-29."""
    start = weeks().start
    steps = 29 * 1440
    stamps = np.arange(steps) * 60 + round(start.timestamp())
    change = round(datetime(2026, 3, 29, 1, tzinfo=start.tzinfo).timestamp())
    local = stamps + np.where(stamps >= change, 7200, 3600)
    values = 1000 * (2 + np.sin(2 * np.pi * (local % 86_400) / 86_400))
    history = TrafficHistory("x", start, 60, values)
    end = datetime(2026, 3, 28, 12, tzinfo=start.tzinfo)
    after = datetime(2026, 3, 30, 7, tzinfo=start.tzinfo)

    def error(zone: str) -> float:
        model = Harmonic(zone)
        fitted = model.fit(cut(history, end), end, 60)
        forecast = model.predict(fitted, cut(history, after), after)
        actual = history.values[len(cut(history, after)) + 59]
        return float(abs(forecast.at_level(0.5).values[59] / actual - 1))

    assert error("Europe/Berlin") < 0.005
    assert error("UTC") > 2 * error("Europe/Berlin")


def test_the_ladder_steps_down_and_says_why() -> None:
    short = weeks().last(int(1.6 * 1440))
    fitted = default_forecaster("UTC").fit(short, short.end, HORIZON)
    assert fitted.model == "seasonal_naive"
    assert "harmonic: needs 2 days" in fitted.failures[0]


def test_traffic_without_pattern_is_not_trusted() -> None:
    """A model that repeating last week would beat must not order capacity."""
    values = weeks().values.copy()
    rng = np.random.Generator(np.random.Philox(key=3))
    day = values[:1440]
    values = np.tile(day, 21) * np.repeat(rng.permutation(21) % 7 + 1, 1440)[: 21 * 1440]
    values[-1440:] = values[-1440 * 8 : -1440 * 7]
    history = replace(weeks(), values=values)
    fitted = Harmonic().fit(history, history.end, HORIZON)
    assert not fitted.trusted
    assert "no better" in fitted.failures[-1]
