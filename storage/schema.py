"""The tables.

Rows of `decision`, `outcome` and `manual_override` are only ever added; each is an entry of its
workload's chain (`storage.chain`), of which `workload` holds the end.
"""

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

# The end of each workload's chain, and where its beginning is now: entries up to
# `pruned_sequence` were deleted on purpose, those of decisions before `kept_since`. Minutes
# before `rolled_up_to` are summed up in `minute`.
workload = Table(
    "workload",
    metadata,
    Column("name", String(253), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("pruned_sequence", BigInteger, nullable=False),
    Column("pruned_digest", String(64), nullable=False),
    Column("kept_since", UtcDateTime),
    Column("rolled_up_to", UtcDateTime),
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
    Column("notes", Text),
    Column("errors_qps", Float),
    Column("forecast_until", UtcDateTime),
    Column("sequence", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
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
    Column("sequence", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
)

# What reports need of the decisions of one minute: means, peaks and counts, and of the last one
# its forecast and its context (without the past decisions). It stays when they are pruned.
minute = Table(
    "minute",
    metadata,
    Column("workload", String(253), primary_key=True),
    Column("at", UtcDateTime, primary_key=True),
    Column("decisions", Integer, nullable=False),
    Column("current", Float, nullable=False),
    Column("desired", Float, nullable=False),
    Column("ready", Float, nullable=False),
    Column("starting", Float, nullable=False),
    Column("draining", Float, nullable=False),
    Column("demand_qps", Float),
    Column("demand_peak_qps", Float),
    Column("concurrency", Float),
    Column("latency_p99_seconds", Float),
    Column("errors_qps", Float),
    Column("forecast_at", UtcDateTime),
    Column("forecast_until", UtcDateTime),
    Column("forecast_low_qps", Float),
    Column("forecast_median_qps", Float),
    Column("forecast_high_qps", Float),
    Column("trusted", Integer, nullable=False),
    Column("qps_per_replica", Float),
    Column("lead_seconds", Float),
    Column("policy", String(64), nullable=False),
    Column("reasons", Text, nullable=False),
    Column("outcomes", Text, nullable=False),
    Column("problems", Text, nullable=False),
    Column("settings_digest", String(64), nullable=False),
    Column("context", LargeBinary),
)

# When the number asked for changed.
scale_event = Table(
    "scale_event",
    metadata,
    Column("decision_id", _Id, primary_key=True, autoincrement=False),
    Column("workload", String(253), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("before", Integer, nullable=False),
    Column("after", Integer, nullable=False),
    Column("reason", String(64), nullable=False),
    Column("demand_qps", Float),
    Column("outcome", String(16)),
    Index("scale_event_workload_at", "workload", "at"),
)

# What people decided instead of the policy; the newest row of a workload holds until it expires.
# A row of kind Release ends the one before it.
manual_override = Table(
    "manual_override",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("workload", String(253), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("replicas", Integer),
    Column("expires_at", UtcDateTime),
    Column("owner", String(100), nullable=False),
    Column("reason", String(500), nullable=False),
    Column("source", String(100), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Index("manual_override_workload", "workload", "id"),
    sqlite_autoincrement=True,
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
