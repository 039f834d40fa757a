"""How a connection to PostgreSQL is made: in binary, and within limits for who must go on without.

Imported only where a database is PostgreSQL, since its driver is an extra.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.pq import Format
from sqlalchemy import Connection, Engine, event

CONNECT_SECONDS = 3
UNANSWERED_SECONDS = 5
"""What was sent must be acknowledged so soon, or the connection is given up."""
LOCK_SECONDS, STATEMENT_SECONDS = 3, 15


CONNECT_ARGS = {
    "connect_timeout": CONNECT_SECONDS,
    "tcp_user_timeout": 1000 * UNANSWERED_SECONDS,
}
"""For who must not wait for a server that does not answer."""


class _BinaryCursor(psycopg.Cursor[Any]):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.format = Format.BINARY


@contextmanager
def in_binary(connection: Connection) -> Iterator[None]:
    """Meanwhile results come in binary: as text a month of contexts takes half as long again. Not
    for good, since SQLAlchemy reads catalogues as text."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    before, driver.cursor_factory = driver.cursor_factory, _BinaryCursor
    try:
        yield
    finally:
        driver.cursor_factory = before


def limit(engine: Engine) -> None:
    """Neither a lock that somebody forgot nor a slow statement holds a connection up for long.

    Set on each connection, since poolers such as PgBouncer refuse options of its start.
    """
    event.listen(engine, "connect", _set_limits)


def _set_limits(connection: psycopg.Connection[Any], _record: object) -> None:
    connection.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
    connection.execute(f"SET statement_timeout = '{STATEMENT_SECONDS}s'")
    connection.commit()
