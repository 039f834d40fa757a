"""The tables. Rows of `decision` and `outcome` are only ever added."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)


class UtcDateTime(TypeDecorator[datetime]):
    """A UTC time that comes back as one; SQLite drops the zone of what it stores."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"refusing to store a time without zone: {value}")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(
        self,
        value: datetime | None,
        dialect: Dialect,  # noqa: ARG002  # SQLAlchemy's signature
    ) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData()

# SQLite numbers rows by itself only in a column of type INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")

policy_settings = Table(
    "policy_settings",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("payload", Text, nullable=False),
)

decision = Table(
    "decision",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("workload", String(253), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("policy", String(64), nullable=False),
    Column("current", Integer, nullable=False),
    Column("recommended", Integer, nullable=False),
    Column("desired", Integer, nullable=False),
    Column("reason", String(64), nullable=False),
    Column("ready", Integer, nullable=False),
    Column("starting", Integer, nullable=False),
    Column("draining", Integer, nullable=False),
    Column("demand_qps", Float),
    Column("concurrency", Float),
    Column("latency_p99_seconds", Float),
    Column("forecast_at", UtcDateTime),
    Column("forecast_low_qps", Float),
    Column("forecast_median_qps", Float),
    Column("forecast_high_qps", Float),
    Column("forecast_trusted", Boolean, nullable=False),
    Column("problems", Text, nullable=False),
    Column("settings_digest", String(64), ForeignKey("policy_settings.digest"), nullable=False),
    Column("context_digest", String(64), nullable=False),
    Column("context", LargeBinary, nullable=False),
    Column("steps", LargeBinary, nullable=False),
    Index("decision_workload_at", "workload", "at"),
    sqlite_autoincrement=True,
)

outcome = Table(
    "outcome",
    metadata,
    Column("decision_id", _Id, ForeignKey("decision.id"), primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("detail", Text, nullable=False),
)

fitted_model = Table(
    "fitted_model",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("workload", String(253), nullable=False),
    Column("fitted_at", UtcDateTime, nullable=False),
    Column("model", String(64), nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Index("fitted_model_workload", "workload", "id"),
    sqlite_autoincrement=True,
)
