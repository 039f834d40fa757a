"""Overrides in the log: what a person decided instead of the policy, who, why and until when.

Knows what a request for one must say, and which one holds. A row is only ever added: a release
ends what was decided before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, select

from policies.context import Override, OverrideKind
from storage import schema
from storage.database import reading, writing
from storage.entries import append

RELEASE = "Release"
LONGEST = timedelta(days=7)
"""An override that nobody renews ends by itself: a forgotten one is an outage to come."""
MOST_REPLICAS = 100_000
LONGEST_OWNER, LONGEST_REASON, LONGEST_SOURCE = 100, 500, 100

_table = schema.manual_override.c


@dataclass(frozen=True, slots=True)
class OverrideRequest:
    """What somebody asks for. Raises ValueError, in words for people, where it cannot be had.

    `kind` is an OverrideKind or Release; `duration` is None for a release alone. `source` says by
    which way it came.
    """

    kind: str
    owner: str
    reason: str
    source: str
    replicas: int | None = None
    duration: timedelta | None = None

    def __post_init__(self) -> None:
        if self.kind not in (RELEASE, *OverrideKind):
            known = ", ".join([*OverrideKind, RELEASE])
            raise ValueError(f"kind: expected one of {known}, got {self.kind[:40]!r}")
        _check_text("owner", self.owner, LONGEST_OWNER)
        _check_text("reason", self.reason, LONGEST_REASON)
        self._check_replicas()
        self._check_duration()

    def _check_replicas(self) -> None:
        numbered = self.kind in (OverrideKind.REPLICAS, OverrideKind.MINIMUM)
        if numbered and (self.replicas is None or not 0 <= self.replicas <= MOST_REPLICAS):
            raise ValueError(f"replicas: expected 0 to {MOST_REPLICAS:,}, got {self.replicas}")
        if not numbered and self.replicas is not None:
            raise ValueError(f"replicas: {self.kind} takes no number, got {self.replicas}")

    def _check_duration(self) -> None:
        if self.kind == RELEASE:
            return
        if self.duration is None or not timedelta() < self.duration <= LONGEST:
            raise ValueError(
                f"expiry: expected more than nothing and at most {LONGEST.days} days, got "
                f"{self.duration}"
            )


@dataclass(frozen=True, slots=True)
class OverrideRow:
    """A row as it stands in the log."""

    id: int
    workload: str
    at: datetime
    kind: str
    replicas: int | None
    expires_at: datetime | None
    owner: str
    reason: str
    source: str

    def holds(self, now: datetime) -> bool:
        """Whether it would hold if it were the newest."""
        return self.expires_at is not None and self.expires_at > now


def record_override(
    engine: Engine, workload: str, now: datetime, request: OverrideRequest
) -> OverrideRow:
    """Add it to the workload's chain; from the next decision on it holds. Raises StoreError."""
    until = None if request.duration is None or request.kind == RELEASE else now + request.duration
    row: dict[str, Any] = {
        "workload": workload,
        "at": now,
        "kind": str(request.kind),
        "replicas": request.replicas,
        "expires_at": until,
        "owner": request.owner,
        "reason": request.reason,
        "source": request.source[:LONGEST_SOURCE],
    }
    with writing(engine) as connection:
        return OverrideRow(append(connection, schema.manual_override, row, workload), **row)


def newest_override(connection: Connection, workload: str, now: datetime) -> OverrideRow | None:
    """The one that holds at a time, or None."""
    query = _rows().where(_table.workload == workload).order_by(_table.id.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    found = None if row is None else OverrideRow(**row)
    return found if found is not None and found.holds(now) else None


def as_override(row: OverrideRow | None) -> Override | None:
    """As a context carries it."""
    if row is None or row.expires_at is None:
        return None
    kind = OverrideKind(row.kind)
    return Override(row.id, kind, row.replicas, row.owner, row.reason, row.expires_at)


def overrides(
    engine: Engine, workload: str, since: datetime, until: datetime
) -> Sequence[OverrideRow]:
    """Those that were decided in [since, until), and those before that still held then; oldest
    first."""
    query = (
        _rows()
        .where(
            _table.workload == workload,
            _table.at < until,
            (_table.at >= since) | (_table.expires_at > since),
        )
        .order_by(_table.id)
    )
    with reading(engine) as connection:
        return [OverrideRow(**row) for row in connection.execute(query).mappings()]


def _rows() -> Any:
    return select(*(_table[name] for name in OverrideRow.__slots__))


def _check_text(name: str, text: str, longest: int) -> None:
    if not text.strip() or len(text) > longest or not text.isprintable():
        raise ValueError(f"{name}: expected 1 to {longest} printable characters, got {text[:40]!r}")
