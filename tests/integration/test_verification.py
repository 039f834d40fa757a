"""Verification of real logs: what is sound stays sound, and every tampering is found and named."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Engine, MetaData, insert, select, text, update

from policies.context import Observation
from policies.decision import Outcome, OutcomeKind
from policies.engine import decide
from storage import codec, database, schema
from storage.chain import FaultKind
from storage.database import open_engine, upgrade
from storage.decisions import SqlDecisionStore
from storage.rollups import MINUTE_COLUMNS
from storage.verification import Verification, verify
from tests.integration.commands import run
from tests.log_builder import MIDNIGHT, fill_log
from tests.situations import settings, situation

GOLDEN = Path(__file__).parents[1] / "golden"
HOURS, INTERVAL = 1.0, 30


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of two workloads, as it was written."""
    path = tmp_path_factory.mktemp("written") / "daybreak.db"
    engine = open_engine(f"sqlite:///{path}")
    upgrade(engine)
    store = SqlDecisionStore(engine)
    fill_log(store, hours=HOURS, interval_seconds=INTERVAL)
    fill_log(store, "other", hours=HOURS / 2, interval_seconds=INTERVAL)
    with engine.begin() as connection:
        connection.execute(text("PRAGMA journal_mode=DELETE"))
    engine.dispose()
    return path


@pytest.fixture
def log(written: Path, tmp_path: Path) -> Iterator[Engine]:
    """A copy that a test may tamper with."""
    path = tmp_path / "daybreak.db"
    copyfile(written, path)
    engine = open_engine(f"sqlite:///{path}")
    yield engine
    engine.dispose()


def tamper(engine: Engine, statement: str) -> None:
    with engine.connect() as connection:
        connection.execute(text("PRAGMA foreign_keys=OFF"))
        connection.execute(text("PRAGMA defer_foreign_keys=ON"))
        for part in statement.split(";"):
            connection.execute(text(part))
        connection.commit()


def faults(found: Verification) -> list[tuple[str, int | None]]:
    return [(fault.kind.value, fault.decision_id) for fault in found.faults]


def test_a_log_as_it_was_written_is_sound(engine: Engine) -> None:
    store = SqlDecisionStore(engine)
    fill_log(store, hours=0.3)
    fill_log(store, "other", hours=0.2)
    found = verify(engine)
    assert found.sound
    assert (found.decisions, found.entries, found.reworded) == (30, 60, 0)
    assert {name: end.sequence for name, end in found.ends.items()} == {"grammar": 36, "other": 24}


def test_an_empty_log_is_sound(engine: Engine) -> None:
    assert verify(engine).sound


def flipped(value: object) -> object:
    """The same value with one bit of it the other way."""
    if isinstance(value, bytes):
        middle = len(value) // 2
        return value[:middle] + bytes([value[middle] ^ 1]) + value[middle + 1 :]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value ^ 1
    if isinstance(value, float):
        return value * (1 + 2**-40)
    if isinstance(value, datetime):
        return value + timedelta(microseconds=1)
    assert isinstance(value, str)
    return value[:-1] + chr(ord(value[-1]) ^ 1) if value else "\x01"


@pytest.mark.parametrize("column", [c.name for c in schema.decision.c if c.name != "id"])
def test_one_flipped_bit_in_a_decision_is_found(log: Engine, column: str) -> None:
    with log.begin() as connection:
        connection.execute(text("PRAGMA foreign_keys=OFF"))
        row = connection.execute(select(schema.decision).where(schema.decision.c.id == 47)).one()
        value = row._mapping[column]
        changed = flipped(value) if value is not None else {"notes": "[]"}.get(column, 1.5)
        connection.execute(
            update(schema.decision).where(schema.decision.c.id == 47).values({column: changed})
        )
    found = verify(log)
    assert not found.sound
    assert 47 in [fault.decision_id for fault in found.faults]


@pytest.mark.parametrize("column", ["at", "kind", "detail", "sequence", "digest"])
def test_one_flipped_bit_in_an_outcome_is_found(log: Engine, column: str) -> None:
    table = schema.outcome
    with log.begin() as connection:
        row = connection.execute(select(table).where(table.c.decision_id == 47)).one()
        change = update(table).where(table.c.decision_id == 47)
        connection.execute(change.values({column: flipped(row._mapping[column])}))
    found = verify(log)
    assert 47 in [fault.decision_id for fault in found.faults]


def test_one_flipped_bit_in_settings_is_found(log: Engine) -> None:
    with log.begin() as connection:
        payload = connection.execute(select(schema.policy_settings.c.payload)).scalar_one()
        connection.execute(
            update(schema.policy_settings).values(payload=payload.replace("120", "121", 1))
        )
    found = verify(log)
    assert found.fault_count == found.decisions
    assert "the settings of decision 1 are not the ones" in found.faults[0].message


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("DELETE FROM outcome WHERE decision_id = 47; DELETE FROM decision WHERE id = 47", 48),
        ("DELETE FROM outcome WHERE decision_id = 47", 48),
        ("DELETE FROM outcome WHERE decision_id = 1; DELETE FROM decision WHERE id = 1", 2),
        ("DELETE FROM outcome WHERE decision_id = 120; DELETE FROM decision WHERE id = 120", 119),
    ],
)
def test_a_removed_row_is_found_at_its_place(log: Engine, statement: str, expected: int) -> None:
    tamper(log, statement)
    assert faults(verify(log)) == [("Missing", expected)]


def test_a_removed_workload_is_found(log: Engine) -> None:
    tamper(
        log,
        "DELETE FROM outcome WHERE decision_id > 120; "
        "DELETE FROM decision WHERE workload = 'other'",
    )
    found = verify(log)
    assert [(fault.kind, fault.workload) for fault in found.faults] == [
        (FaultKind.MISSING, "other")
    ]
    tamper(log, "DELETE FROM workload WHERE name = 'grammar'")
    messages = [fault.message for fault in verify(log).faults]
    assert "decision 1 belongs to a workload that has no chain" in messages


@pytest.mark.parametrize(("one", "other"), [(47, 48), (20, 90)])
def test_two_rows_that_changed_places_are_found(log: Engine, one: int, other: int) -> None:
    tamper(
        log,
        f"UPDATE decision SET id = -1 WHERE id = {one}; "
        f"UPDATE decision SET id = {one} WHERE id = {other}; "
        f"UPDATE decision SET id = {other} WHERE id = -1",
    )
    found = {fault.decision_id for fault in verify(log).faults}
    assert {one, other} & found
    assert found <= {one, one + 1, other, other + 1}


def test_what_cannot_be_read_is_named_and_the_rest_checked(log: Engine) -> None:
    tamper(log, "UPDATE decision SET at = 'yesterday' WHERE id = 47")
    found = verify(log)
    assert (FaultKind.UNREADABLE.value, 47) in faults(found)
    assert found.decisions == 179


def test_a_blob_that_is_none_is_a_difference(log: Engine) -> None:
    tamper(log, "UPDATE decision SET context = x'00', steps = x'00' WHERE id = 47")
    found = verify(log)
    assert [(d.decision_id, d.field) for d in found.differences] == [(47, "the stored form")]
    assert (FaultKind.ALTERED.value, 47) in faults(found)


def reseal(
    engine: Engine, decision_id: int, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """What a forger would do who knows the code: change a stored step, leave the rest."""
    table = schema.decision
    with engine.begin() as connection:
        steps = connection.execute(select(table.c.steps).where(table.c.id == decision_id)).scalar()
        document = change(json.loads(codec.unpack(steps or b"")))
        connection.execute(
            update(table)
            .where(table.c.id == decision_id)
            .values(steps=codec.pack(json.dumps(document)))
        )


def test_the_first_difference_is_named(log: Engine) -> None:
    def change(document: dict[str, Any]) -> dict[str, Any]:
        document["steps"][-1]["replicas"] += 1
        return document | {"desired": document["desired"] + 1}

    reseal(log, 47, change)
    (difference,) = verify(log).differences
    assert difference.decision_id == 47
    assert difference.field.startswith("steps[")
    assert difference.field.endswith("].replicas")
    assert int(difference.stored) == int(difference.recomputed) + 1


def test_a_sentence_may_be_worded_otherwise(log: Engine) -> None:
    def change(document: dict[str, Any]) -> dict[str, Any]:
        document["steps"][0]["message"] = "as an earlier version put it"
        return document

    reseal(log, 47, change)
    found = verify(log)
    assert (found.reworded, found.difference_count) == (1, 0)


def test_a_part_of_the_log_can_be_verified(log: Engine) -> None:
    start = MIDNIGHT + timedelta(minutes=10)
    found = verify(log, start, start + timedelta(minutes=10))
    assert found.sound
    assert found.decisions == 20 + 20
    tamper(log, "UPDATE decision SET desired = desired + 1 WHERE id = 20")
    assert verify(log, start).sound is True
    tamper(log, "UPDATE decision SET desired = desired + 1 WHERE id = 21")
    assert faults(verify(log, start)) == [("Altered", 21)]


@pytest.mark.parametrize(
    ("statement", "minute", "said"),
    [
        ("UPDATE minute SET latency_p99_seconds = 0.1 WHERE {}", 20, "latency_p99_seconds is 0.1"),
        ("UPDATE minute SET ready = ready * 0.5 WHERE {}", 20, "ready is"),
        ("UPDATE minute SET lead_seconds = 1 WHERE {}", 20, "the context is not that of its last"),
        ("UPDATE minute SET outcomes = '{{}}' WHERE {}", 20, "outcomes is"),
        ("UPDATE minute SET context = (SELECT max(context) FROM minute) WHERE {}", 20, "context"),
        ("DELETE FROM minute WHERE {}", 20, "it is missing"),
        ("UPDATE minute SET at = '2026-03-15 00:20:00.000000' WHERE {}", 20, "it is missing"),
        ("DELETE FROM scale_event", 0, "the scale event of decision"),
        ("UPDATE scale_event SET after = after + 1", 0, "after of the scale event of decision"),
        ("UPDATE workload SET rolled_up_to = '2026-03-16 00:20:00.000000'", 58, "the log says up"),
        ("UPDATE workload SET rolled_up_to = '2026-03-17 00:00:00.000000'", 0, "summed up to here"),
        ("UPDATE workload SET kept_since = '2026-03-16 00:20:00.000000'", 20, "none was deleted"),
    ],
)
def test_what_reports_read_is_held_against_the_decisions(
    log: Engine, statement: str, minute: int, said: str
) -> None:
    at = MIDNIGHT + timedelta(minutes=minute)
    mine = f"workload = 'grammar' AND at = '{at:%Y-%m-%d %H:%M}:00.000000'"
    tamper(log, statement.format(mine))
    found = verify(log)
    assert not found.differences
    assert {fault.kind for fault in found.faults} == {FaultKind.SUMMED_UP_OTHERWISE}
    told = [fault.message for fault in found.faults if fault.workload == "grammar"]
    assert any(said in message for message in told)
    assert not minute or any(f"minute {at:%Y-%m-%dT%H:%M}Z" in message for message in told)


def test_a_minute_that_nobody_decided_in_is_found(log: Engine) -> None:
    columns = ", ".join(name for name in MINUTE_COLUMNS if name != "at")
    forged = f"SELECT {columns}, '2026-03-15 12:00:00.000000' FROM minute LIMIT 1"
    tamper(log, f"INSERT INTO minute ({columns}, at) {forged}")
    (fault,) = verify(log).faults
    assert fault.message == (
        "minute 2026-03-15T12:00Z is not what its decisions say: it is summed up, but the log "
        "holds no decision of it"
    )


def test_only_minutes_wholly_inside_are_compared(log: Engine) -> None:
    tamper(log, "UPDATE minute SET ready = 1 WHERE at = '2026-03-16 00:20:00.000000'")
    start = MIDNIGHT + timedelta(minutes=20)
    assert verify(log, start + timedelta(seconds=30)).sound
    assert verify(log, until=start + timedelta(seconds=30)).sound
    found = verify(log, start, start + timedelta(minutes=1))
    assert (found.minutes, found.fault_count) == (2, 2)


def test_what_came_too_late_to_be_summed_up_is_no_fault(engine: Engine) -> None:
    """Two daemons on one log, and a clock that is set back."""
    store = SqlDecisionStore(engine)
    context = replace(situation(), workload="grammar")

    def decided(minutes: float, epoch: int) -> int:
        later = replace(context, now=context.now + timedelta(minutes=minutes), epoch=epoch)
        return store.record(later, decide(later))

    for epoch, minutes in enumerate((0, 1, 2.2, 1.5, 2.5, 600, 3, 3.5, 4, 5), start=1):
        first, second = decided(minutes, 2 * epoch), decided(minutes + 0.1, 2 * epoch + 1)
        for decision_id in (second, first):
            store.record_outcome(decision_id, context.now, Outcome(OutcomeKind.APPLIED))
    assert verify(engine).faults == ()
    with engine.begin() as connection:
        connection.execute(text("UPDATE minute SET ready = 1"))
    assert verify(engine).fault_count > 5


def test_processes_find_the_same(log: Engine) -> None:
    """Enough decisions that they are spread over processes."""
    store = SqlDecisionStore(log)
    context = situation()
    decision = decide(context)
    for epoch in range(5_200):
        store.record(replace(context, epoch=epoch + 1), replace(decision, epoch=epoch + 1))
    shares: list[float] = []
    found = verify(log, on_progress=shares.append, workers=2)
    assert found.sound
    assert found.decisions == 5_380
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    tamper(log, "UPDATE decision SET context = x'00' WHERE id = 2000")
    found = verify(log, workers=2)
    assert [d.decision_id for d in found.differences] == [2_000]


def test_what_is_added_meanwhile_does_not_disturb(log: Engine) -> None:
    store = SqlDecisionStore(log)

    def add(_: float) -> None:
        context = replace(situation(), workload="grammar", epoch=1)
        store.record_outcome(
            store.record(context, decide(context)), context.now, Outcome(OutcomeKind.UNCHANGED)
        )

    assert verify(log, on_progress=add).sound


def load_version_1(engine: Engine) -> None:
    """Rows as version 1 of the program wrote them, in its own tables."""
    rows = json.loads((GOLDEN / "log_v1.json").read_text())
    with engine.begin() as connection:
        config = database._alembic()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        tables = MetaData()
        tables.reflect(connection)
        for name in ("policy_settings", "decision", "outcome"):
            found = [{key: _value(value) for key, value in row.items()} for row in rows[name]]
            connection.execute(insert(tables.tables[name]), found)
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT setval('decision_id_seq', 18)"))


def _value(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "bytes" in value:
        return base64.b64decode(value["bytes"])
    return datetime.fromisoformat(value["time"])


def test_a_log_of_version_1_is_chained_and_verifies(database_url: str) -> None:
    engine = open_engine(database_url)
    load_version_1(engine)
    assert upgrade(engine) == database.head()
    found = verify(engine)
    assert found.sound
    assert (found.decisions, found.entries) == (18, 36)
    assert found.reworded == 18
    # And it goes on where it was.
    fill_log(SqlDecisionStore(engine), hours=0.05)
    assert verify(engine).sound
    engine.dispose()


def test_the_command_tells_and_ends_with_the_answer(log: Engine) -> None:
    url = str(log.url)
    sound = run("verify", "--database", url)
    assert sound.returncode == 0, sound.stderr
    assert "180 decisions recomputed alike; 360 entries" in sound.stdout
    assert "88 minutes are summed up as their decisions say" in sound.stdout
    tamper(log, "UPDATE decision SET desired = desired + 1 WHERE id = 47")
    broken = run("verify", "--database", url)
    assert broken.returncode == 1
    assert "Altered: decision 47 was altered (workload 'grammar')" in broken.stdout
    ended = run("verify", "--database", url, "--json", "-")
    document = json.loads(ended.stdout)
    assert ended.returncode == 1
    assert document["sound"] is False
    assert document["faults"] == [
        {
            "kind": "Altered",
            "workload": "grammar",
            "decision_id": 47,
            "message": "decision 47 was altered",
        }
    ]
    assert document["ends"]["other"]["sequence"] == 120


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--database", "sqlite:////nowhere.db"], "there is no decision log at /nowhere.db"),
        (["--since", "yesterday"], "--since: expected an ISO-8601 time, got 'yesterday'"),
        (["--config", "/nowhere.yaml"], "/nowhere.yaml: cannot be read"),
    ],
)
def test_bad_input_is_named(log: Engine, arguments: list[str], expected: str) -> None:
    given = arguments if arguments[0] != "--since" else [*arguments, "--database", str(log.url)]
    ended = run("verify", *given)
    assert ended.returncode == 2
    assert expected in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not Path("/nowhere.db").exists()


def test_hostile_figures_go_through_the_chain(engine: Engine) -> None:
    """Whole numbers in columns for fractions, and the least and greatest that there are."""
    store = SqlDecisionStore(engine)
    for number, demand in enumerate((9_000, 5e-324, 1.7e308, 0.1 + 0.2)):
        observation = Observation(at=situation().now, demand_qps=demand)
        context = replace(
            situation(policy=settings("static")), observation=observation, epoch=number + 1
        )
        store.record(context, decide(context))
    assert verify(engine).sound


@pytest.mark.parametrize(
    ("span", "said"),
    [
        (("--since", "2026-03-17", "--until", "2026-03-16"), "is not before"),
        (("--since", "2030-01-01"), "the log holds no decision from 2030-01-01 00:00:00+00:00"),
    ],
)
def test_a_check_of_nothing_is_not_sound(log: Engine, span: tuple[str, ...], said: str) -> None:
    ended = run("verify", "--database", str(log.url), *span)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
