"""The decision log: settings, decisions, outcomes, fitted models."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# Written out rather than taken from the schema module: a migration must not change with it.
_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "policy_settings",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("payload", sa.Text, nullable=False),
    )
    op.create_table(
        "decision",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("workload", sa.String(253), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("policy", sa.String(64), nullable=False),
        sa.Column("current", sa.Integer, nullable=False),
        sa.Column("recommended", sa.Integer, nullable=False),
        sa.Column("desired", sa.Integer, nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("ready", sa.Integer, nullable=False),
        sa.Column("starting", sa.Integer, nullable=False),
        sa.Column("draining", sa.Integer, nullable=False),
        sa.Column("demand_qps", sa.Float),
        sa.Column("concurrency", sa.Float),
        sa.Column("latency_p99_seconds", sa.Float),
        sa.Column("forecast_at", _TIME),
        sa.Column("forecast_low_qps", sa.Float),
        sa.Column("forecast_median_qps", sa.Float),
        sa.Column("forecast_high_qps", sa.Float),
        sa.Column("forecast_trusted", sa.Boolean, nullable=False),
        sa.Column("problems", sa.Text, nullable=False),
        sa.Column(
            "settings_digest",
            sa.String(64),
            sa.ForeignKey("policy_settings.digest"),
            nullable=False,
        ),
        sa.Column("context_digest", sa.String(64), nullable=False),
        sa.Column("context", sa.LargeBinary, nullable=False),
        sa.Column("steps", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("decision_workload_at", "decision", ["workload", "at"])
    op.create_table(
        "outcome",
        sa.Column("decision_id", _ID, sa.ForeignKey("decision.id"), primary_key=True),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
    op.create_table(
        "fitted_model",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("workload", sa.String(253), nullable=False),
        sa.Column("fitted_at", _TIME, nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("fitted_model_workload", "fitted_model", ["workload", "id"])
