"""Minutes and scale events: what reports read, and what stays when decisions are pruned."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("workload", sa.Column("kept_since", _TIME))
    op.add_column("workload", sa.Column("rolled_up_to", _TIME))
    op.create_table(
        "minute",
        sa.Column("workload", sa.String(253), primary_key=True),
        sa.Column("at", _TIME, primary_key=True),
        sa.Column("decisions", sa.Integer, nullable=False),
        *(
            sa.Column(name, sa.Float, nullable=False)
            for name in ("current", "desired", "ready", "starting", "draining")
        ),
        *(
            sa.Column(name, sa.Float)
            for name in (
                "demand_qps",
                "demand_peak_qps",
                "concurrency",
                "latency_p99_seconds",
                "errors_qps",
            )
        ),
        sa.Column("forecast_at", _TIME),
        sa.Column("forecast_until", _TIME),
        *(
            sa.Column(name, sa.Float)
            for name in ("forecast_low_qps", "forecast_median_qps", "forecast_high_qps")
        ),
        sa.Column("trusted", sa.Integer, nullable=False),
        sa.Column("qps_per_replica", sa.Float),
        sa.Column("lead_seconds", sa.Float),
        sa.Column("policy", sa.String(64), nullable=False),
        sa.Column("reasons", sa.Text, nullable=False),
        sa.Column("outcomes", sa.Text, nullable=False),
        sa.Column("problems", sa.Text, nullable=False),
        sa.Column("settings_digest", sa.String(64), nullable=False),
        sa.Column("context", sa.LargeBinary),
    )
    op.create_table(
        "scale_event",
        sa.Column("decision_id", _ID, primary_key=True, autoincrement=False),
        sa.Column("workload", sa.String(253), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("before", sa.Integer, nullable=False),
        sa.Column("after", sa.Integer, nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("demand_qps", sa.Float),
        sa.Column("outcome", sa.String(16)),
    )
    op.create_index("scale_event_workload_at", "scale_event", ["workload", "at"])
