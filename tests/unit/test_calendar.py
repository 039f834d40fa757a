"""The calendar: the clock's odd days, days off by country, and what events are expected to do."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from time import perf_counter
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from forecaster.calendar import DAY_SECONDS, WEEK_SECONDS, Calendar, Event, event_factor
from forecaster.history import TrafficHistory

HOUR = 3600


def seconds(start: datetime, end: datetime, step: int = HOUR) -> np.ndarray:
    return np.arange(round(start.timestamp()), round(end.timestamp()), step, dtype=np.int64)


def day_type(calendar: Calendar, day: date) -> int:
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=ZoneInfo(calendar.time_zone))
    at = np.array([round(noon.timestamp())])
    return int(calendar.day_types(calendar.local_seconds(at))[0])


@pytest.mark.parametrize(
    ("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 6, 1), 24)]
)
def test_a_day_of_the_wall_clock_has_its_own_length(day: date, hours: int) -> None:
    berlin = Calendar("Europe/Berlin")
    start = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo("Europe/Berlin"))
    end = start + timedelta(days=1)  # of the wall clock
    around = seconds(start - timedelta(hours=3), end + timedelta(hours=3))
    local = berlin.local_seconds(around)
    first = (day - date(1970, 1, 5)).days * DAY_SECONDS
    assert ((local >= first) & (local < first + DAY_SECONDS)).sum() == hours
    assert local[around == round(start.timestamp())] == first


def test_the_skipped_hour_is_missing_and_the_repeated_one_comes_twice() -> None:
    berlin = Calendar("Europe/Berlin")
    spring = berlin.local_seconds(
        seconds(datetime(2026, 3, 29, 0, tzinfo=UTC), datetime(2026, 3, 29, 3, tzinfo=UTC))
    )
    autumn = berlin.local_seconds(
        seconds(datetime(2026, 10, 24, 23, tzinfo=UTC), datetime(2026, 10, 25, 3, tzinfo=UTC))
    )
    assert (spring % DAY_SECONDS // HOUR).tolist() == [1, 3, 4]
    assert (autumn % DAY_SECONDS // HOUR).tolist() == [1, 2, 2, 3]


def test_utc_counts_from_a_monday() -> None:
    monday = round(datetime(2026, 3, 2, tzinfo=UTC).timestamp())
    assert Calendar().local_seconds(np.array([monday]))[0] % WEEK_SECONDS == 0


@pytest.mark.parametrize(
    ("country", "subdivision", "day", "expected"),
    [
        (None, None, date(2026, 5, 1), 0),  # a Friday
        (None, None, date(2026, 5, 2), 1),
        ("DE", None, date(2026, 5, 1), 1),
        ("DE", None, date(2026, 1, 6), 0),
        ("DE", "BY", date(2026, 1, 6), 1),  # Epiphany
        ("SA", None, date(2026, 11, 6), 1),  # a Friday
        ("SA", None, date(2026, 11, 8), 0),  # a Sunday
        ("BN", None, date(2026, 11, 7), 0),  # Saturday, between two days off
        ("AE", None, date(2021, 11, 5), 1),  # the weekend was moved in 2022
        ("AE", None, date(2026, 11, 5), 0),
        ("CN", None, date(2026, 2, 14), 0),  # a Saturday worked for the New Year's week
        ("CN", None, date(2026, 2, 17), 1),
        ("US", None, date(2026, 11, 26), 1),
    ],
)
def test_days_off_follow_the_country(
    country: str | None, subdivision: str | None, day: date, expected: int
) -> None:
    assert day_type(Calendar("UTC", country, subdivision), day) == expected


@pytest.mark.parametrize(
    ("calendar", "year"),
    [
        (Calendar(country="XX"), 2026),
        (Calendar(country="DE"), 1985),
        (Calendar(country="JP"), 2150),
    ],
)
def test_what_is_not_known_is_an_ordinary_week(calendar: Calendar, year: int) -> None:
    days = [date(year, 1, 1) + timedelta(days=number) for number in range(365)]
    weekends = [int(day.weekday() >= 5) for day in days]
    assert [day_type(calendar, day) for day in days] == weekends


def test_extra_days_off_count_in_their_own_year_only() -> None:
    calendar = Calendar(extra_days_off=(date(2026, 12, 24),))
    assert day_type(calendar, date(2026, 12, 24)) == 1
    assert day_type(calendar, date(2026, 12, 23)) == 0
    assert day_type(calendar, date(2025, 12, 24)) == 0
    assert day_type(Calendar(), date(2026, 12, 24)) == 0


def test_a_day_off_begins_at_local_midnight_and_spans_the_turn_of_the_year() -> None:
    calendar = Calendar("America/New_York", "US")
    at = seconds(datetime(2025, 12, 31, 4, tzinfo=UTC), datetime(2026, 1, 2, 6, tzinfo=UTC))
    types = calendar.day_types(calendar.local_seconds(at))
    assert types.tolist() == [0] * 25 + [1] * 24 + [0]


def test_no_time_has_no_day_type() -> None:
    assert len(Calendar().day_types(np.zeros(0, dtype=np.int64))) == 0


def test_four_weeks_of_15_s_steps_take_milliseconds() -> None:
    calendar = Calendar("Europe/Berlin", "DE", "BY")
    at = seconds(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 29, tzinfo=UTC), 15)
    calendar.day_types(calendar.local_seconds(at))
    best = min(_timed(calendar, at) for _ in range(5))
    assert best < 0.05


def _timed(calendar: Calendar, at: np.ndarray) -> float:
    begun = perf_counter()
    calendar.day_types(calendar.local_seconds(at))
    return perf_counter() - begun


KICK_OFF = datetime(2026, 7, 19, 19, tzinfo=UTC)
MATCH = Event("final", KICK_OFF, KICK_OFF + timedelta(hours=2), factor=3.0)
LOAD_TEST = Event(
    "load test",
    KICK_OFF - timedelta(hours=12),
    KICK_OFF - timedelta(hours=11),
    ignore_history=True,
)
CLOSED = Event("closed", KICK_OFF + timedelta(hours=5), KICK_OFF + timedelta(hours=9), factor=0.25)
CALENDAR = Calendar(events=(MATCH, LOAD_TEST, CLOSED))


def hours(start: datetime, values: list[float]) -> TrafficHistory:
    return TrafficHistory("qps", start, HOUR, np.array(values))


@pytest.mark.parametrize(
    ("from_hour", "to_hour", "expected"),
    [
        (-3, 0, 1.0),  # ends where the event begins
        (-3, 0.1, 3.0),
        (1, 1.5, 3.0),
        (1.9, 4, 3.0),
        (2, 4, 1.0),
        (-12, -11.5, 1.0),  # a load test asks for nothing
        (6, 7, 0.25),
        (4, 7, 1.0),  # ordinary demand comes back within the window
        (0, 7, 3.0),
    ],
)
def test_the_factor_of_a_window_is_the_highest_within_it(
    from_hour: float, to_hour: float, expected: float
) -> None:
    starts_at, ends_at = (KICK_OFF + timedelta(hours=hour) for hour in (from_hour, to_hour))
    assert event_factor(CALENDAR, starts_at, ends_at) == expected


def test_the_strongest_event_is_named() -> None:
    found = CALENDAR.strongest_event(KICK_OFF, KICK_OFF + timedelta(hours=7))
    assert found is MATCH
    assert Calendar().strongest_event(KICK_OFF, KICK_OFF + timedelta(hours=7)) is None


def test_effects_hold_from_start_to_end() -> None:
    at = seconds(KICK_OFF - timedelta(hours=1), KICK_OFF + timedelta(hours=3))
    assert CALENDAR.effect(at).tolist() == [1, 3, 3, 1]


def test_every_step_that_an_event_touches_is_a_gap() -> None:
    history = hours(KICK_OFF - timedelta(hours=12, minutes=30), [1, 2, 3, 4])
    assert np.isnan(CALENDAR.masked(history).values).tolist() == [True, True, False, False]
    during = hours(KICK_OFF - timedelta(hours=1), [1, 3, 3, 1])
    assert np.isnan(CALENDAR.masked(during).values).tolist() == [False, True, True, False]
    assert history.values.tolist() == [1, 2, 3, 4]


def test_an_expected_effect_is_taken_out_and_put_back_once() -> None:
    during = hours(KICK_OFF - timedelta(hours=1), [100, 330, 330, 100])
    plain = CALENDAR.without_effects(during)
    assert plain.values.tolist() == [100, 110, 110, 100]
    ignored = CALENDAR.without_effects(hours(KICK_OFF - timedelta(hours=12), [9, 1]))
    assert np.isnan(ignored.values).tolist() == [True, False]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"ends_at": KICK_OFF}, "must come after its start"),
        ({"factor": 0.0}, "factor must be above 0, got 0"),
        ({"factor": -2.0}, "factor must be above 0"),
        ({"factor": float("nan")}, "factor must be above 0"),
        ({"factor": 2.0, "ignore_history": True}, "exactly one of factor and ignoreHistory"),
        ({"factor": None}, "exactly one of factor and ignoreHistory"),
        ({"starts_at": datetime(2026, 7, 19)}, "need a time zone"),  # noqa: DTZ001
    ],
)
def test_events_that_make_no_sense_are_refused(change: dict[str, object], expected: str) -> None:
    given = {
        "name": "final",
        "starts_at": KICK_OFF,
        "ends_at": KICK_OFF + timedelta(hours=2),
        "factor": 3.0,
    }
    with pytest.raises(ValueError, match=expected):
        Event(**{**given, **change})  # type: ignore[arg-type]


def test_equal_calendars_are_one_key() -> None:
    again = Calendar(events=(MATCH, LOAD_TEST, CLOSED))
    assert {CALENDAR: 1}[again] == 1
