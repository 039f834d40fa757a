"""Verification: is the log what was written, and does this program decide the same again?

Knows the pages of a log and how decisions are compared. The chain is followed in the order of ids,
and what reports read of it (minutes and scale events) is held against it, while processes beside
it recompute each decision from its stored context.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, and_, func, select
from sqlalchemy.exc import SQLAlchemyError

from policies.decision import Decision
from policies.engine import decide
from scaler.ports import StoreError
from scaler.workers import process_pool
from storage import codec, schema
from storage.chain import (
    DECISION,
    OUTCOME,
    OVERRIDE,
    ChainWalk,
    Entry,
    Fault,
    FaultKind,
    Link,
    content_digest,
)
from storage.database import reason as driver_words
from storage.rollup_check import RollupCheck

PAGE = 1000
"""Decisions read, and handed to a process, at once."""
WORTH_PROCESSES = 5 * PAGE
"""Below so many decisions, starting processes takes longer than the work."""
MOST_NAMED = 100
"""Faults and differences that are told one by one; the others are counted."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first thing in which a decision and its recomputation differ."""

    decision_id: int
    workload: str
    at: datetime
    field: str
    stored: str
    recomputed: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What came of it. `reworded` decisions are equal but for their sentences; `ends` says where
    each chain ends, to be kept elsewhere by whoever does not trust the database.

    `minutes` were held against their decisions. Of the log's beginning `pruned_entries` were
    deleted on purpose, and `unverifiable_minutes` stay of them that nothing can be held against.
    """

    decisions: int
    entries: int
    minutes: int
    unverifiable_minutes: int
    pruned_entries: int
    reworded: int
    differences: tuple[Difference, ...]
    difference_count: int
    faults: tuple[Fault, ...]
    fault_count: int
    ends: dict[str, Link]

    @property
    def sound(self) -> bool:
        return not self.difference_count and not self.fault_count


@dataclass(slots=True)
class _Tally:
    """What was found so far."""

    decisions: int = 0
    reworded: int = 0
    differences: list[Difference] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def take(self, verdicts: Iterable[Difference | None]) -> None:
        for verdict in verdicts:
            if verdict is None:
                self.reworded += 1
            else:
                self.differences.append(verdict)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A decision on its way to a process that recomputes it."""

    id: int
    workload: str
    at: datetime
    context: bytes
    steps: bytes
    settings: str


def verify(
    engine: Engine,
    since: datetime | None = None,
    until: datetime | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
    workers: int | None = None,
) -> Verification:
    """Check the chain and recompute every decision in [since, until); None is no limit.

    `on_progress` hears the share that is done. Raises StoreError where the log cannot be read.
    """
    tally = _Tally()
    try:
        with engine.connect() as connection:
            # Before the ids, so that what the daemon adds meanwhile is beyond these ends.
            ends = _ends(connection) if until is None else {}
            walks = _walks(connection, since)
            rollups = _rollup_checks(connection, since, until)
            ids = _ids(connection, since, until)
            log = _Log(connection, walks, rollups, _Settings(connection), tally)
            with _pool(ids.last - ids.first, workers) as pool:
                _check(log, ids, pool, on_progress)
            for name, walk in walks.items():
                walk.finish(ends.get(name))
                tally.faults.extend(walk.faults)
            otherwise = _summed_up_otherwise(log)
            unverifiable = sum(check.unverifiable() for check in rollups.values())
            pruned = _pruned_entries(connection, since)
    except SQLAlchemyError as error:
        raise StoreError(f"the decision log cannot be read: {driver_words(error)}") from error
    # What is wrong with the decisions themselves is told first.
    faults = [*sorted(tally.faults, key=_id), *otherwise]
    return Verification(
        decisions=tally.decisions,
        entries=sum(walk.entries for walk in walks.values()),
        minutes=sum(check.minutes for check in rollups.values()),
        unverifiable_minutes=unverifiable,
        pruned_entries=pruned,
        reworded=tally.reworded,
        differences=tuple(sorted(tally.differences, key=_id)[:MOST_NAMED]),
        difference_count=len(tally.differences),
        faults=tuple(faults[:MOST_NAMED]),
        fault_count=len(faults),
        ends={name: walk.end for name, walk in walks.items()},
    )


@dataclass(frozen=True, slots=True)
class _Log:
    """What the decisions are held against, page after page."""

    connection: Connection
    walks: dict[str, ChainWalk]
    rollups: dict[str, RollupCheck]
    settings: _Settings
    tally: _Tally


@dataclass(frozen=True, slots=True)
class _Ids:
    """The decisions that are asked for: from the first id to the last, and of some workloads only
    a part of these."""

    first: int
    last: int
    parts: dict[str, tuple[int, int]] | None = None

    def hold(self, row: Row[Any]) -> bool:
        if self.parts is None:
            return True
        first, last = self.parts.get(row.workload, (1, 0))
        return bool(first <= row.id <= last)


def _id(found: Difference | Fault) -> int:
    return found.decision_id or 0


def _pool(decisions: int, workers: int | None) -> AbstractContextManager[Any]:
    count = workers if workers is not None else os.cpu_count() or 1
    if decisions < WORTH_PROCESSES or count < 2:
        return nullcontext()
    return process_pool(count)


def _check(
    log: _Log, ids: _Ids, pool: Executor | None, on_progress: Callable[[float], None]
) -> None:
    """Follow the chain page by page, with at most a few pages waiting to be recomputed."""
    at_work: list[Future[list[Difference | None]]] = []
    tally = log.tally
    for page in _pages(log.connection, ids, tally):
        rows = [row for row in page if ids.hold(row)]
        batch = [stored for row in rows if (stored := _follow(row, log))]
        tally.decisions += len(rows)
        if pool is None:
            tally.take(recompute(batch))
        else:
            at_work.append(pool.submit(recompute, batch))
        if len(at_work) > 2 * (os.cpu_count() or 1):
            tally.take(at_work.pop(0).result())
        on_progress((page[-1].id - ids.first + 1) / (ids.last - ids.first + 1))
    for future in at_work:
        tally.take(future.result())


def _follow(row: Row[Any], log: _Log) -> _Stored | None:
    """Put a decision and its outcome into the chain; the decision is returned to be recomputed."""
    tally = log.tally
    walk = log.walks.get(row.workload)
    if walk is None:
        walk = log.walks[row.workload] = ChainWalk(row.workload, None)
        message = f"decision {row.id} belongs to a workload that has no chain"
        tally.faults.append(Fault(FaultKind.ALTERED, row.workload, row.id, message))
    values = dict(row._mapping)
    outcome = {name[8:]: values.pop(name) for name in list(values) if name.startswith("outcome_")}
    walk.follow(_entry(DECISION, row.id, values))
    if outcome["decision_id"] is not None:
        walk.follow(_entry(OUTCOME, row.id, outcome))
    if row.workload in log.rollups:
        came = {"kind": outcome["kind"], "outcome_sequence": outcome["sequence"]}
        log.rollups[row.workload].take(values | came)
    payload = log.settings.payload(row.settings_digest)
    if payload is None:
        message = f"the settings of decision {row.id} are not the ones that it was made with"
        tally.faults.append(Fault(FaultKind.ALTERED, row.workload, row.id, message))
        return None
    return _Stored(row.id, row.workload, row.at, row.context, row.steps, payload)


def _entry(kind: str, row_id: int, values: dict[str, Any]) -> Entry:
    content = content_digest(kind, values)
    return Entry(kind, row_id, values["sequence"], values["digest"], content)


class _Settings:
    """The settings by their digest, each checked against it once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[str, str | None] = {}

    def payload(self, digest: str) -> str | None:
        """None where they are missing, or are not what the digest was made of."""
        if digest not in self._known:
            table = schema.policy_settings.c
            query = select(table.payload).where(table.digest == digest)
            found = self._connection.execute(query).scalar()
            intact = found is not None and codec.digest(found) == digest
            self._known[digest] = found if intact else None
        return self._known[digest]


def _pages(connection: Connection, ids: _Ids, tally: _Tally) -> Iterator[Sequence[Row[Any]]]:
    """Page by page, so that no transaction stays open while the daemon writes."""
    done = ids.first - 1
    while done < ids.last:
        query = _rows().where(schema.decision.c.id > done, schema.decision.c.id <= ids.last)
        try:
            page = connection.execute(query.limit(PAGE)).all()
        except (SQLAlchemyError, ValueError):
            page = _readable(connection, done, ids.last, tally)
        connection.rollback()
        if not page:
            return
        yield page
        done = page[-1].id


def _rows() -> Select[Any]:
    outcome = [column.label(f"outcome_{column.name}") for column in schema.outcome.c]
    return (
        select(schema.decision, *outcome)
        .outerjoin(schema.outcome, schema.outcome.c.decision_id == schema.decision.c.id)
        .order_by(schema.decision.c.id)
    )


def _readable(connection: Connection, done: int, last: int, tally: _Tally) -> list[Row[Any]]:
    """The rows of a page that can be read; one that cannot be is a fault."""
    connection.rollback()
    key = schema.decision.c.id
    query = select(key).where(key > done, key <= last).order_by(key).limit(PAGE)
    found = []
    for row_id in connection.execute(query).scalars().all():
        try:
            found.append(connection.execute(_rows().where(key == row_id)).one())
        except (SQLAlchemyError, ValueError) as error:
            connection.rollback()
            message = f"decision {row_id} cannot be read: {' '.join(str(error).split())[:200]}"
            tally.faults.append(Fault(FaultKind.UNREADABLE, "", row_id, message))
    return found


def recompute(batch: Sequence[_Stored]) -> list[Difference | None]:
    """Decide each context again; a Difference for one that differs, None for one that is only
    worded otherwise, nothing for one that is equal."""
    verdicts: list[Difference | None] = []
    for stored in batch:
        try:
            context = codec.decode_context(codec.unpack(stored.context), stored.settings)
            decision = codec.decode_decision(codec.unpack(stored.steps))
        except ValueError as error:
            text = " ".join(str(error).split())[:200]
            verdicts.append(_difference(stored, "the stored form", text, "not recomputed"))
            continue
        try:
            again = decide(context)
        except (KeyError, ValueError) as error:
            text = f"{type(error).__name__}: {error}"
            verdicts.append(_difference(stored, "decision", f"{decision.desired} replicas", text))
            continue
        if again != decision:
            found = first_difference(decision, again)
            verdicts.append(_difference(stored, *found) if found else None)
    return verdicts


def _difference(stored: _Stored, where: str, was: str, now: str) -> Difference:
    return Difference(stored.id, stored.workload, stored.at, where, was, now)


def first_difference(stored: Decision, recomputed: Decision) -> tuple[str, str, str] | None:
    """The first field that differs, what is stored and what came out, the steps in their order
    first; None where only sentences differ, which an upgrade may word otherwise."""
    was, now = asdict(stored), asdict(recomputed)
    for index in range(max(len(stored.steps), len(recomputed.steps))):
        for name in ("rule", "replicas", "reason", "notes"):
            pair = [_shown(steps, index, name) for steps in (was["steps"], now["steps"])]
            if pair[0] != pair[1]:
                return f"steps[{index}].{name}", pair[0], pair[1]
    for name in ("current", "recommended", "desired", "reason", "epoch"):
        if was[name] != now[name]:
            return name, str(was[name]), str(now[name])
    return None


def _shown(steps: Sequence[dict[str, Any]], index: int, name: str) -> str:
    return str(steps[index][name]) if index < len(steps) else "no such step"


def _walks(connection: Connection, since: datetime | None) -> dict[str, ChainWalk]:
    """A walk for each workload, from the link before its first decision in the time asked for."""
    walks = {}
    for row in connection.execute(select(schema.workload)):
        before = Link(row.pruned_sequence, row.pruned_digest)
        if since is not None:
            before = _link_before(connection, row.name, since) or before
        walks[row.name] = ChainWalk(row.name, before, _overrides(connection, row.name, before))
    return walks


def _rollup_checks(
    connection: Connection, since: datetime | None, until: datetime | None
) -> dict[str, RollupCheck]:
    rows = connection.execute(select(schema.workload)).mappings().all()
    return {row["name"]: RollupCheck(connection, row, since, until) for row in rows}


def _summed_up_otherwise(log: _Log) -> list[Fault]:
    faulty = {fault.decision_id for fault in log.tally.faults if fault.decision_id is not None}
    return [
        fault
        for name, check in log.rollups.items()
        if name in log.walks  # Else it was begun after these.
        for fault in check.finish(faulty, any(log.walks[name].faults))
    ]


def _pruned_entries(connection: Connection, since: datetime | None) -> int:
    """What was deleted of the time that is asked for; all of it where that begins earlier."""
    table = schema.workload.c
    query = select(func.coalesce(func.sum(table.pruned_sequence), 0))
    if since is not None:
        query = query.where(table.kept_since > since)
    return int(connection.execute(query).scalar_one())


def _overrides(connection: Connection, workload: str, before: Link) -> Iterator[Entry]:
    """The entries after that link."""
    table = schema.manual_override
    query = select(table).where(table.c.workload == workload, table.c.sequence > before.sequence)
    for row in connection.execute(query).mappings():
        yield _entry(OVERRIDE, row["id"], dict(row))


def _link_before(connection: Connection, workload: str, since: datetime) -> Link | None:
    """The last entry of the last decision before that time."""
    table = schema.decision.c
    query = (
        _rows()
        .where(table.workload == workload, table.at < since)
        .order_by(None)
        .order_by(table.at.desc(), table.id.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    if row is None:
        return None
    if row.outcome_sequence is not None and row.outcome_sequence > row.sequence:
        return Link(row.outcome_sequence, row.outcome_digest)
    return Link(row.sequence, row.digest)


def _ids(connection: Connection, since: datetime | None, until: datetime | None) -> _Ids:
    """None is asked for where the last id lies before the first."""
    table = schema.decision.c
    if since is None and until is None:
        first, last = connection.execute(select(func.min(table.id), func.max(table.id))).one()
        return _Ids(first or 1, last or 0)
    parts = {}
    for name in connection.execute(select(schema.workload.c.name)).scalars():
        within = and_(table.workload == name, *_between(since, until))
        query = select(table.id).where(within).limit(1)
        ends = (
            query.order_by(table.at, table.id),
            query.order_by(table.at.desc(), table.id.desc()),
        )
        first, last = (connection.execute(end).scalar() for end in ends)
        if first is not None and last is not None:
            parts[name] = (first, last)
    if not parts:
        return _Ids(1, 0)
    return _Ids(min(p[0] for p in parts.values()), max(p[1] for p in parts.values()), parts)


def _between(since: datetime | None, until: datetime | None) -> list[ColumnElement[bool]]:
    at = schema.decision.c.at
    return [
        *([at >= since] if since is not None else []),
        *([at < until] if until is not None else []),
    ]


def _ends(connection: Connection) -> dict[str, Link]:
    query = select(schema.workload.c.name, schema.workload.c.sequence, schema.workload.c.digest)
    return {row.name: Link(row.sequence, row.digest) for row in connection.execute(query)}
