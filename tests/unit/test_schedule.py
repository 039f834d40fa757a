"""Cron lines and schedules, with the odd days of a time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from policies.schedule import Schedule, next_firing, parse_cron

BERLIN = ZoneInfo("Europe/Berlin")
UTC_ZONE = ZoneInfo("UTC")


def firings(line: str, zone: str, start: datetime, count: int) -> list[str]:
    found, at = [], start
    for _ in range(count):
        at = next_firing(parse_cron(line), ZoneInfo(zone), at)
        found.append(at.strftime("%d %H:%M"))
    return found


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("30 8 * * *", ["17 08:30", "18 08:30"]),
        ("*/20 12 * * *", ["16 12:20", "16 12:40"]),
        ("10/25 * * * *", ["16 12:10", "16 12:35"]),
        ("0 8,18 * * mon-fri", ["16 18:00", "17 08:00"]),
        ("0 0 * * 7", ["22 00:00", "29 00:00"]),
        ("0 0 18 * sun", ["18 00:00", "22 00:00"]),  # either day field suffices
        ("0 0 1 APR *", ["01 00:00", "01 00:00"]),
        ("5-7 12 * * *", ["16 12:05", "16 12:06"]),
    ],
)
def test_firings(line: str, expected: list[str]) -> None:
    monday_noon = datetime(2026, 3, 16, 12, tzinfo=UTC)
    assert firings(line, "UTC", monday_noon, 2) == expected


def test_a_firing_is_strictly_later() -> None:
    at = datetime(2026, 3, 16, 8, tzinfo=UTC)
    assert next_firing(parse_cron("0 8 * * *"), UTC_ZONE, at) == at + timedelta(days=1)


def test_a_29_february_may_be_eight_years_away() -> None:
    at = datetime(2096, 3, 1, tzinfo=UTC)
    assert next_firing(parse_cron("0 0 29 2 *"), UTC_ZONE, at).year == 2104


def test_a_time_that_summer_time_skips_does_not_fire() -> None:
    before = datetime(2026, 3, 28, 12, tzinfo=UTC)
    assert firings("30 2 * * *", "Europe/Berlin", before, 1) == ["30 00:30"]


def test_a_time_that_occurs_twice_fires_twice() -> None:
    before = datetime(2026, 10, 24, 12, tzinfo=UTC)
    expected = ["25 00:30", "25 01:30", "26 01:30"]
    assert firings("30 2 * * *", "Europe/Berlin", before, 3) == expected


def test_a_schedule_follows_the_clock_into_summer() -> None:
    schedule = Schedule("0 8 * * *", "0 18 * * *", 10, "Europe/Berlin")
    winter, summer = datetime(2026, 3, 28, tzinfo=UTC), datetime(2026, 3, 30, tzinfo=UTC)
    for day, first in ((winter, 7), (summer, 6)):
        inside = [h for h in range(24) if schedule.covers(day + timedelta(hours=h))]
        assert inside == list(range(first, first + 10))


def test_a_start_and_an_end_at_the_same_moment_cover_everything() -> None:
    schedule = Schedule("0 8 * * *", "0 8 * * *", 10)
    assert all(schedule.covers(datetime(2026, 3, 16, hour, tzinfo=UTC)) for hour in range(24))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("0 8 * *", "0 18 * * *", 1), "needs 5 fields"),
        (("0 24 * * *", "0 18 * * *", 1), "'24' is not within 0-23"),
        (("0 8 * * *", "0 18 * * caturday", 1), "cron line '0 18"),
        (("*/0 8 * * *", "0 18 * * *", 1), "'\\*/0' is not within"),
        (("0 8 * * *", "0 18 * * *", -1), "must not be negative, got -1"),
        (("0 8 * * *", "0 18 * * *", 1, "Mars/Olympus"), "'Mars/Olympus' is not a time zone"),
    ],
)
def test_what_is_no_schedule_is_refused(arguments: tuple[str, str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Schedule(*arguments)


def test_a_line_that_never_fires_says_so() -> None:
    with pytest.raises(ValueError, match="never fires"):
        next_firing(parse_cron("0 0 30 2 *"), BERLIN, datetime(2026, 3, 1, tzinfo=UTC))
