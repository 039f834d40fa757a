"""Rounds: every workload's loop once, and one bad workload never stops the others.

Knows which loops there are and how often each job is due. Knows no scheduler: the daemon runs the
jobs on the wall clock, the simulator on virtual time.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import structlog

from forecaster.forecast import FittedModel, ForecastError
from scaler.loop import ControlLoop, TickResult
from scaler.ports import MetricsError, StoreError, TargetError

REFIT_CHECK_SECONDS = 60.0

_log = structlog.get_logger("daybreak")


@dataclass(frozen=True, slots=True)
class Job:
    """Something to do at every whole multiple of an interval since 1970.

    The grid does not depend on when a process was started, so a restarted one keeps to it. A stop
    does not wait for a job that is `repeatable`: what it was working out can be worked out again.
    The first run of a job comes after that of the one that is named in `after`, where this does not
    take too long. Jobs of one `crew` share its `hands`, each doing one job at a time; without a
    crew a job has a hand of its own. `skipped` hears of a run that is left out because the one
    before is not done.
    """

    name: str
    interval_seconds: float
    run: Callable[[datetime], None]
    repeatable: bool = False
    after: str | None = None
    crew: str = ""
    hands: int = 1
    skipped: Callable[[], None] = lambda: None

    def next_after(self, at: datetime) -> datetime:
        passed = math.floor(at.timestamp() / self.interval_seconds)
        return datetime.fromtimestamp((passed + 1) * self.interval_seconds, UTC)


@dataclass(frozen=True, slots=True)
class Failure:
    """A workload's tick or refit that came to nothing."""

    workload: str
    at: datetime
    message: str


OVERDUE_INTERVALS = 3
"""Without a decision for so many, a workload's newest one no longer says how things are."""
AfterTick = Callable[[TickResult | Failure, float], None]
"""Hears of each tick and each failure, and of the seconds that it took."""


def alone() -> bool:
    """Whether a process leads that shares its workloads with no other."""
    return True


class Rounds:
    """The loops of all workloads. `stopwatch` gives seconds; only differences are used. Nothing is
    read, decided or fitted while another process `leads`.

    With more than one worker the workloads of a round are decided side by side, which shortens
    the waiting for networks; each workload still has one decision at a time. One that is still
    waiting when the next round is due is left out of it, and holds up no other.
    """

    def __init__(
        self,
        loops: Mapping[str, ControlLoop],
        after_tick: AfterTick = lambda _, __: None,
        after_refit: Callable[[str, FittedModel | Failure], None] = lambda _, __: None,
        workers: int = 1,
        stopwatch: Callable[[], float] = lambda: 0.0,
        after_skip: Callable[[str], None] = lambda _: None,
        *,
        leads: Callable[[], bool] = alone,
    ) -> None:
        self._loops = loops
        self._after_tick = after_tick
        self._after_refit = after_refit
        self._after_skip = after_skip
        self._workers = workers
        self._stopwatch = stopwatch
        self._leads = leads
        self._stopping = False
        self._begun: dict[str, float] = {}
        self._ended = stopwatch()
        # Bound once: a lazy logger is put together anew at every call.
        self._log = _log.bind()

    def jobs(self, interval_seconds: float, refit_interval_seconds: float) -> Sequence[Job]:
        """The refit comes first, so that a first round on virtual time has a model. It looks
        every minute for models that are due, so that one that failed is tried again soon, as a
        history that could not be read is."""
        refit = partial(self.refit_due, refit_interval_seconds)
        check = min(REFIT_CHECK_SECONDS, refit_interval_seconds)
        return (
            Job("history", check, self.catch_up, repeatable=True),
            Job("refit", check, refit, repeatable=True),
            *(self._control(name, interval_seconds) for name in self._loops),
        )

    def _control(self, name: str, interval_seconds: float) -> Job:
        return Job(
            f"control {name}",
            interval_seconds,
            lambda now: self._decide(now, name),
            after="history",
            crew="control",
            hands=self._workers,
            skipped=lambda: self._after_skip(name),
        )

    def stuck(self, seconds: float) -> list[str]:
        """Workloads whose decision in hand takes longer than so many seconds; all of them where no
        decision has come to an end for as long."""
        now = self._stopwatch()
        if now - self._ended > seconds:
            return list(self._loops)
        return [name for name, began in dict(self._begun).items() if now - began > seconds]

    def stop(self) -> None:
        """Finish the workload in hand and start no other."""
        self._stopping = True

    def decide_all(self, now: datetime) -> None:
        self._each(partial(self._decide, now))

    def catch_up(self, now: datetime) -> None:
        """Histories that a restart left unread."""
        if self._leads():
            self._each(lambda name: self._catch_up(now, name))

    def _each(self, work: Callable[[str], None]) -> None:
        if self._workers == 1:
            for name in self._loops:
                work(name)
            return
        with ThreadPoolExecutor(self._workers, thread_name_prefix="round") as pool:
            # Reading every result brings an error of `after_tick` to light.
            list(pool.map(work, self._loops))

    def refit_due(self, interval_seconds: float, now: datetime) -> None:
        for name, loop in self._loops.items():
            if self._stopping or not self._leads():
                return
            if loop.refit_due(now, interval_seconds):
                self._after_refit(name, self._refit(name, loop, now))

    def _decide(self, now: datetime, name: str) -> None:
        if self._stopping:
            return
        if not self._leads():
            self._ended = self._stopwatch()  # Whoever has nothing to decide is not stuck.
            return
        with self._in_hand(name) as began:
            result = self._tick(name, self._loops[name], now)
            # First: who watches must hear of it whatever becomes of the log.
            self._after_tick(result, self._stopwatch() - began)
            if isinstance(result, TickResult):
                self._say(result)

    @contextmanager
    def _in_hand(self, name: str) -> Iterator[float]:
        began = self._begun[name] = self._stopwatch()
        try:
            yield began
        finally:
            del self._begun[name]
            self._ended = self._stopwatch()

    def _catch_up(self, now: datetime, name: str) -> None:
        if self._stopping:
            return
        try:
            self._loops[name].catch_up(now)
        except Exception:  # noqa: BLE001  # as for a tick
            self._log.exception("history unread", workload=name)

    def _tick(self, name: str, loop: ControlLoop, now: datetime) -> TickResult | Failure:
        try:
            return loop.tick(now)
        except TargetError as error:
            self._log.warning("target unreadable", workload=name, error=str(error))
            return Failure(name, now, str(error))
        except Exception as error:  # noqa: BLE001
            # Whatever it is, it is this workload's: the others still get their decision.
            self._log.exception("tick failed", workload=name)
            return Failure(name, now, f"{type(error).__name__}: {error}")

    def _say(self, result: TickResult) -> None:
        if result.rival:
            self._log.error("two writers", workload=result.context.workload, error=result.rival)
        if not self._log.is_enabled_for(logging.INFO):
            return
        self._log.info(
            "decided",
            workload=result.context.workload,
            current=result.decision.current,
            desired=result.decision.desired,
            reason=result.decision.reason.value,
            outcome=result.outcome.kind.value,
            problems=[problem.kind.value for problem in result.context.problems],
        )

    def _refit(self, name: str, loop: ControlLoop, now: datetime) -> FittedModel | Failure:
        try:
            fitted = loop.refit(now)
        except (ForecastError, MetricsError, StoreError) as error:
            self._log.warning("refit failed", workload=name, error=str(error))
            return Failure(name, now, str(error))
        except Exception as error:  # noqa: BLE001
            self._log.exception("refit failed", workload=name)
            return Failure(name, now, f"{type(error).__name__}: {error}")
        self._log.info("fitted", workload=name, model=fitted.model, skill=fitted.skill)
        return fitted
