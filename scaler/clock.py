"""The daemon's clock: the one place that reads the time.

Knows two clocks: UTC, which may jump, and a monotonic one for deadlines. Everything else is
handed the time as an argument.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """The time in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never jumps, so deadlines are measured with it."""
        return time.monotonic()


class Pace:
    """Holds virtual time to a multiple of real time; at speed 0 nothing is held."""

    def __init__(self, starts_at: datetime, speed: float) -> None:
        self._starts_at = starts_at
        self._speed = speed
        self._began = time.monotonic()

    def wait(self, at: datetime) -> None:
        """Return when the virtual moment `at` is due."""
        if self._speed:
            due = (at - self._starts_at).total_seconds() / self._speed
            time.sleep(max(0.0, due - (time.monotonic() - self._began)))
