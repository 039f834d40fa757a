"""A PostgreSQL that hangs: the daemon's loop decides and acts without it, within seconds."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Engine, create_engine, text

from forecaster.calendar import Calendar
from forecaster.registry import combined
from policies.context import ProblemKind
from scaler.loop import ControlLoop, LoopSettings, Ports
from scaler.ports import StoreError
from scaler.wiring import open_log
from storage import database
from storage.database import open_engine, revision
from storage.decisions import SqlDecisionStore
from tests.fakes import FakeMetrics, FakeTarget
from tests.traffic import weeks
from tests.unit.test_loop import NOW, loop_settings

TICK = timedelta(seconds=15)


@pytest.fixture
def log(postgres_url: str) -> Iterator[Engine]:
    engine = open_log(postgres_url)
    yield engine
    engine.dispose()


def loop_on(log: Engine, target: FakeTarget) -> ControlLoop:
    chosen: LoopSettings = loop_settings()
    ports = Ports(FakeMetrics(weeks(), lambda _: 40_000.0), target, SqlDecisionStore(log))
    return ControlLoop(chosen, ports, combined(Calendar()))


def test_a_lock_that_somebody_forgot_stops_no_decision(log: Engine, postgres_url: str) -> None:
    target = FakeTarget(10)
    loop = loop_on(log, target)
    loop.tick(NOW)
    somebody = create_engine(postgres_url)
    with somebody.connect() as connection:
        connection.execute(text("UPDATE workload SET sequence = sequence WHERE name = 'grammar'"))
        for number, seen in ((1, []), (2, [ProblemKind.LOG_UNAVAILABLE])):
            target.replicas = 10
            began = time.monotonic()
            result = loop.tick(NOW + number * TICK)
            # One wait a tick: what was not to be had once is not asked for again.
            assert time.monotonic() - began < 2 * database.LOCK_SECONDS
            assert target.replicas >= 37
            kinds = [problem.kind for problem in result.context.problems]
            assert [kind for kind in kinds if kind is ProblemKind.LOG_UNAVAILABLE] == seen
        connection.rollback()
    somebody.dispose()
    loop.tick(NOW + 3 * TICK)
    with log.connect() as connection:
        count = connection.execute(text("SELECT count(*) FROM decision")).scalar_one()
    assert count == 4


def test_a_server_that_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql+psycopg://somebody@127.0.0.1:{silent.getsockname()[1]}/daybreak"
        engine = open_engine(url, limited=True)
        began = time.monotonic()
        with pytest.raises(StoreError):
            revision(engine)
        assert time.monotonic() - began < 2 * database.LIMITS["connect_timeout"]


@pytest.mark.parametrize("limited", [True, False])
def test_a_connection_that_was_cut_meanwhile_is_made_anew(postgres_url: str, limited: bool) -> None:
    engine = open_engine(postgres_url, limited=limited)
    with engine.connect() as connection:
        backend = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    somebody = create_engine(postgres_url)
    with somebody.connect() as connection:
        connection.execute(text(f"SELECT pg_terminate_backend({backend})"))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT pg_backend_pid()")).scalar_one() != backend
    somebody.dispose()
    engine.dispose()


def test_only_the_daemon_is_in_a_hurry(log: Engine, postgres_url: str) -> None:
    """A report or a check of the whole log may take its time."""
    patient = open_engine(postgres_url)
    limits = {}
    for name, engine in (("daemon", log), ("report", patient)):
        with engine.connect() as connection:
            shown = [
                connection.execute(text(f"SHOW {setting}")).scalar_one()
                for setting in ("lock_timeout", "statement_timeout")
            ]
            limits[name] = shown
    patient.dispose()
    assert limits == {"daemon": ["3s", "15s"], "report": ["0", "0"]}
