"""SqlDecisionStore: the decision log in SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, insert, select
from sqlalchemy.exc import IntegrityError

from forecaster.forecast import FittedModel
from policies.context import Override, PastDecision, ScalingContext
from policies.decision import MAY_HAVE_WRITTEN, Decision, Outcome
from scaler.band import forecast_band
from scaler.ports import StoreError
from storage import codec, schema
from storage.database import reading, writing
from storage.entries import append
from storage.overrides import as_override, newest_override
from storage.rollups import minute_of, roll_up


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """A decision as it stands in the log, with the context that it was made from."""

    id: int
    context: ScalingContext
    decision: Decision


class SqlDecisionStore:
    """Implements DecisionStore; safe to use from several threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._settings_stored: set[str] = set()
        self._rolled_up_to: dict[str, datetime] = {}

    def recent(self, workload: str, since: datetime) -> Sequence[PastDecision]:
        table = schema.decision.c
        query = (
            select(
                table.at,
                table.current,
                table.recommended,
                table.desired,
                table.demand_qps,
                table.concurrency,
                table.notes,
            )
            .where(table.workload == workload, table.at >= since)
            .order_by(table.id)
        )
        with reading(self._engine) as connection:
            return [
                PastDecision(*row[:-1], codec.decode_notes(row.notes))
                for row in connection.execute(query)
            ]

    def last_epoch(self, workload: str) -> int:
        table = schema.decision.c
        query = (
            select(table.epoch)
            .where(table.workload == workload)
            .order_by(table.at.desc(), table.id.desc())
            .limit(1)
        )
        with reading(self._engine) as connection:
            return connection.execute(query).scalar() or 0

    def wrote(self, workload: str, epoch: int, since: datetime) -> bool:
        table, kind = schema.decision.c, schema.outcome.c.kind
        query = (
            select(table.id)
            .outerjoin(schema.outcome)
            .where(table.workload == workload, table.at >= since, table.epoch == epoch)
            .where(kind.is_(None) | kind.in_([each.value for each in MAY_HAVE_WRITTEN]))
            .limit(1)
        )
        with reading(self._engine) as connection:
            return connection.execute(query).scalar() is not None

    def override(self, workload: str, now: datetime) -> Override | None:
        with reading(self._engine) as connection:
            return as_override(newest_override(connection, workload, now))

    def record(self, context: ScalingContext, decision: Decision) -> int:
        settings = codec.encode_settings(context.settings)
        settings_digest = codec.digest(settings)
        if settings_digest not in self._settings_stored:
            self._store_settings(settings_digest, settings)
        row = decision_row(context, decision) | {"settings_digest": settings_digest}
        with writing(self._engine) as connection:
            decision_id = append(connection, schema.decision, row, context.workload)
            rolled_up_to = self._rolled_up(connection, context)
        self._rolled_up_to[context.workload] = rolled_up_to
        return decision_id

    def record_outcome(self, decision_id: int, at: datetime, outcome: Outcome) -> None:
        table = schema.decision.c
        row = {
            "decision_id": decision_id,
            "at": at,
            "kind": outcome.kind.value,
            "detail": outcome.detail,
        }
        with writing(self._engine) as connection:
            mine = select(table.workload).where(table.id == decision_id)
            append(connection, schema.outcome, row, connection.execute(mine).scalar_one())

    def save_model(self, workload: str, fitted: FittedModel) -> None:
        row = {
            "workload": workload,
            "fitted_at": fitted.fitted_at,
            "model": fitted.model,
            "payload": codec.pack(codec.encode_model(fitted)),
        }
        with writing(self._engine) as connection:
            connection.execute(insert(schema.fitted_model), row)

    def latest_model(self, workload: str) -> FittedModel | None:
        table = schema.fitted_model.c
        query = (
            select(table.payload)
            .where(table.workload == workload)
            .order_by(table.id.desc())
            .limit(1)
        )
        with reading(self._engine) as connection:
            payload = connection.execute(query).scalar()
        if payload is None:
            return None
        try:
            return codec.decode_model(codec.unpack(payload))
        except ValueError as error:
            raise StoreError(f"the stored model of {workload} cannot be read: {error}") from error

    def stored(self, workload: str, since: datetime, until: datetime) -> Iterator[StoredDecision]:
        """Decisions with their contexts in [since, until), oldest first."""
        table = schema.decision.c
        query = (
            select(table.id, table.context, table.steps, schema.policy_settings.c.payload)
            .join(schema.policy_settings)
            .where(table.workload == workload, table.at >= since, table.at < until)
            .order_by(table.id)
        )
        with reading(self._engine) as connection:
            for row in connection.execute(query.execution_options(yield_per=1000)):
                context = codec.decode_context(codec.unpack(row.context), row.payload)
                decision = codec.decode_decision(codec.unpack(row.steps))
                yield StoredDecision(row.id, context, decision)

    def _rolled_up(self, connection: Connection, context: ScalingContext) -> datetime:
        """Sum the minutes before this decision's up, unless that was done."""
        done = self._rolled_up_to.get(context.workload)
        if done is not None and done == minute_of(context.now):
            return done
        return roll_up(connection, context.workload, context.now)

    def _store_settings(self, digest: str, payload: str) -> None:
        table = schema.policy_settings
        with reading(self._engine) as connection:
            known = connection.execute(select(table.c.digest).where(table.c.digest == digest))
            present = known.scalar() is not None
        if not present:
            try:
                with writing(self._engine) as connection:
                    connection.execute(insert(table), {"digest": digest, "payload": payload})
            except StoreError as error:
                # Another loop stored the same settings a moment earlier: they are there.
                if not isinstance(error.__cause__, IntegrityError):
                    raise
        self._settings_stored.add(digest)


def decision_row(context: ScalingContext, decision: Decision) -> dict[str, Any]:
    """The row of a decision: what reports read in columns, and the whole of it beside."""
    text = codec.encode_context(context)
    observation, replicas = context.observation, context.replicas
    return {
        "workload": context.workload,
        "at": context.now,
        "epoch": decision.epoch,
        "policy": context.settings.policy,
        "current": decision.current,
        "recommended": decision.recommended,
        "desired": decision.desired,
        "reason": decision.reason.value,
        "ready": replicas.ready,
        "starting": len(replicas.starting),
        "draining": replicas.draining,
        "demand_qps": context.demand_qps,
        "concurrency": observation.concurrency,
        "latency_p99_seconds": observation.latency_p99_seconds,
        "errors_qps": observation.errors_qps,
        **_forecast_columns(context),
        "problems": "; ".join(
            f"{problem.source.value} {problem.kind.value}: {problem.message}"
            for problem in context.problems
        ),
        "context_digest": codec.digest(text),
        "context": codec.pack(text),
        "steps": codec.pack(codec.encode_decision(decision)),
        "notes": codec.encode_notes(decision.notes),
    }


def _forecast_columns(context: ScalingContext) -> dict[str, Any]:
    """The forecast for the span in which a replica ordered now is what can still be ordered."""
    forecast, band = context.forecast, forecast_band(context)
    order = forecast.window("order") if forecast else None
    return {
        "forecast_at": order.starts_at if order else None,
        "forecast_until": order.ends_at if order else None,
        "forecast_low_qps": band.low_qps if band else None,
        "forecast_median_qps": band.median_qps if band else None,
        "forecast_high_qps": band.high_qps if band else None,
        "forecast_trusted": bool(forecast and forecast.trusted),
    }
