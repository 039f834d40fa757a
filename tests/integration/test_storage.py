"""The decision log on real databases: exactness, migration, faults."""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, inspect, select, text
from sqlalchemy.exc import IntegrityError

from policies.context import Problem, ProblemKind, ProblemSource
from policies.decision import Outcome, OutcomeKind
from policies.engine import decide
from scaler.ports import StoreError
from storage import database, schema
from storage.decisions import SqlDecisionStore
from tests.situations import NOON, decided_before, flat_forecast, situation

HOSTILE = "<script>alert(1)</script>'; DROP TABLE decision; --\n\u202e=cmd()"


def test_contexts_and_decisions_come_back_equal(engine: Engine) -> None:
    store = SqlDecisionStore(engine)
    problem = Problem(ProblemSource.SIGNALS, ProblemKind.PARTIAL, HOSTILE)
    context = replace(
        decided_before(situation(forecast=flat_forecast(9_000.1 / 3, 0.3)), {15: 9, 30: 10}, 8e3),
        problems=(problem,),
        workload=HOSTILE[:60],
    )
    decision = decide(context)
    store.record(context, decision)
    stored = list(store.stored(context.workload, NOON, NOON + timedelta(seconds=1)))
    assert [(row.context, row.decision) for row in stored] == [(context, decision)]


def test_settings_are_stored_once(engine: Engine) -> None:
    store, again = SqlDecisionStore(engine), SqlDecisionStore(engine)
    for epoch in range(4):
        context = replace(situation(), epoch=epoch + 1)
        (store if epoch % 2 else again).record(context, decide(context))
    with engine.connect() as connection:
        assert len(connection.execute(select(schema.policy_settings)).all()) == 1


def test_an_outcome_is_written_once(engine: Engine) -> None:
    store = SqlDecisionStore(engine)
    decision_id = store.record(situation(), decide(situation()))
    store.record_outcome(decision_id, NOON, Outcome(OutcomeKind.APPLIED))
    with pytest.raises(StoreError) as caught:
        store.record_outcome(decision_id, NOON, Outcome(OutcomeKind.FAILED))
    assert isinstance(caught.value.__cause__, IntegrityError)


def test_a_time_without_zone_is_refused(engine: Engine) -> None:
    row = {"decision_id": 1, "at": NOON.replace(tzinfo=None), "kind": "x", "detail": ""}
    with engine.connect() as connection, pytest.raises(Exception, match="without zone"):
        connection.execute(insert(schema.outcome), row)


def test_the_migrations_make_the_tables_that_the_code_uses(engine: Engine) -> None:
    inspector = inspect(engine)
    for table in schema.metadata.sorted_tables:
        found = {column["name"]: column["nullable"] for column in inspector.get_columns(table.name)}
        wanted = {column.name: column.nullable for column in table.columns}
        assert found == wanted, table.name


def test_upgrading_twice_changes_nothing(engine: Engine) -> None:
    assert database.revision(engine) == database.head()
    assert database.upgrade(engine) == database.head()


def test_a_database_of_another_version_is_not_touched(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    wanted = f"is at schema 9999, this version needs {database.head()}"
    with pytest.raises(StoreError, match=wanted):
        database.prepare(engine)


def test_many_threads_write_and_read_one_log(engine: Engine) -> None:
    store = SqlDecisionStore(engine)

    def write(number: int) -> None:
        for epoch in range(20):
            context = replace(situation(), workload=f"w{number}", epoch=epoch + 1)
            store.record_outcome(
                store.record(context, decide(context)), NOON, Outcome(OutcomeKind.UNCHANGED)
            )
            store.recent(f"w{number}", NOON)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(store.recent(f"w{number}", NOON)) for number in range(6)] == [20] * 6


def test_a_locked_database_is_an_error_of_our_own(tmp_path: Path) -> None:
    path = tmp_path / "locked.db"
    engine = database.open_engine(f"sqlite:///{path}")
    database.upgrade(engine)
    store = SqlDecisionStore(engine)
    with engine.connect() as connection:
        connection.execute(text("PRAGMA busy_timeout=1"))  # the pool hands out this connection
    holder = sqlite3.connect(path)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(StoreError, match="locked"):
            store.record(situation(), decide(situation()))
    finally:
        holder.close()
        engine.dispose()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mysql://root@localhost/x?password=s3cret", "expected sqlite:///FILE or postgresql"),
        ("postgresql+psycopg2://root:s3cret@localhost/x", "is not installed: run make postgres"),
        ("nonsense", "cannot be read"),
        ("sqlite:////nowhere/at/all.db", "unable to open database file"),
        ("postgresql+psycopg://nobody@127.0.0.1:1/x", "refused"),
    ],
)
def test_databases_that_cannot_be_opened(url: str, expected: str) -> None:
    with pytest.raises(StoreError, match=expected) as raised:
        database.prepare(database.open_engine(url))
    assert "s3cret" not in str(raised.value)


def test_a_corrupt_database_is_named_as_one(tmp_path: Path) -> None:
    path = tmp_path / "corrupt.db"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreError, match="not a database"):
        database.prepare(database.open_engine(f"sqlite:///{path}"))
