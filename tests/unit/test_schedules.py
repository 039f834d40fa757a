"""Schedules that are read off a history."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from forecaster.history import TrafficHistory
from simulator.schedules import hourly_schedules
from tests.traffic import MONDAY


def a_week() -> TrafficHistory:
    """Rates rise by the hour on working days, and are 10 on the weekend but for Sunday's last."""
    minutes = np.arange(7 * 1440)
    hour, day = minutes // 60 % 24, minutes // 1440
    rates = np.where(day < 5, 100.0 * (hour + 1), 10.0)
    rates[-60:] = 950.0
    return TrafficHistory("week", MONDAY, 60, rates)


@pytest.mark.parametrize(
    ("day", "hour", "replicas"),
    [
        (0, 0, 1),
        (0, 9, 10),
        (3, 23, 24),
        (4, 23, 24),
        (5, 0, 1),
        (5, 23, 10),
        (6, 12, 1),
        (6, 23, 10),
        (7, 0, 1),
    ],
)
def test_one_schedule_covers_each_hour_of_the_week(day: int, hour: int, replicas: int) -> None:
    found = hourly_schedules(a_week(), 100.0)
    for minute in (0, 30, 59):
        at = MONDAY + timedelta(days=day, hours=hour, minutes=minute)
        assert [each.replicas for each in found if each.covers(at)] == [replicas]


def test_an_hour_that_was_never_seen_takes_the_highest_rate() -> None:
    morning = TrafficHistory("morning", MONDAY, 60, np.full(60, 250.0))
    assert {each.replicas for each in hourly_schedules(morning, 100.0)} == {3}


def test_a_history_without_traffic_suggests_nothing() -> None:
    empty = TrafficHistory("empty", MONDAY, 60, np.full(60, np.nan))
    with pytest.raises(ValueError, match="history with traffic"):
        hourly_schedules(empty, 100.0)
