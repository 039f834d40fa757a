"""The combined forecaster: what it reaches on generated and on real traffic, and how it fails."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from scipy.signal import lfilter

from forecaster.calendar import Calendar, Event
from forecaster.calibration import MIX, SHARE
from forecaster.combine import Combined
from forecaster.contenders import contender
from forecaster.evaluation import judge, rolling_origin, target_window
from forecaster.forecast import (
    Calibration,
    FittedModel,
    Forecast,
    ForecastError,
    Window,
    WindowForecast,
)
from forecaster.history import Floats, TrafficHistory
from forecaster.registry import combined
from simulator.traces.arrivals import on_step
from storage import codec
from tests.traffic import MONDAY, real_trace, weeks

ORDER, HOLD = Window("order", 3, 5), Window("hold", 0, 4)
WINDOWS = (ORDER, HOLD)


def cut(history: TrafficHistory, end: datetime) -> TrafficHistory:
    return history.between(history.start, end)


def fitted_on(history: TrafficHistory, time_zone: str = "UTC") -> tuple[Combined, FittedModel]:
    model = combined(Calendar(time_zone))
    return model, model.fit(history, history.end, WINDOWS)


def said_at_end(history: TrafficHistory) -> Forecast:
    model, fitted = fitted_on(history)
    return model.predict(fitted, history, history.end)


def order_of(forecast: Forecast) -> WindowForecast:
    window = forecast.window("order")
    assert window is not None
    return window


def rolling(
    history: TrafficHistory, end: datetime, points: int, stride: int = 7, time_zone: str = "UTC"
) -> tuple[float, float]:
    """WAPE of the order window's median and coverage of its 0.95 quantile after a fit at `end`."""
    model, fitted = fitted_on(cut(history, end), time_zone)
    errors, actuals, covered = [], [], []
    for origin in range(0, points * stride, stride):
        known = cut(history, end + origin * history.step)
        order = order_of(model.predict(fitted, known, known.end))
        actual = float(history.values[len(known) + ORDER.first : len(known) + ORDER.last].max())
        if np.isfinite(actual):
            errors.append(abs(actual - order.median_qps))
            covered.append(actual <= order.at_level(0.95))
            actuals.append(actual)
    return sum(errors) / sum(actuals), float(np.mean(covered))


def test_it_follows_a_generated_week() -> None:
    history = weeks(4)
    wape, coverage = rolling(history, history.start + timedelta(days=21), 600)
    assert wape < 0.02
    assert 0.90 < coverage < 0.99


@pytest.mark.parametrize(("name", "limit"), [("isp_uk_5min", 0.05), ("wc98_1min", 0.10)])
def test_real_traffic(name: str, limit: float) -> None:
    history = real_trace(name)
    wape, coverage = rolling(history, history.start + timedelta(days=28), 250)
    assert wape < limit
    assert coverage > 0.88


def test_windows_and_quantiles_are_in_order() -> None:
    history = weeks()
    forecast = said_at_end(history)
    order, hold = forecast.windows
    assert (order.name, hold.name) == ("order", "hold")
    assert order.starts_at == history.end + 3 * history.step
    assert order.ends_at == history.end + 5 * history.step
    assert hold.starts_at == history.end
    levels = [point.qps for point in order.quantiles]
    assert levels == sorted(levels)
    assert levels[0] < order.median_qps < levels[-1]


@pytest.mark.parametrize("factor", [1e-3, 250.0])
def test_demand_times_k_is_forecast_times_k(factor: float) -> None:
    history = weeks()
    small = said_at_end(history)
    large = said_at_end(replace(history, values=history.values * factor))
    for one, other in zip(small.windows, large.windows, strict=True):
        assert other.median_qps == pytest.approx(one.median_qps * factor, rel=1e-6)
        assert other.scale == pytest.approx(one.scale, rel=1e-6)


def test_a_fresh_start_says_exactly_the_same() -> None:
    """What is kept between steps makes them cheap and changes nothing."""
    history = weeks()
    middle = history.start + timedelta(days=15)
    model, fitted = fitted_on(cut(history, middle))
    for minute in range(1, 400):
        known = cut(history, middle + minute * history.step)
        followed = model.predict(fitted, known, known.end)
    fresh = combined(Calendar()).predict(fitted, known, known.end)
    assert followed == fresh


def test_nothing_after_the_end_is_known() -> None:
    history = weeks()
    end = history.start + timedelta(days=15)
    other = history.values.copy()
    other[len(cut(history, end)) :] *= 3
    model, fitted = fitted_on(cut(history, end))
    changed = cut(replace(history, values=other), end)
    assert model.predict(fitted, cut(history, end), end) == Combined(Calendar()).predict(
        fitted, changed, end
    )


def test_a_stored_model_says_exactly_the_same() -> None:
    history = weeks()
    model, fitted = fitted_on(history)
    back = codec.decode_model(codec.encode_model(fitted))
    assert back == fitted
    fresh = combined(Calendar()).predict(back, history, history.end)
    assert fresh == model.predict(fitted, history, history.end)


def test_gaps_cost_little() -> None:
    history = weeks()
    holed = history.values.copy()
    holed[np.random.default_rng(3).random(len(holed)) < 0.2] = np.nan
    whole, thin = (
        order_of(said_at_end(replace(history, values=values))) for values in (history.values, holed)
    )
    assert thin.median_qps == pytest.approx(whole.median_qps, rel=0.03)


def test_an_outage_in_the_history_bends_it_little() -> None:
    history = weeks()
    outage = history.values.copy()
    outage[10 * 1440 + 600 : 10 * 1440 + 680] *= 0.01
    whole, bent = (
        order_of(said_at_end(replace(history, values=values)))
        for values in (history.values, outage)
    )
    assert bent.median_qps == pytest.approx(whole.median_qps, rel=0.03)


def test_unknown_newest_minutes_are_no_forecast() -> None:
    history = weeks()
    model, fitted = fitted_on(history)
    unknown = history.values.copy()
    unknown[-10:] = np.nan
    with pytest.raises(ForecastError, match="newest minutes"):
        model.predict(fitted, replace(history, values=unknown), history.end)


def test_a_short_history_is_refused() -> None:
    history = weeks()
    with pytest.raises(ForecastError, match=r"needs 1\.2 days"):
        fitted_on(cut(history, history.start + timedelta(hours=20)))


def test_no_traffic_is_refused() -> None:
    history = weeks()
    with pytest.raises(ForecastError, match="no traffic"):
        fitted_on(replace(history, values=np.zeros(len(history))))


@pytest.mark.parametrize(
    "changes", [datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC)]
)
def test_a_pattern_of_the_local_clock_survives_both_clock_changes(changes: datetime) -> None:
    """The day after a change costs at most a tenth more error than that of a week before."""
    start = changes - timedelta(days=28)
    minutes = 33 * 1440
    seconds = round(start.timestamp()) + 60 * np.arange(minutes, dtype=np.int64)
    local = Calendar("Europe/Berlin").local_seconds(seconds) % 86_400
    shape = 1.5 + np.sin(2 * np.pi * (local / 86_400 - 0.3)) + 0.8 * (local // 3600 % 24 == 9)
    noise = np.exp(np.random.default_rng(5).normal(0, 0.01, minutes))
    history = TrafficHistory("clock", start, 60, 1000 * shape * noise)
    ordinary, _ = rolling(history, changes - timedelta(days=7, hours=-3), 1440, 1, "Europe/Berlin")
    changed, _ = rolling(history, changes + timedelta(hours=3), 1440, 1, "Europe/Berlin")
    assert changed <= 1.1 * ordinary


def test_an_announced_event_is_a_floor_with_its_name() -> None:
    history = weeks()
    launch = Event(
        "launch", history.end - timedelta(minutes=5), history.end + timedelta(hours=1), 2.0
    )
    quiet, eventful = Combined(Calendar()), Combined(Calendar(events=(launch,)))
    fitted = quiet.fit(cut(history, history.end - timedelta(hours=1)), history.end, WINDOWS)
    known = cut(history, history.end - timedelta(minutes=6))
    without = order_of(quiet.predict(fitted, known, known.end))
    announced = order_of(eventful.predict(fitted, known, known.end))
    assert announced.floor_reason == "launch (x2)"
    assert announced.floor_qps == pytest.approx(2 * without.median_qps, rel=0.01)


@pytest.mark.parametrize(
    ("calibration", "factor", "seconds"),
    [
        (Calibration(1e-4, 0.0, headroom=0.5), 1.5, 60),
        (Calibration(1e-4, 0.0, burst_factor=1.1, burst_days=1), 1.1, 86_400),
    ],
)
def test_what_a_calibration_spares_is_a_floor_of_the_order(
    calibration: Calibration, factor: float, seconds: int
) -> None:
    history = weeks()
    model, fitted = fitted_on(history)
    plain = order_of(model.predict(fitted, history, history.end))
    order = order_of(
        combined(Calendar()).predict(replace(fitted, calibration=calibration), history, history.end)
    )
    highest = np.nanmax(history.values[-(seconds // history.step_seconds) :])
    assert order.floor_qps == pytest.approx(factor * highest, rel=1e-6)
    assert order.floor_reason == calibration.spare.reason
    assert order.spare_qps == pytest.approx(order.floor_qps)
    assert (order.median_qps, order.scale) == (plain.median_qps, plain.scale)


def test_a_window_far_ahead_is_weighed_on_its_own() -> None:
    """Members for far windows change nothing for near ones, and speak of what they can."""
    history = weeks(4)
    far = Window("1h", 60, 61)
    near = fitted_on(history)[1]
    model = combined(Calendar())
    both = model.fit(history, history.end, (*WINDOWS, far))
    assert [part.windows for part in both.members[2:]] == [(far,)] * len(model.far_members)
    weights, alone = np.array(both.parameters["weights"]), np.array(near.parameters["weights"])
    assert weights.shape == (2 + len(model.far_members), len(both.members[0].windows))
    assert (weights[:2, 0] == alone[:, 0]).all()
    assert not weights[2:, 0].any()
    assert weights[2:, 2].any()
    assert weights.sum(axis=0) == pytest.approx(1.0)
    said = model.predict(both, history, history.end)
    assert said.windows[:2] == combined(Calendar()).predict(near, history, history.end).windows


def test_a_day_ahead_the_quantile_keeps_its_promise() -> None:
    """The members that know days are tried on the newest weeks alone: the larger errors of those
    that speak before must not count as theirs."""
    trace = real_trace("nyc_taxi_30min")
    step = trace.step_seconds
    window = target_window("1d", 86_400, step, step)
    plan = rolling_origin(trace, [window], (0.95,), max_days=14, max_points=300)
    judged = judge(contender("combined", Calendar()), plan, lambda: 0.0)[0]
    assert judged.score.levels[0].coverage == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize("factor", [2.0, 3.0, 5.0])
def test_one_event_does_not_make_a_day_ahead_explode(factor: float) -> None:
    """What was asked while it lasted errs by the same event, minute after minute."""
    day = (Window("1d", 1440, 1441),)
    rates = weeks(2).values.copy()
    rates[-1200:-600] *= factor
    history = TrafficHistory("surge", MONDAY, 60, rates)
    model = combined(Calendar())
    fitted = model.fit(history.steps(0, len(rates) - 1440), history.end, day)
    for back in range(1200, -1, -100):
        seen = history.steps(0, len(rates) - back)
        (said,) = model.predict(fitted, seen, seen.end).windows
        assert said.at_level(0.95) < 3 * float(np.nanmax(seen.values)), back


def on_and_off(days: int) -> TrafficHistory:
    """Nothing, or all at once for three hours, an hour and four, within a minute of the clock."""
    rng = np.random.default_rng(1)
    rates = np.zeros(days * 1440)
    for day in range(days):
        for first, last in ((120, 300), (600, 660), (960, 1200)):
            start = day * 1440 + rng.integers(-1, 2)
            rates[start + first : start + last] = 100_000.0
    return TrafficHistory("jobs", MONDAY, 60, rates * np.exp(rng.normal(0, 0.02, len(rates))))


def test_growth_from_nothing_is_not_added_to_what_has_begun_early() -> None:
    history = on_and_off(9)
    model = combined(Calendar())
    days = 8 * 1440
    fitted, rehearsal = model.rehearse(history.steps(0, days), history.end, WINDOWS)
    highest = float(history.values.max())
    for end in [
        days + minute for hour in (2, 10, 16) for minute in range(hour * 60 - 6, hour * 60 + 6)
    ]:
        seen = history.steps(0, end)
        order = order_of(model.predict(fitted, seen, seen.end))
        assert max(order.median_qps, order.floor_qps) < 2.01 * highest
        assert order.at_level(0.999) < 3.01 * highest
    rows = rehearsal.window("order")
    assert np.nanmax(rows[:, [0, 2]]) < 2.01 * highest


def test_an_edge_of_a_weekday_is_known_in_the_weeks_that_a_margin_is_found_on() -> None:
    """On the second Tuesday nobody could know it; on the day that the margin is for everybody
    does."""
    minutes = np.arange(23 * 1440)
    doubled = (minutes // 1440 % 7 == 1) & (minutes % 1440 >= 540) & (minutes % 1440 < 600)
    noise = np.random.default_rng(1).normal(0, 0.01, len(minutes))
    rates = np.where(doubled, 2_000.0, 1_000.0) * np.exp(noise)
    history = TrafficHistory("tuesdays", MONDAY, 60, rates)
    _, rehearsal = combined(Calendar()).rehearse(history, history.end, WINDOWS)
    floors = rehearsal.window("order")[:, 2]
    tuesday, wednesday = (
        floors[np.searchsorted(rehearsal.origins, day * 1440 + 537)] for day in (8, 9)
    )
    assert tuesday > 1_900
    assert wednesday < 1_200


def restless(days: int) -> Floats:
    """A day's curve that wanders by two in a hundred for ten minutes: the last value is nearly as
    good as any forecast of it."""
    rng = np.random.default_rng(1)
    minutes = np.arange(days * 1440)
    wander = lfilter([np.sqrt(1 - np.exp(-0.2))], [1, -np.exp(-0.1)], rng.normal(size=len(minutes)))
    curve = 675 + 325 * np.cos((minutes % 1440 / 1440 - 0.625) * 2 * np.pi)
    noise = 0.02 * (wander + 0.5 * rng.normal(size=len(minutes)))
    return np.asarray(curve * np.where(minutes // 1440 % 7 >= 5, 0.8, 1.0) * np.exp(noise))


def test_outages_do_not_cost_a_good_forecast_its_trust() -> None:
    """Nobody foresees a fall to nothing: its size says nothing of the days between."""
    rates = restless(14)
    for hour, minutes in ((83, 40), (159, 20), (202, 40), (256, 60), (300.5, 30)):
        back = round(hour * 60) + minutes
        rates[back - minutes : back] = 0.0
        rates[back : back + 15] *= 1 + 0.6 * np.exp(-np.arange(15) / 5)
    history = on_step(TrafficHistory("outages", MONDAY, 60, rates), 15)
    windows = (Window("order", 13, 15), Window("hold", 0, 15))
    fitted = combined(Calendar()).fit(history, history.end, windows)
    assert fitted.trusted, fitted.skill


def test_traffic_that_never_changes_is_forecast_as_it_is() -> None:
    history = TrafficHistory("constant", MONDAY, 60, np.full(3 * 1440, 100.0))
    model = combined(Calendar())
    windows = (Window("order", 4, 7), Window("hold", 0, 6))
    forecast = model.predict(model.fit(history, history.end, windows), history, history.end)
    for window in forecast.windows:
        assert window.median_qps == pytest.approx(100.0)
        assert window.at_level(0.999) < 103


def test_a_model_stored_before_weights_went_by_window_says_the_same() -> None:
    history = weeks()
    model, fitted = fitted_on(history)
    older = replace(
        fitted,
        parameters={
            **fitted.parameters,
            "weights": np.array(fitted.parameters["weights"])[:, 0].tolist(),
        },
    )
    said = combined(Calendar()).predict(older, history, history.end)
    assert said == model.predict(fitted, history, history.end)


def test_a_model_stored_before_minutes_had_a_part_says_the_same() -> None:
    history = weeks()
    model, fitted = fitted_on(history)
    state = np.array(fitted.parameters["state"])
    assert not state[:, MIX:].any()  # else there is more to say than it could
    older = replace(
        fitted, parameters={**fitted.parameters, "state": state[:, : SHARE + 1].tolist()}
    )
    said = combined(Calendar()).predict(older, history, history.end)
    assert said == model.predict(fitted, history, history.end)


def test_a_job_by_the_clock_widens_the_band_where_it_may_come_and_nowhere_else() -> None:
    """Three minutes of one hour in four bring four times the traffic; which hour, is chance."""
    calm = weeks()
    rng = np.random.Generator(np.random.Philox(key=8))
    minute = np.arange(len(calm)) % 60
    runs = np.repeat(rng.random(len(calm) // 60 + 1) < 0.25, 60)[: len(calm)]
    job = runs & np.isin(minute, (30, 31, 32))
    history = replace(calm, values=np.where(job, 4.0, 1.0) * calm.values)
    model, fitted = fitted_on(history)
    wide = {}
    for ahead in (0, 27):
        known = cut(history, history.end - timedelta(minutes=60 - ahead))
        order = order_of(model.predict(fitted, known, known.end))
        wide[ahead] = order.at_level(0.99) / order.median_qps
    assert wide[27] > 3.0
    assert wide[0] < 1.5


def test_steps_of_an_hour_know_no_minute() -> None:
    """A model that was told by the minute would take its long memory of errors for one."""
    trace = real_trace("appserver_hourly")
    model = combined(Calendar())
    for days in (21, 28):
        known = trace.steps(0, 24 * days)
        fitted = model.fit(known, known.end, (target_window("1d", 86_400, 3_600, 3_600),))
        assert not np.array(fitted.parameters["state"])[:, MIX:].any()


def test_quantiles_keep_their_own_width_however_a_margin_is_measured() -> None:
    history = weeks()
    model, fitted = fitted_on(history)
    steady = replace(fitted, calibration=Calibration(1e-4, 2.0, steady=True))
    present = order_of(model.predict(fitted, history, history.end))
    mean = order_of(model.predict(steady, history, history.end))
    assert mean.scale != present.scale
    assert mean.quantiles == present.quantiles
