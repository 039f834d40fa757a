"""Cron: the clock through the HPA, and the clock as a floor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from policies.context import ScalingContext
from policies.engine import decide
from policies.schedule import Schedule
from tests.situations import decided_before, settings, situation

FRIDAY = datetime(2026, 3, 20, tzinfo=UTC)
SHIFTED = Schedule("0 8 * * 1-5", "0 18 * * *", 24)
WORKDAYS = Schedule("0 8 * * 1-5", "0 18 * * 1-5", 24)
HOURS = (12, 24 + 12, 24 + 20, 48 + 12, 48 + 20, 72 + 9)
"""Friday 12:00, Saturday 12:00 and 20:00, Sunday 12:00 and 20:00, Monday 09:00."""


def scheduled(
    name: str,
    current: int,
    demand: float | None,
    *schedules: Schedule,
    parameters: Mapping[str, float] | None = None,
) -> ScalingContext:
    policy = replace(settings(name, parameters=parameters), schedules=schedules)
    return replace(situation(current, demand, policy=policy), now=FRIDAY + timedelta(hours=12))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (SHIFTED, [True, True, True, True, False, True]),
        (WORKDAYS, [True, False, False, False, False, True]),
    ],
    ids=["different weekdays stretch the span", "the same weekdays"],
)
def test_covered_hours(schedule: Schedule, expected: list[bool]) -> None:
    assert [schedule.covers(FRIDAY + timedelta(hours=hour)) for hour in HOURS] == expected


@pytest.mark.parametrize(
    ("wanted", "current", "expected"),
    [(24, 22, 22), (24, 21, 24), (89, 88, 88), (45, 49, 49), (45, 50, 50)],
)
def test_the_tolerance_eats_a_tenth_of_a_schedule(wanted: int, current: int, expected: int) -> None:
    schedule = replace(WORKDAYS, replicas=wanted)
    assert decide(scheduled("cron", current, None, schedule)).desired == expected


def test_outside_it_asks_for_none_and_the_minimum_bounds_it() -> None:
    context = scheduled("cron", 24, None, Schedule("0 20 * * *", "0 22 * * *", 24))
    decision = decide(context)
    assert (decision.recommended, decision.desired) == (0, 1)


def test_the_largest_of_several_and_of_a_second_trigger() -> None:
    more = Schedule("0 11 * * *", "0 13 * * *", 40)
    assert decide(scheduled("cron", 30, None, WORKDAYS, more)).desired == 40
    context = scheduled("cron", 30, 50_000.0, WORKDAYS, parameters={"targetQps": 1_000.0})
    assert decide(context).desired == 50


@pytest.mark.parametrize(
    ("current", "demand", "expected"), [(22, 5_000.0, 24), (23, 30_000.0, 30), (24, None, 24)]
)
def test_the_floor_is_kept_to_the_replica(
    current: int, demand: float | None, expected: int
) -> None:
    parameters = {"targetQps": 1_000.0}
    context = scheduled("cron_floor", current, demand, WORKDAYS, parameters=parameters)
    assert decide(context).desired == expected


def test_a_floor_that_ended_leaves_nothing_behind() -> None:
    """What the schedule raised is not what the policy asked for."""
    parameters = {"targetQps": 1_000.0}
    ended = scheduled("cron_floor", 24, 5_000.0, WORKDAYS, parameters=parameters)
    ended = replace(ended, now=FRIDAY + timedelta(hours=18))
    assert decide(decided_before(ended, {15: 5, 30: 5})).desired == 5


def test_without_a_schedule_it_says_so() -> None:
    with pytest.raises(ValueError, match="cron needs at least one schedule"):
        decide(scheduled("cron", 3, None))
