"""Finding one decision in the log, by its id or by workload and time.

Knows how decisions are named by people. Raises StoreError where the log cannot be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Engine, RowMapping, func, select

from policies.context import ScalingContext
from policies.decision import Decision, Outcome, OutcomeKind
from scaler.ports import StoreError
from storage import codec, schema
from storage.database import reading
from storage.reports import timeline
from storage.reports.explanation import Explanation, explain, order_span

AFTERWARDS = timedelta(minutes=30)
"""How long after a decision it is looked for the next change, if the order's span ends before."""

_decision = schema.decision.c


LARGEST_ID = 2**63 - 1
"""That a database can be asked for."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A decision by its id, or the last one of a workload at or before a time."""

    id: int | None
    workload: str = ""
    at: datetime | None = None


def parse_reference(text: str) -> Reference:
    """`47`, or `WORKLOAD@2026-03-16T12:00:00Z`; raises ValueError."""
    if text.isdecimal():
        return Reference(min(int(text), LARGEST_ID))
    workload, at, time = text.rpartition("@")
    try:
        moment = datetime.fromisoformat(time)
        zoned = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        zoned = None
    if not at or not workload or zoned is None:
        raise ValueError(
            f"expected a decision's id, or WORKLOAD@TIME with an ISO-8601 time, got {text!r}"
        )
    return Reference(None, workload, zoned)


def explained(engine: Engine, reference: Reference) -> Explanation:
    """Raises ValueError where there is no such decision, StoreError where it cannot be read."""
    row = _row(engine, reference)
    if row is None:
        raise ValueError(_missing(engine, reference))
    context, decision, outcome = _whole(row)
    until = max(order_span(context)[1], context.now) + AFTERWARDS
    later = timeline.timeline(engine, context.workload, context.now, until)
    return explain(row["id"], context, decision, outcome, later)


def _row(engine: Engine, reference: Reference) -> RowMapping | None:
    wanted: list[ColumnElement[bool]] = [_decision.id == reference.id]
    if reference.at is not None:
        wanted = [_decision.workload == reference.workload, _decision.at <= reference.at]
    query = (
        select(
            _decision.id,
            _decision.context,
            _decision.steps,
            schema.policy_settings.c.payload,
            schema.outcome.c.kind,
            schema.outcome.c.detail,
        )
        .join(schema.policy_settings)
        .outerjoin(schema.outcome, schema.outcome.c.decision_id == _decision.id)
        .where(*wanted)
        .order_by(_decision.at.desc(), _decision.id.desc())
        .limit(1)
    )
    with reading(engine) as connection:
        return connection.execute(query).mappings().first()


def _whole(row: RowMapping) -> tuple[ScalingContext, Decision, Outcome | None]:
    try:
        context = codec.decode_context(codec.unpack(row["context"]), row["payload"])
        decision = codec.decode_decision(codec.unpack(row["steps"]))
    except ValueError as error:
        raise StoreError(f"stored decision {row['id']} cannot be read: {error}") from error
    outcome = Outcome(OutcomeKind(row["kind"]), row["detail"]) if row["kind"] else None
    return context, decision, outcome


def _missing(engine: Engine, reference: Reference) -> str:
    """That there is none, and what there is."""
    names = timeline.workload_names(engine)
    if reference.at is None:
        with reading(engine) as connection:
            first, last = connection.execute(
                select(func.min(_decision.id), func.max(_decision.id))
            ).one()
        there = f"the log holds {first} to {last}" if first is not None else "the log is empty"
        return f"there is no decision {reference.id}; {there}"
    if reference.workload not in names:
        some = ", ".join(repr(name) for name in names[:10]) or "none"
        return f"there is no workload {reference.workload!r} in the log; there are: {some}"
    at = reference.at.isoformat()
    return f"the log holds no decision of {reference.workload!r} at or before {at}"
