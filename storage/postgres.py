"""Results of PostgreSQL in binary: as text a month of contexts takes half as long again.

Imported only where a database is read by psycopg, which is an extra.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.pq import Format
from sqlalchemy import Connection


class _BinaryCursor(psycopg.Cursor[Any]):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.format = Format.BINARY


@contextmanager
def in_binary(connection: Connection) -> Iterator[None]:
    """While this is open; not for good, since SQLAlchemy reads catalogues as text."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    before, driver.cursor_factory = driver.cursor_factory, _BinaryCursor
    try:
        yield
    finally:
        driver.cursor_factory = before
