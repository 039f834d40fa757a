"""The hash chain: a log in which a change, a gap or a swap shows.

Knows what of a row counts and how rows are linked: every entry of a workload (a decision, its
outcome, an override) has the next number and a digest over the digest before it and its own
content. Knows no database. What a digest covers may never change, or old logs could not be
verified any more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

DECISION, OUTCOME, OVERRIDE = "decision", "outcome", "manual_override"
_NAMES = {DECISION: "decision", OUTCOME: "outcome of decision", OVERRIDE: "override"}
NOT_COVERED = frozenset({"id", "digest"})
"""The database gives the id while it stores a row; the order of ids is checked instead."""


@dataclass(frozen=True, slots=True)
class Link:
    """A place in the chain of a workload: how many entries there are, and the last one's digest."""

    sequence: int
    digest: str


GENESIS = Link(0, "0" * 64)
"""Before the first entry."""


def content_text(kind: str, row: Mapping[str, Any]) -> str:
    """What a row says, by its columns' names.

    A column without a value is left out, so that one that a later version adds leaves the digests
    of older rows as they are.
    """
    content = {
        name: _plain(value)
        for name, value in row.items()
        if value is not None and name not in NOT_COVERED
    }
    return json.dumps([kind, content], sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_digest(kind: str, row: Mapping[str, Any]) -> str:
    return hashlib.sha256(content_text(kind, row).encode()).hexdigest()


def linked(previous: str, content: str) -> str:
    """The digest of the entry with this content after the entry with the previous digest."""
    return hashlib.sha256((previous + content).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else value


class FaultKind(StrEnum):
    """In which way a log is not what was written."""

    ALTERED = "Altered"
    MISSING = "Missing"
    OUT_OF_ORDER = "OutOfOrder"
    UNREADABLE = "Unreadable"
    SUMMED_UP_OTHERWISE = "SummedUpOtherwise"


@dataclass(frozen=True, slots=True)
class Fault:
    """`decision_id` is the decision that is at fault, or the first one after a gap."""

    kind: FaultKind
    workload: str
    decision_id: int | None
    message: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A row as it stands in the log; `content` is the digest of what it says now."""

    kind: str
    id: int
    sequence: int
    digest: str
    content: str

    @property
    def name(self) -> str:
        return f"{_NAMES[self.kind]} {self.id}"


MOST_WAITING = 64
"""Entries that may come before one that belongs in front of them. Two daemons on one log write an
outcome after the other's next decision; what is later than this is missing."""


class ChainWalk:
    """Follows one workload's chain through rows in the order of their ids.

    `before` is the link that the first entry follows, None where it is not known. Overrides are
    few and handed in beforehand, since their ids say nothing about when they came.
    """

    def __init__(self, workload: str, before: Link | None, overrides: Iterable[Entry] = ()) -> None:
        self.faults: list[Fault] = []
        self.entries = 0
        self._workload = workload
        self._place = None if before is None else before.sequence
        self._digests: tuple[str, ...] = () if before is None else (before.digest,)
        self._waiting: dict[int, Entry] = {}
        self._overrides = {entry.sequence: entry for entry in overrides}
        self._last: Entry | None = None
        self._last_decision: Entry | None = None

    @property
    def end(self) -> Link:
        """The last entry that was reached."""
        return Link(self._place or 0, self._digests[0] if self._digests else "")

    def follow(self, entry: Entry) -> None:
        """Take the next row in; what is wrong with it is found in `faults` by the end."""
        if entry.kind == DECISION and self._out_of_order(entry):
            return
        if self._place is None:
            self._place = entry.sequence - 1
        if entry.sequence <= self._place or entry.sequence in self._waiting:
            self._report(
                FaultKind.OUT_OF_ORDER, entry, f"{entry.name} claims a place that is taken"
            )
            return
        self._waiting[entry.sequence] = entry
        self._advance()
        while len(self._waiting) > MOST_WAITING:
            self._skip_gap()

    def finish(self, end: Link | None) -> None:
        """After the last row; `end` is what the chain reached at least, None where not known."""
        while self._waiting or (self._overrides and end is not None):
            self._skip_gap()
        if end is None:
            return
        if (self._place or 0) < end.sequence:
            missing = f"entries {(self._place or 0) + 1} to {end.sequence} are missing"
            after = f" after {self._last.name}" if self._last else ""
            self._report(FaultKind.MISSING, None, missing + after)
        elif self._place == end.sequence and end.digest not in self._digests:
            self._report(
                FaultKind.ALTERED, self._last, "the end of the chain is not the one on record"
            )

    def _out_of_order(self, entry: Entry) -> bool:
        last, self._last_decision = self._last_decision, entry
        if last is None or entry.sequence > last.sequence:
            return False
        places = f"entry {entry.sequence} after entry {last.sequence}"
        message = f"{entry.name} stands after {last.name}: {places}"
        self._report(FaultKind.OUT_OF_ORDER, entry, message)
        # Near its place it can still be linked; what has been passed cannot.
        return self._place is not None and entry.sequence <= self._place

    def _advance(self) -> None:
        """Link every entry whose turn it is."""
        assert self._place is not None
        while True:
            turn = self._place + 1
            entry = self._waiting.pop(turn, None) or self._overrides.pop(turn, None)
            if entry is None:
                return
            self._link(entry)

    def _link(self, entry: Entry) -> None:
        computed = [linked(digest, entry.content) for digest in self._digests]
        if computed and entry.digest not in computed:
            self._report(FaultKind.ALTERED, entry, f"{entry.name} was altered")
        # Where the row's digest itself was altered, the next entry still follows the true one.
        self._digests = tuple(dict.fromkeys((entry.digest, *computed)))
        self._place = entry.sequence
        self._last = entry
        self.entries += 1

    def _skip_gap(self) -> None:
        assert self._place is not None
        ahead = self._overrides | self._waiting
        following = ahead[min(ahead)]
        first, last = self._place + 1, following.sequence - 1
        what = f"entry {first} is" if first == last else f"entries {first} to {last} are"
        between = f"between {self._last.name} and " if self._last else "before "
        self._report(FaultKind.MISSING, following, f"{what} missing {between}{following.name}")
        self._place, self._digests = last, ()
        self._advance()

    def _report(self, kind: FaultKind, entry: Entry | None, message: str) -> None:
        known = entry if entry is not None else self._last
        decision_id = known.id if known is not None and known.kind != OVERRIDE else None
        self.faults.append(Fault(kind, self._workload, decision_id, message))
