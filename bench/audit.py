"""The audit on a large log: two years of decisions every 5 seconds are 12.6 million.

Fills a log with bulk inserts (a week of real decisions, told again for every week, chained and
summed up as the daemon does it), then times what people wait for.

    python -m bench.audit                        a million decisions, in a temporary folder
    python -m bench.audit --decisions 12600000 --folder /data    the whole, kept there
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from math import log
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import Engine, func, insert, select

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
from storage import codec, rollups, schema
from storage.chain import GENESIS, Link
from storage.database import open_engine, open_existing, upgrade
from storage.decisions import decision_row
from storage.entries import entry
from storage.reports import timeline
from storage.retention import prune
from storage.verification import verify

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


@dataclass(frozen=True)
class Told:
    """A decision of the week, ready to be told again."""

    row: dict[str, Any]
    context: str
    steps: str


def _window(name: str, start: datetime, first: int, last: int, qps: float) -> WindowForecast:
    scale = 0.02
    points = tuple(QuantilePoint(level, qps * (1 + scale * z)) for level, z in LEVELS)
    begin, end = (start + timedelta(minutes=steps) for steps in (first, last))
    return WindowForecast(name, begin, end, qps, scale * log(2.718), points)


def week_of_decisions() -> list[Told]:
    world = World(generate(Diurnal(peak_qps=200_000.0), START, 8, seed=1))
    told = []
    for number in range(int(WEEK / INTERVAL)):
        context = world.context(START + number * INTERVAL, number + 1)
        decision = decide(context)
        texts = codec.encode_context(context), codec.encode_decision(decision)
        told.append(Told(decision_row(context, decision), *texts))
        world.apply(context, decision)
    return told


def fill(engine: Engine, decisions: int, on_progress: Callable[[int], None]) -> None:
    """In bulk, with the digests that the store would have given."""
    week = week_of_decisions()
    payload = codec.encode_settings(SETTINGS)
    with engine.begin() as connection:
        settings = {"digest": codec.digest(payload), "payload": payload}
        connection.execute(insert(schema.policy_settings), settings)
    end = GENESIS
    for first in range(0, decisions, BATCH):
        rows, outcomes = [], []
        for number in range(first, min(first + BATCH, decisions)):
            row = shifted(week[number % len(week)], number // len(week), number + 1)
            row["settings_digest"] = codec.digest(payload)
            placed = entry(schema.decision, row, end)
            end = Link(placed["sequence"], placed["digest"])
            outcome = {"decision_id": number + 1, "at": row["at"], "kind": "Applied", "detail": ""}
            after = entry(schema.outcome, outcome, end)
            end = Link(after["sequence"], after["digest"])
            rows.append(placed | {"id": number + 1})
            outcomes.append(after)
        with engine.begin() as connection:
            connection.execute(insert(schema.decision), rows)
            connection.execute(insert(schema.outcome), outcomes)
        on_progress(first + len(rows))
    with engine.begin() as connection:
        reached: dict[str, Any] = {"name": WORKLOAD, **asdict(end)}
        reached |= {"pruned_sequence": GENESIS.sequence, "pruned_digest": GENESIS.digest}
        connection.execute(insert(schema.workload), reached)


def shifted(told: Told, weeks: int, epoch: int) -> dict[str, Any]:
    """The decision so many weeks later: only its times and its epoch are others."""
    later = weeks * WEEK
    row = dict(told.row)
    for name in ("at", "forecast_at", "forecast_until"):
        row[name] += later
    was, now = (f'"epoch":{number}' for number in (told.row["epoch"], epoch))
    text, day = told.context.replace(was, now), told.row["at"]
    for away in (-1, 0, 1) if weeks else ():
        old, new = (f"{at + away * timedelta(days=1):%Y-%m-%dT}" for at in (day, day + later))
        text = text.replace(old, new)
    row["epoch"] = epoch
    row["context"], row["context_digest"] = codec.pack(text), codec.digest(text)
    row["steps"] = codec.pack(told.steps.replace(was, now))
    return row


def live_queries(engine: Engine) -> dict[str, float]:
    """Milliseconds that the live page waits for the log."""
    newest = timeline.last_decisions(engine, WORKLOAD, 1)[0].at + timedelta(seconds=1)
    asked: dict[str, Callable[[], object]] = {
        "workloads": lambda: timeline.workload_names(engine),
        "last_decision": lambda: timeline.last_decisions(engine, WORKLOAD, 1),
        "last_20_decisions": lambda: timeline.last_decisions(engine, WORKLOAD, 20),
        "last_context": lambda: timeline.last_context(engine, WORKLOAD),
    }
    for hours in (1, 6, 24):
        since = newest - timedelta(hours=hours)
        asked[f"line_of_{hours}_h"] = lambda since=since: timeline.timeline(  # type: ignore[misc]
            engine, WORKLOAD, since, newest, 800
        )
    times = {name: sorted(_timed(query, 9)) for name, query in asked.items()}
    found = {f"live_{name}_ms": round(median(took) * 1000, 1) for name, took in times.items()}
    return found | {"live_slowest_ms": round(max(took[-1] for took in times.values()) * 1000, 1)}


def _timed(query: Callable[[], object], times: int) -> Iterator[float]:
    query()
    for _ in range(times):
        began = time.perf_counter()
        query()
        yield time.perf_counter() - began


def report(url: str, period: str) -> dict[str, float]:
    """Seconds and peak memory of the command in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        command = ["report", "--period", period, "--database", url, "--html", str(page)]
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "bench.audit", "--command", *command],
            check=True,
            capture_output=True,
        )
        seconds = time.perf_counter() - began
        peak = json.loads((Path(folder) / "report.html.peak").read_text())
        return {
            f"report_{period}_seconds": round(seconds, 1),
            f"report_{period}_peak_gib": round(peak / 1024**2, 2),
            f"report_{period}_html_mib": round(page.stat().st_size / 1024**2, 2),
        }


def run_command(arguments: list[str]) -> None:
    """The command line in this process, so that its peak memory is known afterwards."""
    from scaler.cli import build_app as command_line  # noqa: PLC0415

    command_line(arguments)(arguments, standalone_mode=False)
    status = Path("/proc/self/status").read_text()
    # Not getrusage, which counts what the parent process had before this one was started.
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    Path(arguments[-1] + ".peak").write_text(peak)


def measure(url: str, decisions: int, prune_days: float | None) -> dict[str, float]:
    found: dict[str, float] = {}
    path = Path(url.removeprefix("sqlite:///"))
    if not path.exists():
        engine = open_engine(url)
        upgrade(engine)
        began = time.perf_counter()
        fill(engine, decisions, lambda done: print(f"\r{done:,} filled", end="", file=sys.stderr))
        found["fill_seconds"] = round(time.perf_counter() - began, 1)
        began = time.perf_counter()
        rollups.catch_up(engine)
        found["sum_up_seconds"] = round(time.perf_counter() - began, 1)
        engine.dispose()
    engine = open_existing(url)
    with engine.connect() as connection:
        newest = connection.execute(select(func.max(schema.decision.c.at))).scalar_one()
        found["decisions"] = connection.execute(select(func.max(schema.decision.c.id))).scalar_one()
    found["log_gib"] = round(path.stat().st_size / 1024**3, 2)
    found |= live_queries(engine)
    began = time.perf_counter()
    sound = verify(engine, since=newest - 100_000 * INTERVAL)
    assert sound.sound, sound.faults[:3]
    found["verified"] = sound.decisions
    found["verify_seconds"] = round(time.perf_counter() - began, 1)
    for period in ("day", "month"):
        found |= report(url, period)
    if prune_days is not None:
        began = time.perf_counter()
        found["pruned"] = prune(engine, timedelta(days=prune_days)).decisions
        found["prune_seconds"] = round(time.perf_counter() - began, 1)
        found["live_slowest_after_ms"] = live_queries(engine)["live_slowest_ms"]
    engine.dispose()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="The audit on a large log.")
    parser.add_argument("--decisions", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="Keep the log there; else it is thrown away.")
    parser.add_argument("--prune-days", type=float, help="Prune to so many days in the end.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = (given.folder or Path(folder)) / "audit.db"
        found = measure(f"sqlite:///{path}", given.decisions, given.prune_days)
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--command"]:
        run_command(sys.argv[2:])
    else:
        main()
