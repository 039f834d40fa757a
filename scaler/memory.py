"""Memory: what past decisions tell the next one, followed as they come.

Knows the decisions that the log remembers lately. It is a cache: begun anew at any of them it says
the same. Knows no log and no target.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import datetime

from policies.context import PastDecision, ReplicaChange


class Memory:
    """One workload's past decisions, as the log holds them: in the order in which they were
    recorded, growing at one end and forgotten at the other."""

    def __init__(self) -> None:
        self.newest: datetime | None = None
        self._recent: Sequence[PastDecision] = ()
        self._forgotten = 0
        self._in_turn = True
        self._changes: deque[tuple[int, ReplicaChange]] = deque()

    def follow(self, recent: Sequence[PastDecision]) -> None:
        """Take notice of those that have come since; only these are looked at."""
        known = self._known(recent)
        self._forgotten += len(self._recent) - known
        if not known:
            self.newest, self._in_turn = None, True
        for place in range(known, len(recent)):
            self._take(self._forgotten + place, recent[place], recent[place - 1] if place else None)
        while self._changes and self._changes[0][0] <= self._forgotten:
            self._changes.popleft()
        self._recent = recent

    def changes(self, current: int, now: datetime) -> tuple[ReplicaChange, ...]:
        """When the number asked for changed, whoever changed it; at last to what it is now."""
        changes = tuple([change for _, change in self._changes])
        before = self._recent[-1].current if self._recent else current
        return changes if before == current else (*changes, ReplicaChange(now, before, current))

    def _known(self, recent: Sequence[PastDecision]) -> int:
        """How many of these, the oldest, were the newest before. Those of a clock that was set
        back are forgotten out of turn: none of them counts as known."""
        for known in range(min(len(recent), len(self._recent)) * self._in_turn, 0, -1):
            if recent[known - 1] == self._recent[-1]:
                return known if recent[0] == self._recent[-known] else 0
        return 0

    def _take(self, number: int, past: PastDecision, before: PastDecision | None) -> None:
        if self.newest is None or past.at > self.newest:
            self.newest = past.at
        else:
            self._in_turn = False
        if before is not None and past.current != before.current:
            change = ReplicaChange(past.at, before.current, past.current)
            self._changes.append((number, change))
