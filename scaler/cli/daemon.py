"""`daybreak run` and `daybreak check`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from threading import Event, Thread
from typing import Annotated

import structlog
import typer
from rich.console import Console

from scaler.cli.logs import STREAM
from scaler.cli.output import BAD_INPUT, ConfigOption, JsonOption, write_json
from scaler.clock import SystemClock
from scaler.cluster.lease import Leadership
from scaler.control import Control
from scaler.daemon import Daemon
from scaler.exposition import LostLines, expose_leader
from scaler.finding import Finding, Severity
from scaler.live import leadership_of, live_ports
from scaler.obstacles import Teller
from scaler.preflight import check_settings, warn_at_start
from scaler.rounds import Job, Rounds, alone
from scaler.settings import Settings, load_settings
from scaler.settings_file import SettingsError
from scaler.status_server import Served, StatusServer, build_app
from scaler.wiring import Watch, build_rounds, open_log, stuck_after_seconds
from storage.decisions import SqlDecisionStore

_log = structlog.get_logger("daybreak")


def run(
    config: ConfigOption,
    once: Annotated[bool, typer.Option("--once", help="Fit, decide once, record, end.")] = False,
) -> None:
    """Run the scaling daemon.

    Example: daybreak run --config daybreak.yaml
    """
    settings = load_settings(config)
    engine = open_log(settings.log_url())
    clock = SystemClock()
    leadership = leadership_of(settings, clock)
    leads = leadership.leads if leadership else alone
    watch = Watch(settings, clock)
    watch.registry.register(LostLines(lambda: STREAM.lost))
    watch.listeners.append(Teller().after_tick)
    store = SqlDecisionStore(engine)
    rounds = build_rounds(settings, live_ports(settings, store, clock, leads), watch, leads)
    if once:
        raise typer.Exit(_decide_once(settings, rounds, watch, leadership))
    recall = partial(watch.recall, store)
    if leadership is None:
        recall()  # Before anybody can ask: an autoscaler may take no answer for zero.
    else:
        expose_leader(watch.registry, leads)
    server = StatusServer(
        build_app(
            engine,
            watch.registry,
            partial(_unready, watch, leadership),
            settings.server.allowed_hosts,
            _control(settings),
            clock.now,
            served=Served(
                frozenset(workload.name for workload in settings.workloads),
                watch.writes.standing,
                lambda: rounds.stuck(stuck_after_seconds(settings)),
                lambda: leadership.led_by() if leadership else None,
            ),
        ),
        settings.server.host,
        settings.server.port,
    )
    server.start()  # First: where it cannot listen, nothing is decided.
    _tell_start(config, settings, server.url)
    Thread(target=warn_at_start, args=(settings,), name="warnings", daemon=True).start()
    jobs = rounds.jobs(settings.interval_seconds, settings.refit_interval_seconds)
    if leadership is None:
        clean = Daemon(rounds, jobs, clock).run()
    else:
        clean = _run_led(rounds, jobs, leadership, recall)
    server.stop()
    engine.dispose()
    _leave(0 if clean else 1)


def _run_led(
    rounds: Rounds, jobs: Sequence[Job], leadership: Leadership, recall: Callable[[], None]
) -> bool:
    """False where work had to be cut off or the lead was lost: a supervisor starts it anew."""
    lost = Event()
    lease = Job("lease", leadership.retry_seconds, lambda _: leadership.attend(), repeatable=True)
    daemon = Daemon(rounds, [lease, *jobs], SystemClock())

    def on_led() -> None:
        recall()  # Not before: what stands by must not contradict who leads.
        daemon.begin_anew(jobs)

    def on_lost() -> None:
        lost.set()
        daemon.stop()

    leadership.on_led, leadership.on_lost = on_led, on_lost
    clean = daemon.run()
    if clean:  # What was cut off may still be written: then the lease ends by itself.
        leadership.release()
    return clean and not lost.is_set()


def _decide_once(
    settings: Settings, rounds: Rounds, watch: Watch, leadership: Leadership | None
) -> int:
    clock = SystemClock()
    refit = partial(rounds.refit_due, settings.refit_interval_seconds)
    for work in (rounds.catch_up, refit, rounds.decide_all):
        if leadership is not None:
            leadership.attend()
            if not leadership.leads():
                why = leadership.obstacle or f"{leadership.holder} leads"
                _log.error("nothing decided", why=why)
                return 1
        # Each at its own time: a decision must not be dated before the fit that it waited for.
        work(clock.now())
    if leadership is not None:
        leadership.release()
    return 1 if watch.unready() else 0


def _unready(watch: Watch, leadership: Leadership | None) -> list[str]:
    """Whoever stands by is ready to take over as long as the lease can be read."""
    if leadership is None or leadership.leads():
        return watch.unready()
    return [f"lease: {leadership.obstacle}"] if leadership.obstacle else []


def _tell_start(config: Path, settings: Settings, page: str) -> None:
    _log.info(
        "started",
        version=version("daybreak-autoscaler"),
        settings=str(config),
        page=page,
        workloads={
            one.name: f"{one.target.mode} {one.target.namespace}/{one.target.name}"
            for one in settings.workloads
        },
    )


def _control(settings: Settings) -> Control | None:
    """Who may pause and override from the live page; None where nobody may."""
    token, header = settings.server.token(), settings.server.user_header
    if token is None and header is None:
        return None
    try:
        return Control(token, header)
    except ValueError as error:
        raise SettingsError(f"server: {error}") from error


def check(config: ConfigOption, json_out: JsonOption = None) -> None:
    """Check settings, connections, permissions and conflicts with other autoscalers.

    Example: daybreak check --config daybreak.yaml
    """
    settings = load_settings(config)
    findings = check_settings(settings, SystemClock())
    write_findings(findings, json_out)
    if any(finding.severity is Severity.ERROR for finding in findings):
        raise typer.Exit(BAD_INPUT)


def write_findings(findings: list[Finding], json_out: str | None) -> None:
    if json_out is not None:
        rows = [
            {"severity": f.severity.value, "subject": f.subject, "message": f.message}
            for f in findings
        ]
        write_json({"findings": rows}, json_out)
        return
    console = Console(highlight=False, soft_wrap=True)
    styles = {Severity.OK: "green", Severity.WARNING: "yellow", Severity.ERROR: "red"}
    for finding in findings:
        style = styles[finding.severity]
        console.print(f"[{style}]{finding.severity.value:<8}[/]", end="")
        console.print(f"{finding.subject}: {finding.message}", markup=False)


def _leave(status: int) -> None:
    """Threads that still wait for a network answer must not keep the process alive; everything
    that is to be kept is in the database by now."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)
