"""Virtual time: the same jobs as the daemon's, one after the other, each at its due moment."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from datetime import datetime

from scaler.rounds import Job


class VirtualClock:
    """A clock that stands still until it is moved; never backwards."""

    def __init__(self, start: datetime) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def move_to(self, at: datetime) -> None:
        if at < self._now:
            raise ValueError(f"virtual time cannot go back from {self._now} to {at}")
        self._now = at


def run_jobs(
    jobs: Sequence[Job],
    clock: VirtualClock,
    until: datetime,
    advance: Callable[[datetime], None],
) -> None:
    """Run the jobs from the clock's time until `until`, exclusive: at once, then when due.

    `advance` moves the simulated world to each moment before the jobs of that moment see it. Jobs
    that are due at once run in the order given.
    """
    due = [(clock.now(), order, job) for order, job in enumerate(jobs)]
    heapq.heapify(due)
    while due[0][0] < until:
        at, order, job = heapq.heappop(due)
        advance(at)
        clock.move_to(at)
        job.run(at)
        heapq.heappush(due, (job.next_after(at), order, job))
    advance(until)
    clock.move_to(until)
