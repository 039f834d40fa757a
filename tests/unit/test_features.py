"""Features: what is seen from an origin, and that nothing later is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from forecaster.calendar import Calendar
from forecaster.demand import Demand, Ints, demand_of
from forecaster.features import MIN_EDGE_DAYS, PAST_DAYS, Layout, Seen, layout_for, seen_from
from forecaster.forecast import Window
from forecaster.history import Floats, TrafficHistory
from tests.traffic import MONDAY, weeks

BERLIN = Calendar("Europe/Berlin", country="DE")
STEPS = (15, 60, 300)


def windows_at(step: int) -> tuple[Window, ...]:
    """Order and hold of a lead time of 195 s, and the hold of a decision in an hour."""
    last, hour = 210 // step + 2, 3600 // step
    return (
        Window("order", 195 // step, last),
        Window("hold", 0, last),
        Window("hold in an hour", hour, hour + last),
    )


def rough(step: int, days: int = 16, seed: int = 3) -> Demand:
    """Weeks of a service with noise on every step and a gap here and there."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    count = days * 86_400 // step
    day = np.sin(2 * np.pi * np.arange(count) * step / 86_400)
    logs = 8.0 + day + 0.1 * rng.standard_normal(count)
    logs[rng.random(count) < 0.02] = np.nan
    logs[count // 2 : count // 2 + 7200 // step] = np.nan
    history = TrafficHistory("rough", MONDAY, step, np.exp(logs))
    return demand_of(history, BERLIN)


def by_clock(calendar: Calendar, start: datetime, days: int) -> Demand:
    """The log rate of each minute is the minute of the day on the wall clock of Berlin."""
    history = TrafficHistory("clock", start, 60, np.ones(days * 1440))
    local = BERLIN.local_seconds(history.epoch_seconds())
    demand = demand_of(history, calendar)
    return replace(demand, logs=(local % 86_400 / 60).astype(np.float64))


def same(one: Seen, other: Seen) -> bool:
    """Bit for bit, a gap being a gap in both."""
    return all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)
        for name in ("level", "features", "edges")
    )


def seen_at(demand: Demand, origins: Ints | list[int]) -> Seen:
    layout = layout_for(demand.step_seconds, windows_at(demand.step_seconds))
    return seen_from(demand, layout, np.array(origins, dtype=np.int64))


def with_logs(demand: Demand, logs: Floats) -> Demand:
    return replace(demand, logs=logs)


def past(layout: Layout, day: int) -> int:
    """The column of the level at this clock so many days ago."""
    return layout.recent + 2 * int(np.flatnonzero(day == PAST_DAYS)[0])


@pytest.mark.parametrize("step", STEPS)
def test_nothing_at_or_after_an_origin_is_looked_at(step: int) -> None:
    demand = rough(step)
    rng = np.random.Generator(np.random.Philox(key=9))
    for origin in rng.integers(1, len(demand), 60):
        before = seen_at(demand, [origin])
        for later in (np.nan, -30.0, rng.normal(8.0, 3.0, len(demand) - origin)):
            logs = demand.logs.copy()
            logs[origin:] = later
            assert same(before, seen_at(with_logs(demand, logs), [origin]))


@pytest.mark.parametrize("step", STEPS)
def test_the_newest_known_step_is_looked_at(step: int) -> None:
    """Else the test above would pass for features that see nothing."""
    demand = rough(step)
    origin = 10 * 86_400 // step
    logs = demand.logs.copy()
    logs[origin - 1] = 12.0
    assert not same(seen_at(demand, [origin]), seen_at(with_logs(demand, logs), [origin]))


@pytest.mark.parametrize("step", STEPS)
def test_many_origins_at_once_are_the_same_bits_as_one_by_one(step: int) -> None:
    demand = rough(step)
    origins = np.arange(1, len(demand), 977, dtype=np.int64)
    together = seen_at(demand, origins)
    for row, origin in enumerate(origins.tolist()):
        alone = seen_at(demand.before(origin), [origin])
        part = (together.level[[row]], together.features[[row]], together.edges[[row]])
        assert same(alone, Seen(alone.layout, *part))


@pytest.mark.parametrize(
    ("change", "start"),
    [
        (datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 3, 10, tzinfo=UTC)),
        (datetime(2026, 10, 25, tzinfo=UTC), datetime(2026, 10, 6, tzinfo=UTC)),
    ],
)
def test_after_a_clock_change_past_days_are_those_of_the_same_wall_clock(
    change: datetime, start: datetime
) -> None:
    demand = by_clock(BERLIN, start, 22)
    first = round((change + timedelta(hours=3) - start).total_seconds() / 60)
    for ahead in (0, 1):  # the day of the change after it, and the day after that
        origins = np.arange(first + ahead * 1440, first + ahead * 1440 + 1200)
        # For an hour at the change itself two clocks, or none, are meant.
        origins = origins[demand.local[origins - 1] % 86_400 // 3600 != 2]
        seen = seen_at(demand, origins)
        settled = demand.logs[origins - 1] > 30  # the newest minute may reach across midnight
        for day in (1, 2, 3, 7, 14):
            off = seen.features[settled, past(seen.layout, day)]
            assert np.abs(off).max() == 0.0, (ahead, day)


def test_without_the_time_zone_past_days_would_be_an_hour_off() -> None:
    start = datetime(2026, 3, 10, tzinfo=UTC)
    demand = by_clock(Calendar(), start, 22)
    origin = round((datetime(2026, 3, 29, 12, tzinfo=UTC) - start).total_seconds() / 60)
    seen = seen_at(demand, [origin])
    assert seen.features[0, past(seen.layout, 1)] == -60.0


def test_growth_of_a_past_day_is_what_came_after_the_same_clock() -> None:
    """A step up at noon: seen from 11:58, minutes 3 and 4 ahead stood 1.0 above on past days."""
    logs = np.where(np.arange(8 * 1440) % 1440 >= 720, 1.0, 0.0)
    history = TrafficHistory("edge", MONDAY, 60, np.ones(len(logs)))
    demand = with_logs(demand_of(history, Calendar()), logs)
    origin = 7 * 1440 + 718
    seen = seen_at(demand, [origin])
    columns = seen.layout.columns(0)[seen.layout.common :]
    growths = seen.features[0, columns]
    # Days 1, 2, 3 and 7 ago; 14 days ago there is nothing; then mean and highest of the day type.
    assert growths.tolist() == pytest.approx([1.0, 1.0, 1.0, 1.0, np.nan, 1.0, 1.0], nan_ok=True)
    growth, low, spread, days, *weekly = seen.edges[0]
    assert (growth, low, spread) == (1.0, 1.0, 0.0)
    assert days >= MIN_EDGE_DAYS
    assert np.isnan(weekly).all()  # one week is no rule


def test_a_past_window_that_has_not_ended_teaches_nothing() -> None:
    demand = rough(3600, days=16)
    window = Window("order", 20, 30)  # of hours: it ends after the same clock of the next day
    layout = layout_for(3600, (window,))
    seen = seen_from(demand, layout, np.array([15 * 24]))
    yesterday, day_before = seen.features[0, layout.columns(0)[layout.common :]][:2]
    assert np.isnan(yesterday)
    assert np.isfinite(day_before)


def test_gaps_stay_gaps_where_a_feature_stands_on_them_alone() -> None:
    demand = rough(15)
    origin = 10 * 86_400 // 15
    whole = demand.logs.copy()
    whole[np.isnan(whole)] = 8.0
    base = seen_at(with_logs(demand, whole), [origin])

    one_step = whole.copy()
    one_step[origin - 2] = np.nan
    seen = seen_at(with_logs(demand, one_step), [origin])
    assert np.isfinite(seen.level[0])
    assert np.isfinite(seen.features).all() == np.isfinite(base.features).all()

    minute_ago = whole.copy()
    minute_ago[origin - 8 : origin - 4] = np.nan  # the first lag: one minute before the newest
    seen = seen_at(with_logs(demand, minute_ago), [origin])
    assert np.isnan(seen.features[0, 0])
    assert np.isfinite(seen.features[0, 1])


def test_the_level_is_that_of_the_newest_minute_known_within_four() -> None:
    demand = rough(15)
    origin = 10 * 86_400 // 15
    logs = np.full(len(demand), 8.0)
    logs[origin - 16 : origin - 12] = 7.0
    logs[origin - 12 : origin] = np.nan
    assert seen_at(with_logs(demand, logs), [origin]).level[0] == 7.0
    logs[origin - 16 : origin] = np.nan
    assert np.isnan(seen_at(with_logs(demand, logs), [origin]).level[0])


def test_a_factor_on_all_demand_changes_only_its_level() -> None:
    """Differences of logs: what was learned at one size holds at any other."""
    history = weeks(2)
    larger = replace(history, values=history.values * 1000.0)
    origins = [5_000, 12_345, 20_000]
    one, other = (seen_at(demand_of(each, Calendar()), origins) for each in (history, larger))
    level = one.layout.recent - 1
    others = np.delete(np.arange(one.layout.width), level)
    np.testing.assert_allclose(one.features[:, others], other.features[:, others], atol=1e-9)
    assert other.level - one.level == pytest.approx(np.log(1000.0))
