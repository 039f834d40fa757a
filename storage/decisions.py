"""SqlDecisionStore: the decision log in SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, insert, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from forecaster.errors import LOWEST_LEVEL
from forecaster.forecast import FittedModel
from policies.context import PastDecision, ScalingContext
from policies.decision import Decision, Outcome
from policies.predictive import DEFAULT_QUANTILE
from scaler.ports import StoreError
from storage import codec, schema
from storage.database import reason


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
            )
            .where(table.workload == workload, table.at >= since)
            .order_by(table.id)
        )
        with self._connection() as connection:
            return [PastDecision(*row) for row in connection.execute(query)]

    def last_epoch(self, workload: str) -> int:
        table = schema.decision.c
        query = (
            select(table.epoch)
            .where(table.workload == workload)
            .order_by(table.at.desc(), table.id.desc())
            .limit(1)
        )
        with self._connection() as connection:
            return connection.execute(query).scalar() or 0

    def record(self, context: ScalingContext, decision: Decision) -> int:
        settings = codec.encode_settings(context.settings)
        settings_digest = codec.digest(settings)
        if settings_digest not in self._settings_stored:
            self._store_settings(settings_digest, settings)
        row = _row(context, decision) | {"settings_digest": settings_digest}
        with self._transaction() as connection:
            result = connection.execute(insert(schema.decision), row)
            key = result.inserted_primary_key
            assert key is not None
            return int(key[0])

    def record_outcome(self, decision_id: int, at: datetime, outcome: Outcome) -> None:
        row = {
            "decision_id": decision_id,
            "at": at,
            "kind": outcome.kind.value,
            "detail": outcome.detail,
        }
        with self._transaction() as connection:
            connection.execute(insert(schema.outcome), row)

    def save_model(self, workload: str, fitted: FittedModel) -> None:
        row = {
            "workload": workload,
            "fitted_at": fitted.fitted_at,
            "model": fitted.model,
            "payload": codec.pack(codec.encode_model(fitted)),
        }
        with self._transaction() as connection:
            connection.execute(insert(schema.fitted_model), row)

    def latest_model(self, workload: str) -> FittedModel | None:
        table = schema.fitted_model.c
        query = (
            select(table.payload)
            .where(table.workload == workload)
            .order_by(table.id.desc())
            .limit(1)
        )
        with self._connection() as connection:
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
        with self._connection() as connection:
            for row in connection.execute(query.execution_options(yield_per=1000)):
                context = codec.decode_context(codec.unpack(row.context), row.payload)
                decision = codec.decode_decision(codec.unpack(row.steps))
                yield StoredDecision(row.id, context, decision)

    def _store_settings(self, digest: str, payload: str) -> None:
        table = schema.policy_settings
        with self._connection() as connection:
            known = connection.execute(select(table.c.digest).where(table.c.digest == digest))
            present = known.scalar() is not None
        if not present:
            try:
                with self._transaction() as connection:
                    connection.execute(insert(table), {"digest": digest, "payload": payload})
            except StoreError as error:
                # Another loop stored the same settings a moment earlier: they are there.
                if not isinstance(error.__cause__, IntegrityError):
                    raise
        self._settings_stored.add(digest)

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise StoreError(f"the decision log cannot be read: {reason(error)}") from error

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise StoreError(f"the decision log cannot be written: {reason(error)}") from error


def _row(context: ScalingContext, decision: Decision) -> dict[str, Any]:
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
        **_forecast_columns(context),
        "problems": "; ".join(
            f"{problem.source.value} {problem.kind.value}: {problem.message}"
            for problem in context.problems
        ),
        "context_digest": codec.digest(text),
        "context": codec.pack(text),
        "steps": codec.pack(codec.encode_decision(decision)),
    }


def _forecast_columns(context: ScalingContext) -> dict[str, Any]:
    """The forecast for the moment that a replica ordered now would serve."""
    forecast = context.forecast
    columns: dict[str, Any] = {
        "forecast_at": None,
        "forecast_low_qps": None,
        "forecast_median_qps": None,
        "forecast_high_qps": None,
        "forecast_trusted": bool(forecast and forecast.trusted),
    }
    if forecast is None:
        return columns
    serves_at = context.now + timedelta(seconds=context.lead_time.p95_seconds)
    level = context.settings.parameter("quantile", DEFAULT_QUANTILE)
    columns["forecast_at"] = serves_at
    for name, wanted in (("low", LOWEST_LEVEL), ("median", 0.5), ("high", level)):
        columns[f"forecast_{name}_qps"] = forecast.peak(wanted, serves_at, serves_at)
    return columns
