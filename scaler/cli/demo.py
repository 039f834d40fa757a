"""`daybreak demo`."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from scaler.cli.command import DEMO_DATABASE
from scaler.cli.output import (
    BadInputError,
    DatabaseOption,
    configure_logs,
    output_option,
    write_text,
)
from scaler.clock import Pace
from scaler.demo.report import LABELS, audit_report
from scaler.demo.screen import DemoScreen
from scaler.demo.service import demo_settings, run_demo, scenario
from scaler.ports import StoreError
from scaler.settings import Settings
from scaler.status_server import StatusServer, build_app
from scaler.wiring import Watch, open_log
from simulator.clock import VirtualClock
from simulator.scorecard import Scorecard
from storage.decisions import SqlDecisionStore
from storage.reports.report import render_html


def demo(
    speed: Annotated[
        float, typer.Option(help="Virtual seconds a second; 0 runs as fast as it can.", min=0)
    ] = 1440.0,
    days: Annotated[int, typer.Option(help="Days to serve.", min=1, max=14)] = 1,
    port: Annotated[int, typer.Option(help="Port of the live page.", min=0, max=65535)] = 9464,
    report: Annotated[Path, output_option(help_text="Where the report goes.")] = Path(
        "daybreak-demo-report.html"
    ),
    headless: Annotated[
        bool, typer.Option("--headless", help="No live page, no pacing: for CI.")
    ] = False,
    database_url: DatabaseOption = None,
) -> None:
    """Watch the daemon's loop pre-scale an embedded fleet through a 200,000-QPS day.

    Example: daybreak demo --speed 1440 --report report.html
    """
    configure_logs("warning")
    console = Console()
    with contextlib.ExitStack() as locked:
        settings = demo_settings(database_url or locked.enter_context(_fresh_demo_database()), days)
        engine = open_log(settings.database.resolved_url())
        _require_empty(engine, settings)
        plan = scenario(days)
        clock = VirtualClock(plan.starts_at)
        watch = Watch(settings, clock)
        with contextlib.ExitStack() as stack:
            note = ""
            if not headless:
                server = StatusServer(
                    build_app(engine, watch.registry, watch.unready, now=clock.now),
                    settings.server.host,
                    port,
                )
                server.start()
                stack.callback(server.stop)
                note = f"live page: {server.url}"
                console.print(note)
            screen = stack.enter_context(DemoScreen(console, plan.starts_at, plan.until, note))
            watch.listeners.append(screen.after_tick)
            pace = Pace(plan.starts_at, 0.0 if headless else speed)
            finished = run_demo(settings, plan, engine, watch, clock, pace.wait)
        write_text(report, render_html(audit_report(finished, engine)))
        engine.dispose()
    console.print(_comparison(finished.scorecards))
    console.print(f"report: {report}")


@contextlib.contextmanager
def _fresh_demo_database() -> Iterator[str]:
    """The demo's own file, begun anew: its virtual dates would mix with those of the last run.
    Locked meanwhile, lest a second demo takes it away from the first."""
    try:
        opened = DEMO_DATABASE.open("ab")
    except OSError as error:
        raise BadInputError(f"cannot write {DEMO_DATABASE.absolute()}: {error.strerror}") from error
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BadInputError(
                f"another demo is at work on {DEMO_DATABASE.absolute()}: wait for it, or give this "
                "one a --database"
            ) from error
        file.truncate(0)
        for suffix in ("-wal", "-shm"):
            DEMO_DATABASE.with_name(DEMO_DATABASE.name + suffix).unlink(missing_ok=True)
        yield f"sqlite:///{DEMO_DATABASE}"


def _require_empty(engine: Engine, settings: Settings) -> None:
    name = settings.workloads[0].name
    if SqlDecisionStore(engine).last_epoch(name):
        raise StoreError(
            f"the database already holds decisions of {name}; the demo needs an empty one"
        )


def _comparison(scorecards: tuple[Scorecard, ...]) -> Table:
    table = Table(title="What it cost, and what it was worth")
    for heading in ("policy", "GPU-hours", "over optimum", "bad requests", "P99", "worst minute"):
        table.add_column(heading, justify="left" if heading == "policy" else "right")
    for card in scorecards:
        table.add_row(
            LABELS[card.policy],
            f"{card.pod_hours:,.0f}",
            f"{card.excess:+.1%}",
            f"{card.bad_ratio:.4%}",
            f"{card.p99_seconds * 1000:,.0f} ms",
            f"{card.worst_minute_p99 * 1000:,.0f} ms",
        )
    return table
