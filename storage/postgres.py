"""How a connection to PostgreSQL is made: in binary, and within limits for who must go on without.

Imported only where a database is PostgreSQL, since its driver is an extra.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.pq import Format
from sqlalchemy import Engine, event

CONNECT_SECONDS = 3
UNANSWERED_SECONDS = 5
"""What was sent must be acknowledged so soon, or the connection is given up."""
LOCK_SECONDS, STATEMENT_SECONDS = 3, 15


class BinaryCursor(psycopg.Cursor[Any]):
    """Asks for results in binary: a month of contexts as text takes half as long again."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.format = Format.BINARY


def connect_args(limited: bool) -> dict[str, Any]:
    """For psycopg; `limited` where a server that does not answer must be an error soon."""
    args: dict[str, Any] = {"cursor_factory": BinaryCursor}
    if limited:
        args["connect_timeout"] = CONNECT_SECONDS
        args["tcp_user_timeout"] = 1000 * UNANSWERED_SECONDS
    return args


def limit(engine: Engine) -> None:
    """Neither a lock that somebody forgot nor a slow statement holds a connection up for long.

    Set on each connection, since poolers such as PgBouncer refuse options of its start.
    """
    event.listen(engine, "connect", _set_limits)


def _set_limits(connection: psycopg.Connection[Any], _record: object) -> None:
    connection.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
    connection.execute(f"SET statement_timeout = '{STATEMENT_SECONDS}s'")
    connection.commit()
