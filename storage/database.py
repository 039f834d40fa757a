"""Opening the database and bringing its tables up to date."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import resources
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from scaler.ports import StoreError

LIMITS = {"connect_timeout": 3, "tcp_user_timeout": 5_000}
"""Seconds of connecting, and milliseconds until what was sent must be acknowledged."""
LOCK_SECONDS, STATEMENT_SECONDS = 3, 15


def open_engine(url: str, limited: bool = False) -> Engine:
    """An engine for an SQLite or PostgreSQL URL; raises StoreError where it is neither.

    `limited` is for who must go on without a server that hangs: it answers within seconds or it is
    taken to be away.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            # Only its kind is told: a password may stand anywhere in the rest.
            raise StoreError(
                f"a database of {parsed.drivername} cannot hold the log: expected sqlite:///FILE "
                f"or postgresql+psycopg://USER@HOST/NAME"
            )
        engine = create_engine(parsed, **_options(parsed, limited))
    except (ArgumentError, NoSuchModuleError) as error:
        raise StoreError(
            "the database URL cannot be read: expected sqlite:///FILE or "
            "postgresql+psycopg://USER@HOST/NAME"
        ) from error
    except ModuleNotFoundError as error:
        raise StoreError(
            f"the driver for {parsed.drivername} is not installed: run make postgres in "
            f"daybreak's folder, and write the URL as postgresql+psycopg://..."
        ) from error
    if parsed.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _tune_sqlite)
    elif limited:
        event.listen(engine, "connect", _limit_postgres)
    return engine


def _by_psycopg(url: URL) -> bool:
    return url.get_backend_name() == "postgresql" and url.get_driver_name() == "psycopg"


def _options(url: URL, limited: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"pool_pre_ping": url.get_backend_name() == "postgresql"}
    if limited and _by_psycopg(url):
        options["connect_args"] = LIMITS
    return options


def upgrade(engine: Engine) -> str:
    """Create or migrate the tables; returns the revision reached. Raises StoreError."""
    try:
        with engine.begin() as connection:
            config = _alembic()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except SQLAlchemyError as error:
        raise StoreError(f"the database cannot be upgraded: {reason(error)}") from error
    return head()


def missing_file(engine: Engine) -> Path | None:
    """The file of an SQLite database that is not there yet; connecting would make it.

    Raises StoreError where its folder is missing too.
    """
    name = engine.url.database
    if engine.url.get_backend_name() != "sqlite" or not name or Path(name).exists():
        return None
    if not Path(name).absolute().parent.is_dir():
        raise StoreError(f"the database cannot be opened: no folder {Path(name).parent}")
    return Path(name)


def revision(engine: Engine) -> str | None:
    """The revision that the database is at, or None where it holds no tables of ours."""
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    except SQLAlchemyError as error:
        raise StoreError(f"the database cannot be opened: {reason(error)}") from error


def head() -> str:
    """The revision that this version of the program works with."""
    found = ScriptDirectory.from_config(_alembic()).get_current_head()
    assert found is not None
    return found


def prepare(engine: Engine) -> None:
    """Create the tables in an empty database; raises StoreError where they are of another
    version, since migrating real data is the operator's decision."""
    at = revision(engine)
    if at is None:
        upgrade(engine)
    elif at != head():
        raise StoreError(
            f"the database is at schema {at}, this version needs {head()}: back it up, then run "
            f"daybreak db upgrade"
        )


def open_existing(url: str) -> Engine:
    """The database of a log that is there already; raises StoreError where it is not, or where
    its tables are of another version. Nothing is created."""
    engine = open_engine(url)
    missing = missing_file(engine)
    if missing is not None:
        beside = missing.with_name("daybreak-demo.db")
        hint = f"; the demo's is there: --database sqlite:///{beside}" if beside.exists() else ""
        raise StoreError(f"there is no decision log at {missing.absolute()}{hint}")
    if revision(engine) is None:
        raise StoreError("the database holds no decision log")
    prepare(engine)
    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection to the decision log whose errors are StoreErrors."""
    try:
        with engine.connect() as connection, _quickly(connection):
            yield connection
    except SQLAlchemyError as error:
        raise StoreError(f"the decision log cannot be read: {reason(error)}") from error


def _quickly(connection: Connection) -> AbstractContextManager[None]:
    if not _by_psycopg(connection.engine.url):
        return nullcontext()
    from storage import postgres  # noqa: PLC0415  # its driver is an extra

    return postgres.in_binary(connection)


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """The same with a transaction, which is kept whole or not at all."""
    try:
        with engine.begin() as connection:
            yield connection
    except SQLAlchemyError as error:
        raise StoreError(f"the decision log cannot be written: {reason(error)}") from error


def reason(error: SQLAlchemyError) -> str:
    """The driver's own words, on one line, without SQL and parameters."""
    cause = getattr(error, "orig", None) or error
    return " ".join(str(cause).split())[:300]


def _alembic() -> Config:
    config = Config()
    config.set_main_option("script_location", str(resources.files("storage") / "migrations"))
    return config


def _tune_sqlite(connection: Any, _record: object) -> None:
    """WAL lets the live page read while the loop writes; NORMAL is durable against a crash of
    the process, and loses at most the last moments at a power cut."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA busy_timeout=5000")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _limit_postgres(connection: Any, _record: object) -> None:
    """Neither a lock that somebody forgot nor a slow statement holds a connection up for long. Set
    on each of them, since poolers such as PgBouncer refuse options of its start."""
    cursor = connection.cursor()
    cursor.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
    cursor.execute(f"SET statement_timeout = '{STATEMENT_SECONDS}s'")
    cursor.close()
    connection.commit()
