"""Roll-ups: a minute's decisions in one row, and each change of the number asked for.

Knows what of a decision reports need. The store sums a minute up when the next one begins, so
that no job is needed for it; what is not summed up yet is summed up in memory when it is read.
Where a connection is handed in, what the database raises is raised.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, delete, insert, null, select, update

from storage import codec, schema
from storage.database import reading, writing

MINUTE = timedelta(minutes=1)
AT_ONCE = timedelta(hours=1)
"""What is summed up in one transaction; a log that was never summed up takes many."""

Row = dict[str, Any]
Values = Mapping[str, Any] | RowMapping

_decision = schema.decision.c
MEANS = ("current", "desired", "ready", "starting", "draining")
KNOWN_MEANS = ("demand_qps", "concurrency", "errors_qps")
OF_THE_LAST = (
    "policy",
    "forecast_at",
    "forecast_until",
    "forecast_low_qps",
    "forecast_median_qps",
    "forecast_high_qps",
    "settings_digest",
)
_READ = (
    "id",
    "at",
    "workload",
    "sequence",
    "reason",
    "forecast_trusted",
    "latency_p99_seconds",
    "problems",
    "context",
    *MEANS,
    *KNOWN_MEANS,
    *OF_THE_LAST,
)


MINUTE_COLUMNS = tuple(schema.minute.c.keys())


def minute_of(at: datetime) -> datetime:
    """The beginning of the minute."""
    return at.replace(second=0, microsecond=0)


def roll_up(connection: Connection, workload: str, now: datetime) -> datetime:
    """Sum up what lies before the minute of `now`, an hour at most; returns up to where.

    A decision that came late (the clock was set back, or the log was away) lies before that: its
    minute is summed up again.
    """
    mine = schema.workload.c.name == workload
    query = select(schema.workload.c.rolled_up_to).where(mine)
    done: datetime | None = connection.execute(query).scalar()
    this_minute = minute_of(now)
    if done is not None and this_minute < done:
        _forget(connection, workload, this_minute, this_minute + MINUTE)
        _sum_up(connection, workload, this_minute, this_minute + MINUTE)
        return done
    start = done or _first(connection, workload) or this_minute
    until = min(this_minute, start + AT_ONCE)
    _sum_up(connection, workload, start, until)
    if until < this_minute:
        # Nothing may have been logged for weeks: the next hour begins where something was.
        until = min(this_minute, _first(connection, workload, until) or this_minute)
    connection.execute(update(schema.workload).where(mine).values(rolled_up_to=until))
    return until


def catch_up(engine: Engine, on_progress: Callable[[float], None] = lambda _: None) -> None:
    """Sum up everything that is there, up to each workload's newest decision."""
    with reading(engine) as connection:
        names = connection.execute(select(schema.workload.c.name)).scalars().all()
    for number, name in enumerate(names):
        for share in _caught_up(engine, name):
            on_progress((number + share) / len(names))
    on_progress(1.0)


def _caught_up(engine: Engine, workload: str) -> Iterator[float]:
    """The share that is done, after each transaction."""
    with reading(engine) as connection:
        first = _first(connection, workload)
        query = (
            select(_decision.at)
            .where(_decision.workload == workload)
            .order_by(_decision.at.desc())
            .limit(1)
        )
        last = connection.execute(query).scalar()
    if first is None or last is None:
        return
    done = first
    while done < minute_of(last):
        with writing(engine) as connection:
            done = roll_up(connection, workload, last)
        yield (done - first) / max(minute_of(last) - first, MINUTE)


def minutes(
    connection: Connection,
    workload: str,
    since: datetime,
    until: datetime,
    contexts: bool = True,
) -> list[Sequence[Any]]:
    """The minutes that begin in [since, until) with MINUTE_COLUMNS, oldest first; the newest ones
    summed up now. Without their contexts, which are most of what is stored, these are null."""
    table = schema.minute.c
    done = _done(connection, workload, since)
    columns = (
        one if contexts or one is not table.context else null().label("context") for one in table
    )
    query = (
        select(*columns)
        .where(table.workload == workload, table.at >= since, table.at < min(done, until))
        .order_by(table.at)
    )
    stored = connection.execute(query).all()
    newest, _ = summed_up(connection, workload, done, until)
    return [*stored, *([row[name] for name in MINUTE_COLUMNS] for row in newest)]


def events(connection: Connection, workload: str, since: datetime, until: datetime) -> list[Row]:
    """When the number asked for changed in [since, until), oldest first."""
    table = schema.scale_event.c
    done = _done(connection, workload, since)
    query = (
        select(schema.scale_event)
        .where(table.workload == workload, table.at >= since, table.at < min(done, until))
        .order_by(table.at, table.decision_id)
    )
    stored = [dict(row) for row in connection.execute(query).mappings()]
    return [*stored, *summed_up(connection, workload, done, until)[1]]


def summed_up(
    connection: Connection, workload: str, since: datetime, until: datetime
) -> tuple[list[Row], list[Row]]:
    """The minutes of [since, until) and the events in it, from the decisions themselves."""
    rows = decisions(connection, workload, since, until)
    if not rows:
        return [], []
    found = [_minute(workload, list(group)) for _, group in groupby(rows, _minute_of_row)]
    return found, changes(workload, rows, _desired_before(connection, workload, rows[0]))


def _done(connection: Connection, workload: str, since: datetime) -> datetime:
    """From when on, `since` at the earliest, minutes are not summed up yet.

    It is read before the minutes, which the daemon may add to meanwhile: each is then taken from
    there or from its decisions, never from both.
    """
    mine = schema.workload.c.name == workload
    query = select(schema.workload.c.rolled_up_to, schema.workload.c.kept_since).where(mine)
    known: list[datetime] = [at for row in connection.execute(query) for at in row if at]
    return max([since, *known])


def _sum_up(connection: Connection, workload: str, since: datetime, until: datetime) -> None:
    found, changes = summed_up(connection, workload, since, until)
    for table, rows in ((schema.minute, found), (schema.scale_event, changes)):
        if rows:
            connection.execute(insert(table), rows)


def _forget(connection: Connection, workload: str, since: datetime, until: datetime) -> None:
    for table in (schema.minute, schema.scale_event):
        mine = (table.c.workload == workload, table.c.at >= since, table.c.at < until)
        connection.execute(delete(table).where(*mine))


def _desired_before(connection: Connection, workload: str, row: RowMapping) -> int:
    """What the decision before this one asked for; what ran where it is the first.

    Compared with that rather than with what runs, so that a decision that is not applied (shadow
    mode) is one event and not one a tick.
    """
    query = (
        select(_decision.desired)
        .where(_decision.workload == workload, _decision.at < row["at"])
        .order_by(_decision.at.desc(), _decision.id.desc())
        .limit(1)
    )
    before: int | None = connection.execute(query).scalar()
    return row["current"] if before is None else before


def _first(connection: Connection, workload: str, since: datetime | None = None) -> datetime | None:
    """The minute of the first decision, at or after a time."""
    query = select(_decision.at).where(_decision.workload == workload)
    if since is not None:
        query = query.where(_decision.at >= since)
    at = connection.execute(query.order_by(_decision.at).limit(1)).scalar()
    return None if at is None else minute_of(at)


def decisions(
    connection: Connection, workload: str, since: datetime, until: datetime
) -> Sequence[RowMapping]:
    """What is summed up of the decisions in [since, until), in the order of time, with the `kind`
    and the `outcome_sequence` of what came of them."""
    outcome = schema.outcome.c
    query = (
        select(
            *(_decision[name] for name in _READ),
            outcome.kind,
            outcome.sequence.label("outcome_sequence"),
        )
        .outerjoin(schema.outcome, schema.outcome.c.decision_id == _decision.id)
        .where(_decision.workload == workload, _decision.at >= since, _decision.at < until)
        .order_by(_decision.at, _decision.id)
    )
    return connection.execute(query).mappings().all()


def _minute_of_row(row: RowMapping) -> datetime:
    return minute_of(row["at"])


def _minute(workload: str, rows: Sequence[RowMapping]) -> Row:
    context, capacity, lead = _thinned(rows[-1]["context"])
    beside = {"context": context, "qps_per_replica": capacity, "lead_seconds": lead}
    return figures(workload, rows) | beside


def figures(workload: str, rows: Sequence[Values]) -> Row:
    """The row of a minute with these decisions, but for what the last one's context tells."""
    last = rows[-1]
    return {
        "workload": workload,
        "at": minute_of(last["at"]),
        "decisions": len(rows),
        **{name: _mean(row[name] for row in rows) for name in (*MEANS, *KNOWN_MEANS)},
        "demand_peak_qps": _highest(row["demand_qps"] for row in rows),
        "latency_p99_seconds": _highest(row["latency_p99_seconds"] for row in rows),
        **{name: last[name] for name in OF_THE_LAST},
        "trusted": sum(row["forecast_trusted"] for row in rows),
        "reasons": _counts(row["reason"] for row in rows),
        "outcomes": _counts(row["kind"] or "" for row in rows),
        "problems": next((row["problems"] for row in reversed(rows) if row["problems"]), ""),
    }


def is_told_by(minute: Values, context: bytes) -> bool:
    """Whether what a minute holds of its last decision's context is what that context says."""
    known = minute["qps_per_replica"], minute["lead_seconds"]
    if minute["context"] is None:
        return (None, *known) == _thinned(context)
    try:
        return known == codec.figures_of_thinned(
            codec.unpack(minute["context"]), codec.unpack(context)
        )
    except (ValueError, KeyError, TypeError):
        return False


def _thinned(stored: bytes) -> tuple[bytes | None, float | None, float | None]:
    """The context without its past, the capacity of a replica and the median lead time.

    None where it cannot be read, which verification tells; a report goes on without it.
    """
    try:
        text, capacity, lead = codec.thinned_context(codec.unpack(stored))
    except (ValueError, KeyError, TypeError):
        return None, None, None
    return codec.pack(text), capacity, lead


def changes(workload: str, rows: Sequence[Values], before: int) -> list[Row]:
    """The scale events of these decisions, after one that asked for `before`."""
    found = []
    for row in rows:
        if row["desired"] != before:
            found.append(_event(workload, row, before))
        before = row["desired"]
    return found


def _event(workload: str, row: Values, before: int) -> Row:
    return {
        "decision_id": row["id"],
        "workload": workload,
        "at": row["at"],
        "before": before,
        "after": row["desired"],
        "reason": row["reason"],
        "demand_qps": row["demand_qps"],
        "outcome": row["kind"],
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _highest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _counts(names: Iterable[str]) -> str:
    return json.dumps(Counter(names), sort_keys=True, separators=(",", ":"))
