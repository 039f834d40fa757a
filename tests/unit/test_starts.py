"""Starts: which of them count, and when they say something."""

from __future__ import annotations

from datetime import timedelta

import pytest

from policies.context import LeadTime
from scaler.starts import FEWEST, LONGEST_SECONDS, Starts
from tests.traffic import MONDAY

NOW = MONDAY + timedelta(days=3)


def started(*seconds: float) -> Starts:
    starts = Starts()
    for number, took in enumerate(seconds):
        starts.note(number, NOW - timedelta(hours=1), took)
    return starts


def test_percentiles_and_how_many_they_stand_on() -> None:
    seconds = [float(took) for took in range(100, 201)]
    assert started(*seconds).lead_time(NOW) == LeadTime(150.0, 195.0, 0.0, "measured on 101 pods")


def test_too_few_say_nothing() -> None:
    assert started(*[60.0] * (FEWEST - 1)).lead_time(NOW) is None
    assert started(*[60.0] * FEWEST).lead_time(NOW) is not None
    assert started(*[60.0] * 5).lead_time(NOW, fewest=5) is not None


def test_a_pod_that_becomes_ready_again_has_not_started_again() -> None:
    starts = started(*[60.0] * FEWEST)
    for number in range(FEWEST):
        starts.note(number, NOW - timedelta(hours=1), 3000.0)
    found = starts.lead_time(NOW)
    assert found is not None
    assert found.p95_seconds == 60.0


def test_what_took_longer_than_an_hour_was_no_start() -> None:
    starts = started(*[60.0] * FEWEST, *[LONGEST_SECONDS + 1.0] * FEWEST)
    found = starts.lead_time(NOW)
    assert found is not None
    assert (found.p95_seconds, found.source) == (60.0, f"measured on {FEWEST} pods")


def test_a_week_later_they_are_forgotten() -> None:
    starts = started(*[60.0] * FEWEST)
    assert starts.lead_time(NOW + timedelta(days=6)) is not None
    assert starts.lead_time(NOW + timedelta(days=7)) is None
    assert 0 not in starts


@pytest.mark.parametrize(("slow", "p95"), [(0, 60.0), (1, 87.0), (2, 600.0)])
def test_the_bad_luck_of_one_pod_in_twenty_is_not_the_p95(slow: int, p95: float) -> None:
    found = started(*[60.0] * (20 - slow), *[600.0] * slow).lead_time(NOW)
    assert found is not None
    assert found.p95_seconds == pytest.approx(p95)
