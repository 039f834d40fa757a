"""What becomes of the daemon when the machine's clock jumps: it goes on, and believes no future."""

from __future__ import annotations

import datetime as clocks
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import apscheduler.executors.base
import apscheduler.schedulers.base
import pytest

import scaler.clock
from forecaster.calendar import Calendar
from forecaster.history import TrafficHistory
from forecaster.registry import combined
from policies.context import ProblemKind, ProblemSource, RateLimit, RateUnit, ScalingRules
from scaler import daemon
from scaler.clock import SystemClock
from scaler.daemon import Daemon
from scaler.loop import ControlLoop, Ports, TickResult
from scaler.ports import Reading
from scaler.rounds import Job, Rounds
from scaler.settings import Settings
from scaler.wiring import Watch
from storage.database import open_engine, upgrade
from storage.decisions import SqlDecisionStore
from tests.fakes import FakeMetrics, FakeTarget
from tests.situations import settings
from tests.traffic import weeks
from tests.unit.test_loop import NOW, fitted, loop_settings

HOUR, TICK = timedelta(hours=1), timedelta(seconds=15)


class Arriving(FakeMetrics):
    """Knows no more than has happened, whatever it is asked for."""

    happened = NOW
    qps = 9_000.0

    def __init__(self) -> None:
        super().__init__(weeks(), lambda _: self.qps)

    def demand_history(
        self, start: datetime, end: datetime, step_seconds: int
    ) -> Reading[TrafficHistory]:
        self.known_until = min(end, self.happened)
        return super().demand_history(start, end, step_seconds)


class Bench:
    """A loop on a real log, with a clock that may be wrong."""

    def __init__(self, folder: Path, up: ScalingRules) -> None:
        self.engine = open_engine(f"sqlite:///{folder / 'daybreak.db'}")
        upgrade(self.engine)
        self.metrics, self.target = Arriving(), FakeTarget(10)
        store = SqlDecisionStore(self.engine)
        store.save_model("grammar", fitted())
        policy = replace(settings(maximum=400), scale_up=up)
        self.loop = ControlLoop(
            replace(loop_settings(), policy=policy),
            Ports(self.metrics, self.target, store),
            combined(Calendar()),
        )
        self.loop.catch_up(NOW)

    def tick(self, wrong: timedelta = timedelta(0)) -> TickResult:
        self.metrics.happened += TICK
        return self.loop.tick(self.metrics.happened + wrong)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """With limits that look back over changes, beside a window over decisions."""
    limits = (RateLimit(RateUnit.PODS, 40, 60), RateLimit(RateUnit.PERCENT, 100, 60))
    built = Bench(tmp_path, ScalingRules(0, limits=limits))
    yield built
    built.engine.dispose()


def test_what_a_fast_clock_left_in_the_log_does_not_bar_growth(bench: Bench) -> None:
    """Decisions of the next hour lie within no window that ends now."""
    bench.metrics.qps = 1_000.0
    for _ in range(4):
        bench.tick()
    bench.metrics.qps = 15_000.0
    for _ in range(3):
        bench.tick(wrong=HOUR)
    bench.metrics.qps = 40_000.0
    bench.tick()
    assert bench.target.replicas >= 40


def test_until_time_has_caught_up_it_is_doubted_and_nothing_shrinks(bench: Bench) -> None:
    bench.tick(wrong=HOUR)
    bench.target.replicas = 300
    for _ in range(3):
        result = bench.tick()
        (problem,) = (one for one in result.context.problems if one.source is ProblemSource.LOG)
        assert problem.kind is ProblemKind.IMPLAUSIBLE
        assert "the clock was set back" in problem.message
        assert all(past.at <= result.context.now for past in result.context.recent)
        assert bench.target.replicas >= 300
    bench.metrics.happened += HOUR
    result = bench.tick()
    assert [one for one in result.context.problems if one.source is ProblemSource.LOG] == []


def test_a_clock_that_was_a_year_fast_does_not_hold_the_fleet_for_a_year(bench: Bench) -> None:
    bench.loop.tick(NOW + timedelta(days=365))
    result = bench.tick()
    assert [one for one in result.context.problems if one.source is ProblemSource.LOG] == []


def test_history_is_read_on_after_a_fast_clock(bench: Bench) -> None:
    for _ in range(8):
        bench.tick()
    bench.tick(wrong=HOUR)
    for _ in range(8):
        result = bench.tick()
        assert result.context.forecast is not None
    known = bench.loop._history.history  # the cache itself: no gap may stay in it
    assert known is not None
    assert known.until(bench.metrics.happened - 2 * timedelta(minutes=1)).known_ratio == 1.0


def test_the_daemon_goes_on_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """APScheduler would wait for the moment that it had planned, an hour from then."""
    offset = [timedelta(0)]

    class Jumping(clocks.datetime):
        @classmethod
        def now(cls, tz: clocks.tzinfo | None = None) -> Jumping:
            return super().now(tz) + offset[0]

    for module in (apscheduler.schedulers.base, apscheduler.executors.base, scaler.clock):
        monkeypatch.setattr(module, "datetime", Jumping)
    monkeypatch.setattr(daemon, "WATCH_SECONDS", 0.1)
    came = threading.Semaphore(0)
    running = Daemon(Rounds({}), [Job("work", 1.0, lambda _: came.release())], SystemClock())

    def set_back() -> None:
        for _ in range(2):
            assert came.acquire(timeout=20)
        offset[0] = -HOUR
        heard.extend(came.acquire(timeout=20) for _ in range(2))
        running.stop()

    heard: list[bool] = []
    threading.Thread(target=set_back).start()
    assert running.run()
    assert heard == [True, True]


def test_a_decision_from_ahead_is_not_recent(bench: Bench) -> None:
    """Before, a daemon that had stopped deciding called itself ready for as long."""
    watched = {"name": "grammar", "target": {"name": "grammar", "mode": "shadow"}}
    document = {"demand": {"query": "up"}, "capacity": {"qpsPerReplica": 1.0}, "maxReplicas": 9}
    given = Settings.model_validate(
        {"prometheus": {"url": "http://prometheus:9090"}, "workloads": [{**watched, **document}]}
    )

    class Still(SystemClock):
        at = NOW

        def now(self) -> datetime:
            return self.at

    clock = Still()
    watch = Watch(given, clock)
    assert watch.unready() == ["grammar: no recent decision"]
    watch.after_tick(bench.tick(), 0.1)
    clock.at = bench.metrics.happened
    assert watch.unready() == []
    for wrong in (-HOUR, HOUR):
        clock.at = bench.metrics.happened + wrong
        assert watch.unready() == ["grammar: no recent decision"]
