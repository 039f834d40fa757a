"""A large log for benchmarks: a week of real decisions, told again for every week.

Rows are chained and summed up as the daemon does it, but inserted in bulk. The newest weeks are
told exactly, times in their contexts included, so that they verify and a report recomputes them.
Weeks before those carry the contexts of the first one: their size, their rows and their chain are
those of a real log, and nothing that is measured reads the times in them.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from math import log
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, insert, text

from forecaster.forecast import Forecast, QuantilePoint, WindowForecast
from forecaster.history import TrafficHistory
from policies.context import (
    Capacity,
    LeadTime,
    Observation,
    PastDecision,
    PolicySettings,
    Replicas,
    ScalingContext,
    ScalingRules,
)
from policies.decision import Decision
from policies.engine import decide
from simulator.traces.generate import Diurnal, generate
from storage import codec, schema
from storage.chain import GENESIS, Link, content_text, linked
from storage.decisions import decision_row
from storage.entries import entry

WORKLOAD = "grammar"
START = datetime(2026, 3, 2, tzinfo=UTC)
WEEK = timedelta(days=7)
INTERVAL = timedelta(seconds=5)
LEAD = timedelta(seconds=180)
CAPACITY = 1_000.0
LOOK_BACK = timedelta(seconds=60)
LEVELS = ((0.05, -1.64), (0.5, 0.0), (0.9, 1.28), (0.95, 1.64), (0.98, 2.05), (0.99, 2.33))
SETTINGS = PolicySettings(
    "predictive",
    min_replicas=4,
    max_replicas=400,
    scale_down=ScalingRules(stabilization_window_seconds=60),
    parameters=(("lookBackSeconds", LOOK_BACK.total_seconds()), ("margin", 3.0)),
)
BATCH = 5_000
DAY = timedelta(days=1)
EXACT = int(45 * DAY / INTERVAL)
"""How many of the newest decisions are told exactly."""
APART = 100_000_000
"""Between the ids of two workloads that are told the same."""
MORNING = int(timedelta(hours=6) / INTERVAL)


@dataclass
class World:
    """Replicas that serve a lead time after they are asked for, and a forecast that is right."""

    traffic: TrafficHistory
    ready_at: list[datetime] = field(default_factory=lambda: [START] * 40)
    recent: list[PastDecision] = field(default_factory=list)

    def demand(self, at: datetime) -> float:
        place = (at - self.traffic.start).total_seconds() / self.traffic.step_seconds
        first = int(place)
        low, high = (float(value) for value in self.traffic.values[first : first + 2])
        return low + (high - low) * (place - first)

    def context(self, now: datetime, epoch: int) -> ScalingContext:
        demand = self.demand(now)
        starting = tuple(at for at in self.ready_at if at > now)
        ready = len(self.ready_at) - len(starting)
        load = demand / (ready * CAPACITY)
        return ScalingContext(
            workload=WORKLOAD,
            now=now,
            interval_seconds=INTERVAL.total_seconds(),
            settings=SETTINGS,
            capacity=Capacity(CAPACITY),
            lead_time=LeadTime(150.0, LEAD.total_seconds(), 15.0),
            replicas=Replicas(len(self.ready_at), ready, starting),
            observation=Observation(
                now - timedelta(seconds=5), demand, demand * 0.4, 0.0, 0.4, 0.5 + load**6 / 2
            ),
            forecast=self.forecast(now),
            recent=tuple(self.recent),
            epoch=epoch,
        )

    def forecast(self, now: datetime) -> Forecast:
        minute = now.replace(second=0, microsecond=0)
        peaks = [self.demand(minute + timedelta(minutes=ahead)) for ahead in range(7)]
        windows = (
            _window("order", minute, 3, 6, max(peaks[3:])),
            _window("hold", minute, 0, 5, max(peaks[:6])),
        )
        return Forecast(now, windows, "combined", START, minute, 0.6)

    def apply(self, context: ScalingContext, decision: Decision) -> None:
        del self.ready_at[decision.desired :]
        missing = decision.desired - len(self.ready_at)
        self.ready_at += [context.now + LEAD] * missing
        self.recent.append(
            PastDecision(
                context.now,
                decision.current,
                decision.recommended,
                decision.desired,
                context.demand_qps,
                context.observation.concurrency,
                decision.notes,
            )
        )
        self.recent = [past for past in self.recent if past.at > context.now - LOOK_BACK]


def _window(name: str, start: datetime, first: int, last: int, qps: float) -> WindowForecast:
    scale = 0.02
    points = tuple(QuantilePoint(level, qps * (1 + scale * z)) for level, z in LEVELS)
    begin, end = (start + timedelta(minutes=steps) for steps in (first, last))
    return WindowForecast(name, begin, end, qps, scale * log(2.718), points)


@dataclass(frozen=True)
class Told:
    """A decision of the week, ready to be told again."""

    row: dict[str, Any]
    context: str
    steps: str


def week_of_decisions() -> list[Told]:
    world = World(generate(Diurnal(peak_qps=200_000.0), START, 8, seed=1))
    payload = codec.digest(codec.encode_settings(SETTINGS))
    told = []
    for number in range(int(WEEK / INTERVAL)):
        context = world.context(START + number * INTERVAL, number + 1)
        decision = decide(context)
        row = decision_row(context, decision) | {"settings_digest": payload}
        told.append(Told(row, codec.encode_context(context), codec.encode_decision(decision)))
        world.apply(context, decision)
    return told


def fill(
    engine: Engine, week: list[Told], decisions: int, on_progress: Callable[[int], None]
) -> None:
    """One workload in an SQLite log, in bulk, with the digests that the store would have given."""
    with engine.begin() as connection:
        _store_settings(connection)
    old = max(0, decisions - EXACT)
    end = _fill_fast(engine, week, old, on_progress)
    for first in range(old, decisions, BATCH):
        numbers = range(first, min(first + BATCH, decisions))
        rows = [_told_again(week, number) for number in numbers]
        with engine.begin() as connection:
            end = _append(connection, rows, first + 1, end)
        on_progress(numbers.stop)
    with engine.begin() as connection:
        connection.execute(insert(schema.workload), _reached(WORKLOAD, end))


def _fill_fast(
    engine: Engine, week: list[Told], decisions: int, on_progress: Callable[[int], None]
) -> Link:
    """The same rows and digests as `_append` gives, from prepared texts: tens of times as many."""
    patterns = [Pattern.of(told.row) for told in week]
    names = [*patterns[0].values, "sequence", "digest", "id"]
    marks = ", ".join("?" * len(names))
    into_decision = f"INSERT INTO decision ({', '.join(names)}) VALUES ({marks})"
    into_outcome = "INSERT INTO outcome VALUES (?, ?, 'Applied', '', ?, ?)"
    sequence, digest = GENESIS.sequence, GENESIS.digest
    for first in range(0, decisions, BATCH):
        numbers = range(first, min(first + BATCH, decisions))
        rows, outcomes = [], []
        for number in numbers:
            place = {"epoch": number + 1, "sequence": sequence + 1}
            weeks, index = divmod(number, len(week))
            content, values = patterns[index].told(weeks * WEEK, place)
            digest = linked(digest, content)
            rows.append((*values, sequence + 1, digest, number + 1))
            content, at = patterns[index].outcome(weeks * WEEK, number + 1, sequence + 2)
            digest = linked(digest, content)
            sequence += 2
            outcomes.append((number + 1, at, sequence, digest))
        with engine.begin() as connection:
            connection.exec_driver_sql(into_decision, rows)
            connection.exec_driver_sql(into_outcome, outcomes)
        on_progress(numbers.stop)
    return Link(sequence, digest)


@dataclass(frozen=True)
class Pattern:
    """A row of the week with what its digest covers, open where weeks differ."""

    values: dict[str, Any]
    times: dict[str, datetime]
    text: str
    outcome_text: str

    @classmethod
    def of(cls, row: dict[str, Any]) -> Pattern:
        times = {name: row[name] for name in ("at", "forecast_at", "forecast_until")}
        values = entry(schema.decision, row, GENESIS)
        del values["sequence"], values["digest"]
        outcome = {"at": "?at?", "kind": "Applied", "detail": "", "sequence": "?sequence?"}
        return cls(
            values,
            times,
            _open(content_text("decision", values | _HOLES)),
            _open(content_text("outcome", outcome | {"decision_id": "?epoch?"})),
        )

    def told(self, later: timedelta, place: dict[str, Any]) -> tuple[str, list[Any]]:
        """The digest of its content and its values, so much later."""
        isos = {name: (at + later).isoformat() for name, at in self.times.items()}
        stored = {name: _as_sqlite(iso) for name, iso in isos.items()}
        values = self.values | stored | {"epoch": place["epoch"]}
        return _sha(self.text % (isos | place)), list(values.values())

    def outcome(self, later: timedelta, number: int, sequence: int) -> tuple[str, str]:
        """The digest of the content of its outcome, and the time of that."""
        iso = (self.times["at"] + later).isoformat()
        place = {"at": iso, "epoch": number, "sequence": sequence}
        return _sha(self.outcome_text % place), _as_sqlite(iso)


_HOLES = {
    name: f"?{name}?" for name in ("at", "forecast_at", "forecast_until", "epoch", "sequence")
}


def _open(text: str) -> str:
    """Holes as places to format; a number stands there without quotes."""
    text = text.replace("%", "%%")
    for name in ("epoch", "sequence"):
        text = text.replace(f'"?{name}?"', f"%({name})d")
    return re.sub(r"\?(at|forecast_at|forecast_until)\?", r"%(\1)s", text)


def _as_sqlite(iso: str) -> str:
    return f"{iso[:10]} {iso[11:19]}.000000"


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def fill_fleet(engine: Engine, week: list[Told], workloads: int, each: int) -> None:
    """Many workloads, as if each had the same morning; their contexts keep one name, which only
    verification would read."""
    with engine.begin() as connection:
        _store_settings(connection)
    for index in range(workloads):
        name = f"{WORKLOAD}-{index:04}"
        rows = [told.row | {"workload": name} for told in week[MORNING : MORNING + each]]
        with engine.begin() as connection:
            end = _append(connection, rows, 1 + index * each, GENESIS)
            connection.execute(insert(schema.workload), _reached(name, end))


def _store_settings(connection: Connection) -> None:
    payload = codec.encode_settings(SETTINGS)
    settings = {"digest": codec.digest(payload), "payload": payload}
    connection.execute(insert(schema.policy_settings), settings)


def _append(connection: Connection, rows: list[dict[str, Any]], first_id: int, end: Link) -> Link:
    """Decisions, each followed by its outcome; returns the new end of the chain."""
    decisions, outcomes = [], []
    for decision_id, row in enumerate(rows, first_id):
        placed = entry(schema.decision, row, end)
        outcome = {"decision_id": decision_id, "at": row["at"], "kind": "Applied", "detail": ""}
        after = entry(schema.outcome, outcome, Link(placed["sequence"], placed["digest"]))
        end = Link(after["sequence"], after["digest"])
        decisions.append(placed | {"id": decision_id})
        outcomes.append(after)
    connection.execute(insert(schema.decision), decisions)
    connection.execute(insert(schema.outcome), outcomes)
    return end


def _reached(name: str, end: Link) -> dict[str, Any]:
    reached: dict[str, Any] = {"name": name, **asdict(end)}
    return reached | {"pruned_sequence": GENESIS.sequence, "pruned_digest": GENESIS.digest}


def _told_again(week: list[Told], number: int) -> dict[str, Any]:
    """The decision of that number: a decision of the week, so many weeks later."""
    weeks, index = divmod(number, len(week))
    told, later = week[index], weeks * WEEK
    row = dict(told.row)
    for name in ("at", "forecast_at", "forecast_until"):
        row[name] += later
    row["epoch"] = number + 1
    return row | _exact(told, weeks, number + 1)


def _exact(told: Told, weeks: int, epoch: int) -> dict[str, Any]:
    """What is stored packed, with the times and the epoch of so many weeks later."""
    was, now = (f'"epoch":{number}' for number in (told.row["epoch"], epoch))
    text, day = told.context.replace(was, now), told.row["at"]
    for away in (-1, 0, 1) if weeks else ():
        old, new = (f"{at + away * DAY:%Y-%m-%dT}" for at in (day, day + weeks * WEEK))
        text = text.replace(old, new)
    steps = codec.pack(told.steps.replace(was, now))
    return {"context": codec.pack(text), "context_digest": codec.digest(text), "steps": steps}


def copy_to_postgres(source: str, target: Engine, newest: int) -> None:
    """An SQLite log of one workload with so many of its newest decisions, as if the others had been
    pruned, into an empty PostgreSQL one."""
    names = [table.name for table in schema.metadata.sorted_tables]
    url = target.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with sqlite3.connect(source) as log, psycopg.connect(url) as connection:
        connection.execute("SET TIME ZONE 'UTC'")
        # The rows come from a log that holds them already: nothing to check one by one.
        connection.execute("SET session_replication_role = replica")
        last = log.execute("SELECT max(id) FROM decision").fetchone()[0]
        gone = max(0, last - newest)
        kept = {"decision": f"WHERE id > {gone}", "outcome": f"WHERE decision_id > {gone}"}
        for name in names:
            columns = ", ".join(schema.metadata.tables[name].c.keys())
            rows = log.execute(f"SELECT {columns} FROM {name} {kept.get(name, '')} ORDER BY 1")
            with connection.cursor().copy(f"COPY {name} ({columns}) FROM STDIN") as into:
                for row in rows:
                    into.write_row(row)
        cut = log.execute(
            "SELECT sequence, digest FROM outcome WHERE decision_id = ?", (gone,)
        ).fetchone()
        if cut:
            connection.execute("UPDATE workload SET pruned_sequence = %s, pruned_digest = %s", cut)
    with target.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("VACUUM (ANALYZE)"))


def fill_fleet_week(path: str, source: str, workloads: int) -> None:
    """Many workloads with the minutes and changes of the newest week of an SQLite log of one, and
    of the decisions only the newest, as pruning leaves them; into an empty log with its tables."""
    with sqlite3.connect(path) as log:
        log.execute("PRAGMA synchronous = OFF")
        log.execute("ATTACH ? AS source", (source,))
        (newest,) = log.execute("SELECT max(at) FROM source.decision").fetchone()
        log.execute("INSERT INTO policy_settings SELECT * FROM source.policy_settings")
        since = f"datetime('{newest}', '-7 days')"
        wanted = {
            "workload": "",
            "minute": f"WHERE at >= {since}",
            "scale_event": f"WHERE at >= {since}",
            "decision": f"WHERE at = '{newest}'",
        }
        for index in range(workloads):
            for table, where in wanted.items():
                log.execute(_told_of(table, where, index))
            log.commit()


def _told_of(table: str, where: str, index: int) -> str:
    """The rows of a table as if they were another workload's; ids are given anew."""
    key = "name" if table == "workload" else "workload"
    anew = {key: f"'{WORKLOAD}-{index:04}'", "decision_id": f"decision_id + {index * APART}"}
    names = [one.name for one in schema.metadata.tables[table].c if one.name != "id"]
    told = ", ".join(anew.get(name, name) for name in names)
    return f"INSERT INTO {table} ({', '.join(names)}) SELECT {told} FROM source.{table} {where}"
