"""Memory: followed from tick to tick it says what one that is begun anew says."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policies.context import PastDecision, ReplicaChange
from scaler.memory import Memory

START = datetime(2026, 3, 2, tzinfo=UTC)
INTERVAL = timedelta(seconds=15)

seldom_changed = st.lists(st.sampled_from([3, 3, 3, 4, 5]), max_size=60)
clocks = st.lists(st.integers(-40, 40), min_size=60, max_size=60)


def decision(at: datetime, current: int) -> PastDecision:
    return PastDecision(at, current, current, current)


def moved(offsets: dict[int, int]) -> list[int]:
    """A clock that is right but at some ticks, in intervals."""
    return [offsets.get(tick, 0) for tick in range(60)]


def changes_among(
    recent: Sequence[PastDecision], current: int, now: datetime
) -> tuple[ReplicaChange, ...]:
    """From the definition, over all of them."""
    found = [*((past.at, past.current) for past in recent), (now, current)]
    return tuple(
        ReplicaChange(at, before, to) for (_, before), (at, to) in pairwise(found) if to != before
    )


@given(seldom_changed, st.integers(1, 20), st.integers(1, 4))
def test_what_was_followed_equals_what_is_begun_anew(
    currents: list[int], remembered: int, at_once: int
) -> None:
    log = [decision(START + n * INTERVAL, current) for n, current in enumerate(currents)]
    memory = Memory()
    for count in range(0, len(log), at_once):
        recent, now = log[max(0, count - remembered) : count], START + count * INTERVAL
        memory.follow(recent)
        current = log[count].current
        assert memory.changes(current, now) == changes_among(recent, current, now)
        assert memory.newest == (recent[-1].at if recent else None)


@given(seldom_changed, clocks)
@example(16 * [3] + [4, 3, 3], moved({2: 6, 16: 13, 18: 10}))
@example(15 * [3], moved({10: 5, 12: -1}))
def test_a_clock_that_is_set_forward_and_back_changes_nothing_of_it(
    currents: list[int], offsets: list[int]
) -> None:
    """As the loop follows a log while its clock runs wild: rows in the order of the log, those of
    the last five minutes, and of these only what has passed."""
    log: list[PastDecision] = []
    memory = Memory()
    for count, (current, offset) in enumerate(zip(currents, offsets, strict=False)):
        now = START + (count + offset) * INTERVAL
        recent = [past for past in log if past.at >= now - timedelta(minutes=5)]
        memory.follow(recent)
        if recent:
            assert memory.newest is not None
            assert (memory.newest > now) == any(past.at > now for past in recent)
        passed = [past for past in recent if past.at <= now]
        memory.follow(passed)
        assert memory.changes(current, now) == changes_among(passed, current, now)
        log.append(decision(now, current))


LOG = [decision(START + n * INTERVAL, 3 + n // 2) for n in range(6)]


@pytest.mark.parametrize("other", [[], [decision(START, 9)], [decision(START, 9), *LOG[4:]]])
def test_another_log_is_begun_anew(other: list[PastDecision]) -> None:
    memory, now = Memory(), LOG[-1].at + INTERVAL
    for log in (LOG, other, LOG):
        memory.follow(log)
        assert memory.changes(5, now) == changes_among(log, 5, now)
        assert memory.newest == (log[-1].at if log else None)
