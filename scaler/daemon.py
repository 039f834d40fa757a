"""The daemon: APScheduler runs the rounds on the wall clock until a signal ends it.

Decisions and refits have threads of their own, so that a slow fit never delays a decision. Jobs are
declared here at every start; no job is ever stored.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections import deque
from collections.abc import Sequence
from functools import partial
from types import FrameType

import structlog
from apscheduler.events import EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from scaler.ports import Clock
from scaler.rounds import Job, Rounds

POLL_SECONDS = 0.05
FIRST_WAIT_SECONDS = 15.0
"""How long a first decision waits at most for what it goes by."""
WATCH_SECONDS = 1.0
"""How often the clock is looked at."""
GRACE_SECONDS = 8.0
"""How long a stop waits for the work in hand; what is cut off after it was never half-written,
since every write to the log and to the target is one transaction."""

_log = structlog.get_logger("daybreak")


class Daemon:
    """Runs jobs on their intervals; `stop` may be called from a signal handler."""

    def __init__(self, rounds: Rounds, jobs: Sequence[Job], clock: Clock) -> None:
        self._rounds = rounds
        self._clock = clock
        self._stop = threading.Event()
        self._signals: deque[int] = deque()
        self._jobs = jobs
        self._seen = clock.now()
        self._in_hand: set[str] = set()
        self._begun = {job.name: threading.Event() for job in jobs}
        self._scheduler = BackgroundScheduler(
            timezone="UTC",
            executors={job.crew or job.name: ThreadPoolExecutor(job.hands) for job in jobs},
            job_defaults={"coalesce": True, "max_instances": 1},
        )
        # What it would warn of, a run that was left out, is told by our listener.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        self._scheduler.add_listener(self._on_skipped, EVENT_JOB_MAX_INSTANCES | EVENT_JOB_MISSED)
        for job in jobs:
            self._add(job)

    def run(self) -> bool:
        """Work until SIGTERM, SIGINT or `stop`; False where work in hand had to be cut off."""
        previous = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        }
        try:
            self._scheduler.start()
            while not self._stop.wait(WATCH_SECONDS):
                self._tell_signals()
                self._follow_the_clock()
            self._tell_signals()
            return self._shut_down()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        self._stop.set()

    def begin_anew(self, jobs: Sequence[Job]) -> None:
        """Run these at once and in the order of a start: so far they had nothing to do."""
        now = self._clock.now()
        for job in jobs:
            self._begun[job.name].clear()
        for job in jobs:
            self._scheduler.modify_job(job.name, next_run_time=now)

    def _add(self, job: Job) -> None:
        self._scheduler.add_job(
            partial(self._run_job, job),
            IntervalTrigger(
                seconds=job.interval_seconds,
                start_date=job.next_after(self._clock.now()),
                timezone="UTC",
            ),
            id=job.name,
            executor=job.crew or job.name,
            next_run_time=self._clock.now(),
            # A run that comes late is still worth having; one that waits for the next is not.
            misfire_grace_time=max(1, int(job.interval_seconds)),
        )

    def _follow_the_clock(self) -> None:
        """APScheduler waits for moments: after the clock was set back, for as long as that again
        if they stayed as they are."""
        now, before = self._clock.now(), self._seen
        self._seen = now
        if now >= before:
            return
        _log.warning("the clock was set back", seconds=(before - now).total_seconds())
        for job in self._jobs:
            self._scheduler.modify_job(job.name, next_run_time=job.next_after(now))

    def _run_job(self, job: Job) -> None:
        awaited = self._begun.get(job.after or "")
        if awaited is not None and not awaited.wait(FIRST_WAIT_SECONDS):
            awaited.set()  # Jobs that have to wait for a hand need not wait for this as well.
        if not job.repeatable:
            self._in_hand.add(job.name)
        try:
            job.run(self._clock.now())
        finally:
            self._in_hand.discard(job.name)
            self._begun[job.name].set()

    def _on_skipped(self, event: JobEvent) -> None:
        why = "the one before is still running or late"
        _log.warning("run skipped", job=event.job_id, why=why)
        for job in self._jobs:
            if job.name == event.job_id:
                job.skipped()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Tells nothing itself: it may have come in the middle of a line of the log."""
        self._signals.append(number)
        if number != signal.SIGHUP:
            self.stop()

    def _tell_signals(self) -> None:
        while self._signals:
            name = signal.Signals(self._signals.popleft()).name
            if name == "SIGHUP":
                _log.warning("settings are not reloaded; restart daybreak", signal=name)
            else:
                _log.info("stopping", signal=name)

    def _shut_down(self) -> bool:
        self._rounds.stop()
        worker = threading.Thread(target=self._scheduler.shutdown, daemon=True)
        worker.start()
        for _ in range(round(GRACE_SECONDS / POLL_SECONDS)):
            worker.join(POLL_SECONDS)
            if not (worker.is_alive() and self._in_hand):
                return True
        return False
