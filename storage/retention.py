"""Retention: decisions are deleted after a while, what reports need of them stays.

Knows what may go: decisions that are summed up in minutes, with their outcomes, from the oldest
on, and models that newer ones replaced. The newest decision of a workload always stays, since it
is the loop's memory. Where a chain is cut is written down, so that it still verifies from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate

from sqlalchemy import Connection, Engine, RowMapping, delete, func, select, update

from storage import rollups, schema
from storage.chain import Link
from storage.database import reading, writing
from storage.rollups import MINUTE, minute_of

AT_ONCE = 2000
"""Decisions deleted in one transaction, so that the daemon never waits long for its turn."""

_decision, _outcome = schema.decision.c, schema.outcome.c


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was deleted, in rows."""

    decisions: int
    minutes: int
    models: int


@dataclass(frozen=True, slots=True)
class _Cut:
    """Decisions of one workload with ids before `first_kept` may go; so many there are."""

    workload: str
    first_kept: int
    decisions: int


def prune(
    engine: Engine,
    now: datetime,
    keep: timedelta,
    keep_minutes: timedelta | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Pruned:
    """Delete the decisions that are older than `keep`, counted back from the newest in the log,
    or from now where a clock that was fast has left later ones.

    Minutes and scale events stay unless `keep_minutes` says how long. Raises StoreError.
    """
    logged = _newest(engine)
    if logged is None:
        return Pruned(0, 0, 0)
    newest = min(logged, now)
    rollups.catch_up(engine)
    cuts = [cut for name in _workloads(engine) if (cut := _cut(engine, name, newest - keep))]
    total = sum(cut.decisions for cut in cuts)
    deleted = 0
    for cut in cuts:
        for count in _deleted(engine, cut):
            deleted += count
            on_progress(deleted / total)
    minutes = 0 if keep_minutes is None else _prune_minutes(engine, newest - keep_minutes)
    return Pruned(deleted, minutes, _prune_models(engine, newest - keep))


def _newest(engine: Engine) -> datetime | None:
    with reading(engine) as connection:
        newest = [
            connection.execute(
                select(func.max(_decision.at)).where(_decision.workload == name)
            ).scalar()
            for name in connection.execute(select(schema.workload.c.name)).scalars().all()
        ]
    return max((at for at in newest if at is not None), default=None)


def _workloads(engine: Engine) -> Sequence[str]:
    with reading(engine) as connection:
        return connection.execute(select(schema.workload.c.name)).scalars().all()


def _cut(engine: Engine, workload: str, before: datetime) -> _Cut | None:
    """Where a workload's log is cut; only what is summed up may go, and never the newest."""
    mine = _decision.workload == workload
    with reading(engine) as connection:
        query = select(schema.workload.c.rolled_up_to).where(schema.workload.c.name == workload)
        summed_up: datetime | None = connection.execute(query).scalar()
        if summed_up is None:
            return None
        limit = min(minute_of(before), summed_up)
        newest = select(_decision.id).where(mine).order_by(_decision.at.desc(), _decision.id.desc())
        kept = (
            select(_decision.id)
            .where(mine, _decision.at >= limit)
            .order_by(_decision.at, _decision.id)
        )
        ends = [connection.execute(query.limit(1)).scalar() for query in (kept, newest)]
        first_kept = min(end for end in ends if end is not None)
        older = select(func.count()).where(mine, _decision.at < limit, _decision.id < first_kept)
        count: int = connection.execute(older).scalar_one()
    return _Cut(workload, first_kept, count) if count else None


def _deleted(engine: Engine, cut: _Cut) -> Iterator[int]:
    """How many went in each transaction."""
    while True:
        with writing(engine) as connection:
            batch = _batch(connection, cut)
            if not batch:
                return
            _delete(connection, cut, batch)
        yield len(batch)


def _batch(connection: Connection, cut: _Cut) -> Sequence[RowMapping]:
    """The oldest decisions that may go, such that nothing that stays belongs in front of them.

    Two daemons on one log write an outcome after the other's next decision, and a clock may have
    been set back: the chain is not cut between these.
    """
    query = (
        select(
            _decision.id,
            _decision.at,
            _decision.sequence,
            _decision.digest,
            _outcome.sequence.label("later"),
            _outcome.digest.label("later_digest"),
        )
        .outerjoin(schema.outcome, _outcome.decision_id == _decision.id)
        .where(_decision.workload == cut.workload, _decision.id <= cut.first_kept)
        .order_by(_decision.at, _decision.id)
        .limit(AT_ONCE + 1)
    )
    rows = connection.execute(query).mappings().all()
    return rows[: _closed(rows)]


def _closed(rows: Sequence[RowMapping]) -> int:
    """How many of the first rows can go; of the last one it only counts where it belongs."""
    highest = list(accumulate((max(row["sequence"], row["later"] or 0) for row in rows), max))
    lowest = list(accumulate((row["sequence"] for row in reversed(rows)), min))[::-1]
    for count in range(len(rows) - 1, 0, -1):
        if highest[count - 1] < lowest[count]:
            return count
    return 0


def _end(rows: Sequence[RowMapping]) -> Link:
    """The last entry of these decisions and their outcomes."""
    links = [Link(row["sequence"], row["digest"]) for row in rows]
    links += [Link(row["later"], row["later_digest"]) for row in rows if row["later"] is not None]
    return max(links, key=lambda link: link.sequence)


def _delete(connection: Connection, cut: _Cut, batch: Sequence[RowMapping]) -> None:
    ids = [row["id"] for row in batch]
    connection.execute(delete(schema.outcome).where(_outcome.decision_id.in_(ids)))
    connection.execute(delete(schema.decision).where(_decision.id.in_(ids)))
    end = _end(batch)
    connection.execute(
        update(schema.workload)
        .where(schema.workload.c.name == cut.workload)
        .values(
            pruned_sequence=end.sequence,
            pruned_digest=end.digest,
            kept_since=minute_of(max(row["at"] for row in batch)) + MINUTE,
        )
    )


def _prune_minutes(engine: Engine, before: datetime) -> int:
    with writing(engine) as connection:
        gone = connection.execute(delete(schema.minute).where(schema.minute.c.at < before))
        events = schema.scale_event
        connection.execute(delete(events).where(events.c.at < before))
    return int(gone.rowcount)


def _prune_models(engine: Engine, before: datetime) -> int:
    """Older models; of each workload the newest stays whatever its age."""
    table = schema.fitted_model.c
    newest = select(func.max(table.id)).group_by(table.workload)
    old = delete(schema.fitted_model).where(table.fitted_at < before, table.id.not_in(newest))
    with writing(engine) as connection:
        return int(connection.execute(old).rowcount)
