"""A workload that waits for a network holds up no other, and one that hangs is found out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest
import structlog

from scaler.clock import SystemClock
from scaler.daemon import Daemon
from scaler.loop import ControlLoop
from scaler.ports import TargetError
from scaler.rounds import Job, Rounds

INTERVAL, ENOUGH = 0.1, 6


class Waiting:
    """As much of a loop as a round calls: every tick waits for the event, and then fails."""

    def __init__(self, event: threading.Event) -> None:
        self.event = event
        self.ticks = 0

    def tick(self, _: datetime) -> Any:
        self.ticks += 1
        assert self.event.wait(30)
        raise TargetError("nothing to see")

    def catch_up(self, _: datetime) -> None:
        """It has no history."""

    def refit_due(self, *_: object) -> bool:
        return False


def set_event() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@pytest.fixture
def slow() -> Iterator[Waiting]:
    loop = Waiting(threading.Event())
    yield loop
    loop.event.set()


def test_a_slow_workload_is_left_out_of_rounds_and_delays_no_other(slow: Waiting) -> None:
    healthy, skipped, enough = Waiting(set_event()), list[str](), threading.Event()
    loops = cast("dict[str, ControlLoop]", {"slow": slow, "healthy": healthy})

    def after_tick(*_: object) -> None:
        if healthy.ticks >= ENOUGH:
            enough.set()

    rounds = Rounds(loops, after_tick, workers=2, after_skip=skipped.append)
    running = Daemon(rounds, rounds.jobs(INTERVAL, 60.0), SystemClock())

    def stop_after_enough() -> None:
        heard.append(enough.wait(20))
        slow.event.set()
        running.stop()

    heard: list[bool] = []
    threading.Thread(target=stop_after_enough).start()
    with structlog.testing.capture_logs() as logs:
        assert running.run()
    assert heard == [True]
    assert slow.ticks == 1
    assert skipped.count("slow") >= ENOUGH - 2
    assert "control slow" in [line.get("job") for line in logs]


def test_a_tick_without_an_end_is_found_out(slow: Waiting) -> None:
    seconds = [0.0]
    loops = cast("dict[str, ControlLoop]", {"slow": slow, "healthy": Waiting(set_event())})
    rounds = Rounds(loops, workers=2, stopwatch=lambda: seconds[0])
    round_of_all = threading.Thread(target=rounds.decide_all, args=(SystemClock().now(),))
    round_of_all.start()
    while "healthy" in rounds._begun or not slow.ticks:
        round_of_all.join(0.01)
    seconds[0] = 100.0
    rounds._decide(SystemClock().now(), "healthy")
    assert rounds.stuck(120.0) == []
    seconds[0] = 130.0
    assert rounds.stuck(120.0) == ["slow"]
    slow.event.set()
    round_of_all.join()
    assert rounds.stuck(120.0) == []
    seconds[0] = 251.0
    assert rounds.stuck(120.0) == ["slow", "healthy"], "the scheduler no longer starts any"


class Asked(Waiting):
    """Counts all that is asked of it."""

    def catch_up(self, _: datetime) -> None:
        self.ticks += 1

    def refit_due(self, *_: object) -> bool:
        self.ticks += 1
        return False


def test_who_stands_by_does_nothing_and_is_not_stuck() -> None:
    loop, led, seconds = Asked(set_event()), False, 0.0
    loops = cast("dict[str, ControlLoop]", {"one": loop})
    rounds = Rounds(loops, stopwatch=lambda: seconds, leads=lambda: led)
    at = datetime(2026, 3, 2, tzinfo=UTC)
    for _ in range(3):
        seconds += 100.0
        rounds.catch_up(at)
        rounds.refit_due(60.0, at)
        rounds.decide_all(at)
        assert rounds.stuck(120.0) == []
    assert loop.ticks == 0
    led = True
    seconds += 100.0
    assert rounds.stuck(120.0) == []
    rounds.catch_up(at)
    rounds.refit_due(60.0, at)
    rounds.decide_all(at)
    assert loop.ticks == 3


def test_jobs_that_begin_anew_run_at_once_and_in_their_order() -> None:
    """Though they are due in an hour."""
    ran: list[str] = []
    second = threading.Event()

    def later(_: datetime) -> None:
        ran.append("later")
        if len(ran) == 4:
            second.set()

    def first(_: datetime) -> None:
        if ran:
            second.wait(0.3)  # What comes after it waits for it, also the second time.
        ran.append("first")

    jobs = [Job("first", 3600.0, first), Job("later", 3600.0, later, after="first")]
    running = Daemon(Rounds({}), jobs, SystemClock())

    def begin_anew() -> None:
        while len(ran) < 2:
            time.sleep(0.01)
        running.begin_anew(jobs)
        second.wait(20)
        running.stop()

    threading.Thread(target=begin_anew).start()
    assert running.run()
    assert ran == ["first", "later", "first", "later"]
