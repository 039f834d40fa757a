"""Entries: how rows get into a workload's chain.

Knows the tables whose rows are entries, and that one entry follows another. Raises what the
database raises.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Float, Table, bindparam, insert, select, update

from storage import chain, schema
from storage.chain import GENESIS, Link

_ends = schema.workload
_mine = _ends.c.name == bindparam("workload")
_ADVANCE = update(_ends).where(_mine).values(sequence=_ends.c.sequence + 1)
_END = select(_ends.c.sequence, _ends.c.digest).where(_mine)
_SEAL = update(_ends).where(_mine).values(digest=bindparam("seal"))


def append(connection: Connection, table: Table, row: dict[str, Any], workload: str) -> int:
    """Store a row as the next entry of a workload's chain; returns its key.

    The first statement writes, so that whoever else appends to this chain waits until the
    transaction ends, on SQLite and on PostgreSQL alike.
    """
    mine = {"workload": workload}
    if not connection.execute(_ADVANCE, mine).rowcount:
        connection.execute(insert(_ends), _new_chain(workload))
    end = connection.execute(_END, mine).one()
    placed = entry(table, row, Link(end.sequence - 1, end.digest))
    result = connection.execute(insert(table), placed)
    connection.execute(_SEAL, mine | {"seal": placed["digest"]})
    assert result.inserted_primary_key is not None
    return int(result.inserted_primary_key[0])


def entry(table: Table, row: dict[str, Any], before: Link) -> dict[str, Any]:
    """The row with its place in the chain and its digest, as it will be read back."""
    typed = {
        name: float(value) if value is not None and isinstance(table.c[name].type, Float) else value
        for name, value in row.items()
    }
    typed["sequence"] = before.sequence + 1
    content = chain.content_digest(table.name, typed)
    return typed | {"digest": chain.linked(before.digest, content)}


def _new_chain(workload: str) -> dict[str, Any]:
    return {
        "name": workload,
        "sequence": GENESIS.sequence + 1,
        "digest": GENESIS.digest,
        "pruned_sequence": GENESIS.sequence,
        "pruned_digest": GENESIS.digest,
    }
