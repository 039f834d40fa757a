"""The hash chain, over what is there already too; and columns that reports ask for."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

from storage.chain import DECISION, GENESIS, OUTCOME, Link, content_digest, linked

revision = "0002"
down_revision = "0001"

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TIME = sa.DateTime(timezone=True)
_AT_ONCE = 500


def upgrade() -> None:
    op.create_table(
        "workload",
        sa.Column("name", sa.String(253), primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("pruned_sequence", sa.BigInteger, nullable=False),
        sa.Column("pruned_digest", sa.String(64), nullable=False),
    )
    op.add_column("decision", sa.Column("notes", sa.Text))
    op.add_column("decision", sa.Column("errors_qps", sa.Float))
    op.add_column("decision", sa.Column("forecast_until", _TIME))
    for table in ("decision", "outcome"):
        # A default, since SQLite adds no column without one to a table that holds rows.
        op.add_column(
            table, sa.Column("sequence", sa.BigInteger, nullable=False, server_default="0")
        )
        op.add_column(table, sa.Column("digest", sa.String(64), nullable=False, server_default=""))
    _chain_what_is_there(op.get_bind())


_decision = sa.table(
    "decision",
    sa.column("id", _ID),
    sa.column("workload", sa.String),
    sa.column("at", _TIME),
    sa.column("epoch", sa.BigInteger),
    sa.column("policy", sa.String),
    sa.column("current", sa.Integer),
    sa.column("recommended", sa.Integer),
    sa.column("desired", sa.Integer),
    sa.column("reason", sa.String),
    sa.column("ready", sa.Integer),
    sa.column("starting", sa.Integer),
    sa.column("draining", sa.Integer),
    sa.column("demand_qps", sa.Float),
    sa.column("concurrency", sa.Float),
    sa.column("latency_p99_seconds", sa.Float),
    sa.column("forecast_at", _TIME),
    sa.column("forecast_low_qps", sa.Float),
    sa.column("forecast_median_qps", sa.Float),
    sa.column("forecast_high_qps", sa.Float),
    sa.column("forecast_trusted", sa.Boolean),
    sa.column("problems", sa.Text),
    sa.column("settings_digest", sa.String),
    sa.column("context_digest", sa.String),
    sa.column("context", sa.LargeBinary),
    sa.column("steps", sa.LargeBinary),
    sa.column("sequence", sa.BigInteger),
    sa.column("digest", sa.String),
)
_outcome = sa.table(
    "outcome",
    sa.column("decision_id", _ID),
    sa.column("at", _TIME),
    sa.column("kind", sa.String),
    sa.column("detail", sa.Text),
    sa.column("sequence", sa.BigInteger),
    sa.column("digest", sa.String),
)
_workload = sa.table(
    "workload",
    *(
        sa.column(name)
        for name in ("name", "sequence", "digest", "pruned_sequence", "pruned_digest")
    ),
)


def _chain_what_is_there(connection: sa.Connection) -> None:
    """In the order of ids, each decision followed by its outcome."""
    ends: dict[str, Link] = {}
    for rows in _in_pieces(connection):
        decisions, outcomes = [], []
        for row, outcome in rows:
            place = _entry(DECISION, row, ends.get(row["workload"], GENESIS))
            decisions.append({"key": row["id"], "place": place.sequence, "seal": place.digest})
            if outcome is not None:
                place = _entry(OUTCOME, outcome, place)
                outcomes.append({"key": row["id"], "place": place.sequence, "seal": place.digest})
            ends[row["workload"]] = place
        _store(connection, _decision, _decision.c.id, decisions)
        _store(connection, _outcome, _outcome.c.decision_id, outcomes)
    for name, end in ends.items():
        row = {"name": name, "sequence": end.sequence, "digest": end.digest}
        row |= {"pruned_sequence": GENESIS.sequence, "pruned_digest": GENESIS.digest}
        connection.execute(sa.insert(_workload), row)


def _entry(kind: str, row: dict[str, Any], before: Link) -> Link:
    content = content_digest(kind, row | {"sequence": before.sequence + 1})
    return Link(before.sequence + 1, linked(before.digest, content))


def _in_pieces(
    connection: sa.Connection,
) -> Iterator[list[tuple[dict[str, Any], dict[str, Any] | None]]]:
    last = 0
    while True:
        query = sa.select(_decision).where(_decision.c.id > last).order_by(_decision.c.id)
        rows = [_read(row) for row in connection.execute(query.limit(_AT_ONCE)).mappings()]
        if not rows:
            return
        ids = [row["id"] for row in rows]
        found = connection.execute(sa.select(_outcome).where(_outcome.c.decision_id.in_(ids)))
        outcomes = {row["decision_id"]: _read(row) for row in found.mappings()}
        yield [(row, outcomes.get(row["id"])) for row in rows]
        last = ids[-1]


def _read(row: Any) -> dict[str, Any]:
    """SQLite drops the zone of a time; all of ours are UTC."""
    return {
        name: value.replace(tzinfo=UTC)
        if isinstance(value, datetime) and value.tzinfo is None
        else value
        for name, value in row.items()
    }


def _store(
    connection: sa.Connection, table: sa.TableClause, key: Any, rows: list[dict[str, Any]]
) -> None:
    if rows:
        change = sa.update(table).where(key == sa.bindparam("key"))
        places: dict[str, Any] = {"sequence": sa.bindparam("place"), "digest": sa.bindparam("seal")}
        connection.execute(change.values(places), rows)
