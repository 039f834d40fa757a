"""Whether what is summed up is what the decisions say.

Follows the decisions of a workload in the order of the log, as the store did: a minute is summed
up when a decision of a later one comes. What does not agree then is looked at again at the end,
from the tables alone, since a daemon may have added to it meanwhile.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, func, select
from sqlalchemy.exc import SQLAlchemyError

from storage import rollups, schema
from storage.chain import Fault, FaultKind
from storage.rollups import MINUTE, Values, minute_of

AT_ONCE = timedelta(hours=1)
"""What is read of the tables at once."""
MOST_LOOKED_AT = 1000
"""Minutes looked at again; in a log that was falsified throughout the others only count."""

_minute, _event, _decision = schema.minute.c, schema.scale_event.c, schema.decision.c


@dataclass(slots=True)
class _Stored:
    """What the tables say of a minute."""

    minute: Values | None = None
    events: list[Values] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Told:
    """What the decisions of a minute say: their rows in the order of time, what was asked for
    before them (None where that is not known), and which outcomes may have come too late."""

    rows: Sequence[Values]
    before: int | None
    late: Callable[[Values], bool]


class RollupCheck:
    """Compares the minutes and scale events of one workload that lie wholly in [since, until).

    `workload` is its row, as it was before the decisions that are followed were looked up.
    """

    def __init__(
        self,
        connection: Connection,
        workload: Values,
        since: datetime | None,
        until: datetime | None,
    ) -> None:
        self.minutes = 0
        self._connection = connection
        self._workload = workload
        self._since, self._until = since, until
        self._rows: list[Values] = []
        self._newest: datetime | None = None
        self._last: Values | None = None
        self._stored: dict[datetime, _Stored] = {}
        self._stored_until: datetime | None = None
        self._found = self._found_events = 0
        self._unequal: dict[datetime, str] = {}
        self._late: set[datetime] = set()

    @property
    def name(self) -> str:
        return str(self._workload["name"])

    def take(self, row: Values) -> None:
        """The next decision of the log, with its outcome's `kind` and `outcome_sequence`."""
        minute = minute_of(row["at"])
        if self._newest is not None and minute < self._newest:
            # The clock was set back: the store has summed that minute up again.
            self._late.add(minute)
            self._last = _later(self._last, row)
            return
        if minute != self._newest:
            self._close(row["sequence"])
            self._newest = minute
        self._rows.append(row)

    def finish(self, faulty: set[int], broken: bool) -> list[Fault]:
        """What does not agree. Minutes with `faulty` decisions differ for that reason, and where
        the chain is `broken` others may be gone: neither is told twice."""
        self._close(None)
        found = [] if broken else [*self._marks(), *self._without_decisions()]
        for at in sorted(self._late - self._unequal.keys()):
            if self._compared(at) and (self._kept_since is None or at >= self._kept_since):
                self.minutes += 1
                self._unequal[at] = ""
        suspects = sorted(self._unequal.items())
        for at, _ in suspects[:MOST_LOOKED_AT]:
            # Twice, since the tables may change between what is read of them.
            told = self._look_again(at, faulty) and self._look_again(at, faulty)
            if told:
                found.append(self._fault(at, told))
        found += [self._fault(at, what) for at, what in suspects[MOST_LOOKED_AT:] if what]
        return found

    def unverifiable(self) -> int:
        """Minutes that stay of decisions that were deleted."""
        if self._kept_since is None:
            return 0
        query = select(func.count()).where(*self._between(_minute), _minute.at < self._kept_since)
        return int(self._connection.execute(query).scalar_one())

    @property
    def _kept_since(self) -> datetime | None:
        kept: datetime | None = self._workload["kept_since"]
        return kept

    def _between(self, table: Any) -> list[Any]:
        return [
            table.workload == self.name,
            *([table.at >= self._since] if self._since is not None else []),
            *([table.at < self._until] if self._until is not None else []),
        ]

    def _compared(self, at: datetime) -> bool:
        """Whether the minute lies wholly in what is asked for, and was summed up."""
        done = self._workload["rolled_up_to"]
        return (
            done is not None
            and at < done
            and (self._since is None or at >= self._since)
            and (self._until is None or at + MINUTE <= self._until)
            # Where the log was cut, some decisions of that minute may be gone.
            and (self._kept_since is None or at != self._kept_since - MINUTE)
        )

    def _close(self, sequence: int | None) -> None:
        """The minute is over: the entry with that sequence is of a later one."""
        if self._newest is None:
            return
        rows = sorted(self._rows, key=_place)
        if self._compared(self._newest):
            self.minutes += 1
            told = _Told(rows, self._before(rows[0]), _after(sequence))
            what = _difference(self._stored_at(self._newest), told)
            if what is not None:
                self._unequal[self._newest] = what
        self._last = _later(self._last, rows[-1])
        self._rows = []

    def _before(self, first: Values) -> int | None:
        if self._last is not None:
            return int(self._last["desired"])
        previous = self._previous(first)
        return self._asked_before(first, previous)

    def _asked_before(self, first: Values, previous: Values | None) -> int | None:
        """What was asked for before that decision; None where the one before it was deleted, or
        lies before what is asked for."""
        if previous is not None:
            return int(previous["desired"])
        unknown = self._workload["pruned_sequence"] or self._since is not None
        return None if unknown else int(first["current"])

    def _previous(self, first: Values) -> Values | None:
        query = self._places().where(_decision.at < first["at"])
        if self._since is not None:
            query = query.where(_decision.at >= self._since)
        return self._first(query.order_by(_decision.at.desc(), _decision.id.desc()))

    def _following(self, at: datetime) -> Values | None:
        query = self._places().where(_decision.at >= at)
        return self._first(query.order_by(_decision.at, _decision.id))

    def _places(self) -> Select[Any]:
        places = select(_decision.id, _decision.at, _decision.sequence, _decision.desired)
        return places.where(_decision.workload == self.name)

    def _first(self, query: Select[Any]) -> Values | None:
        return self._connection.execute(query.limit(1)).mappings().first()

    def _stored_at(self, at: datetime) -> _Stored:
        if self._stored_until is None or at >= self._stored_until:
            self._stored = self._read(at, at + AT_ONCE)
            self._stored_until = at + AT_ONCE
        stored = self._stored.pop(at, _Stored())
        self._found += stored.minute is not None
        self._found_events += len(stored.events)
        return stored

    def _read(self, since: datetime, until: datetime) -> dict[datetime, _Stored]:
        found: dict[datetime, _Stored] = {}
        for table in (schema.minute, schema.scale_event):
            mine = (table.c.workload == self.name, table.c.at >= since, table.c.at < until)
            for row in self._connection.execute(select(table).where(*mine)).mappings():
                stored = found.setdefault(minute_of(row["at"]), _Stored())
                if table is schema.minute and row["at"] == minute_of(row["at"]):
                    stored.minute = row
                else:
                    stored.events.append(row)
        return found

    def _look_again(self, at: datetime, faulty: set[int]) -> str | None:
        """What differs in the minute, by all that the tables say now."""
        try:
            rows = rollups.decisions(self._connection, self.name, at, at + MINUTE)
            following = self._following(at + MINUTE)
            previous = self._previous(rows[0]) if rows else None
            stored = self._read(at, at + MINUTE).get(at, _Stored())
        except (SQLAlchemyError, ValueError):
            # A row that cannot be read is a fault of its own.
            self._connection.rollback()
            return None
        places = [*rows, *([following] if following else [])]
        if not rows or faulty & {row["id"] for row in places} or self._pruned_since(at):
            return None
        sequence = following["sequence"] if following else None
        late = _always if at in self._late else _after(sequence)
        unknown = at in self._late or (previous and previous["sequence"] > rows[0]["sequence"])
        before = None if unknown else self._asked_before(rows[0], previous)
        # Two stores on one log may have summed a minute up without what came when it was over.
        in_time = [row for row in rows if sequence is None or row["sequence"] < sequence]
        told = [_difference(stored, _Told(some, before, late)) for some in (rows, in_time) if some]
        return None if None in told else told[0]

    def _pruned_since(self, at: datetime) -> bool:
        query = select(schema.workload.c.kept_since).where(schema.workload.c.name == self.name)
        kept = self._connection.execute(query).scalar()
        return kept is not None and kept != self._kept_since and at < kept

    def _marks(self) -> Iterator[Fault]:
        """What the log says of how far it is summed up, and of what was deleted."""
        mine = schema.workload.c.name == self.name
        # One statement, so that it is of one moment.
        newest = select(func.max(_decision.at)).where(_decision.workload == self.name)
        summed = select(func.max(_minute.at)).where(_minute.workload == self.name)
        query = select(
            schema.workload.c.rolled_up_to,
            summed.scalar_subquery().label("summed_up"),
            newest.scalar_subquery().label("newest"),
        ).where(mine)
        row = self._connection.execute(query).one()
        done = row.rolled_up_to
        if row.summed_up is not None and (done is None or row.summed_up >= done):
            yield self._fault(row.summed_up, f"it is summed up, but the log says up to {done}")
        if done is not None and (row.newest is None or minute_of(row.newest) < done):
            newest_minute = None if row.newest is None else minute_of(row.newest)
            yield self._fault(
                done, f"the log says summed up to here, its newest is {newest_minute}"
            )
        if self._kept_since is not None and not self._workload["pruned_sequence"]:
            yield self._fault(self._kept_since, "the log says kept since then, none was deleted")

    def _without_decisions(self) -> Iterator[Fault]:
        """Minutes and events that are summed up from nothing."""
        if self._counted() == (self._found, self._found_events):
            return
        logged = self._minutes_of(_decision)
        for at in sorted((self._minutes_of(_minute) | self._minutes_of(_event)) - logged):
            if self._compared(at) and not self._pruned_since(at):
                yield self._fault(at, "it is summed up, but the log holds no decision of it")

    def _counted(self) -> tuple[int, int]:
        """Minutes and events in the tables, as far as they should have been met."""
        counts = []
        for table in (_minute, _event):
            query = select(func.count()).where(*self._summed_up(table))
            counts.append(int(self._connection.execute(query).scalar_one()))
        return counts[0], counts[1]

    def _minutes_of(self, table: Any) -> set[datetime]:
        query = select(table.at).where(*self._summed_up(table))
        return {minute_of(at) for at in self._connection.execute(query).scalars()}

    def _summed_up(self, table: Any) -> list[Any]:
        kept, done = self._kept_since, self._workload["rolled_up_to"]
        return [
            *self._between(table),
            *([table.at >= kept] if kept is not None else []),
            *([table.at < done] if done is not None else []),
        ]

    def _fault(self, at: datetime, what: str) -> Fault:
        message = f"minute {at:%Y-%m-%dT%H:%M}Z is not what its decisions say: {what}"
        return Fault(FaultKind.SUMMED_UP_OTHERWISE, self.name, None, message)


def _place(row: Values) -> tuple[datetime, int]:
    return row["at"], row["id"]


def _later(one: Values | None, other: Values) -> Values:
    return other if one is None else max(one, other, key=_place)


def _after(sequence: int | None) -> Callable[[Values], bool]:
    """Whether an outcome came after the entry with that number."""

    def late(row: Values) -> bool:
        came: int | None = row["outcome_sequence"]
        return sequence is not None and came is not None and came > sequence

    return late


def _always(_: Values) -> bool:
    return True


def _difference(stored: _Stored, told: _Told) -> str | None:
    """The first thing in which the tables and the decisions differ."""
    minute, last = stored.minute, told.rows[-1]
    if minute is None:
        return "it is missing"
    for name, value in rollups.figures(last["workload"], told.rows).items():
        if name == "outcomes":
            alike = _outcomes_agree(minute["outcomes"], told)
        else:
            alike = minute[name] == value
        if not alike:
            return f"{name} is {minute[name]}, its decisions say {value}"
    if not rollups.is_told_by(minute, last["context"]):
        return "the context is not that of its last decision"
    return _event_difference(stored.events, told)


def _outcomes_agree(stored: str, told: _Told) -> bool:
    """What came late is counted, or is not known."""
    most = Counter(row["kind"] or "" for row in told.rows)
    least = Counter(row["kind"] or "" for row in told.rows if not told.late(row))
    try:
        counts = Counter(json.loads(stored))
    except (ValueError, TypeError):
        return False
    unknown = counts.pop("", 0)
    return (
        all(least[kind] <= counts[kind] <= most[kind] for kind in {*counts, *most} if kind)
        and unknown + counts.total() == most.total()
    )


def _event_difference(events: Sequence[Values], told: _Told) -> str | None:
    by_decision = {event["decision_id"]: event for event in events}
    first = told.rows[0]
    if told.before is None:
        by_decision.pop(first["id"], None)
    before = first["desired"] if told.before is None else told.before
    kinds = {row["id"]: row for row in told.rows}
    for expected in rollups.changes(first["workload"], told.rows, before):
        key = expected["decision_id"]
        stored = by_decision.pop(key, None)
        if stored is None:
            return f"the scale event of decision {key} is missing"
        for name, value in expected.items():
            unknown = name == "outcome" and stored[name] is None and told.late(kinds[key])
            if stored[name] != value and not unknown:
                return f"{name} of the scale event of decision {key} is {stored[name]}, not {value}"
    return next((f"decision {key} made no scale event" for key in by_decision), None)
