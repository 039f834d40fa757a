"""Preflight: everything that `daybreak check` looks at before anyone trusts a settings file."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import structlog

from scaler.cluster.api import ClusterClient
from scaler.cluster.check import check_lease, check_target, leftover_floors, standing_warnings
from scaler.cluster.connection import connect
from scaler.cluster.pods import lead_times
from scaler.finding import Finding, Severity
from scaler.listening import CannotListenError, listen
from scaler.ports import Clock, StoreError, TargetError
from scaler.settings import Settings, Workload
from scaler.settings_file import SettingsError
from scaler.starts import FEWEST
from scaler.telemetry.source import check_metrics
from storage import database

_log = structlog.get_logger("daybreak")


def check_settings(settings: Settings, clock: Clock) -> list[Finding]:
    """Log and server, then metrics and target of each workload; nothing is written anywhere."""
    findings = [_database(settings), _server(settings)]
    for workload in settings.workloads:
        findings.extend(check_metrics(settings.prometheus, workload, clock.now()))
    findings.extend(_targets(settings, clock))
    return findings


def _database(settings: Settings) -> Finding:
    try:
        engine = database.open_engine(settings.log_url())
        missing = database.missing_file(engine)
        if missing is not None:
            return Finding(Severity.OK, "database", f"{missing} will be made")
        at = database.revision(engine)
    except (StoreError, SettingsError) as error:
        return Finding(Severity.ERROR, "database", str(error))
    if at not in (None, database.head()):
        message = f"is at schema {at}, needs {database.head()}: run daybreak db upgrade"
        return Finding(Severity.ERROR, "database", message)
    return Finding(Severity.OK, "database", "empty, tables will be made" if at is None else "ready")


def _server(settings: Settings) -> Finding:
    host, port = settings.server.host, settings.server.port
    try:
        settings.server.token()
        listen(host, port).close()
    except SettingsError as error:
        return Finding(Severity.ERROR, "server", str(error))
    except CannotListenError as error:
        message = str(error).removeprefix("server: ")
        if error.taken:
            return Finding(Severity.WARNING, "server", f"{message}; is the daemon running?")
        return Finding(Severity.ERROR, "server", message)
    return Finding(Severity.OK, "server", f"{host}, port {port} is free")


def _targets(settings: Settings, clock: Clock) -> Iterator[Finding]:
    try:
        api = connect(settings.kubernetes)
    except SettingsError as error:
        yield Finding(Severity.ERROR, "cluster", str(error))
        return
    if settings.leader_election is not None:
        yield from check_lease(api, settings.leader_election)
    for workload in settings.workloads:
        findings = check_target(api, workload)
        yield from findings
        if all(finding.severity is not Severity.ERROR for finding in findings):
            yield from lead_time_findings(api, workload, clock.now())
    yield from leftover_floors(api, settings.workloads)


def warn_at_start(settings: Settings) -> None:
    """Log what somebody should know of the cluster when the daemon starts."""
    with connect(settings.kubernetes) as api:
        for finding in standing_warnings(api, settings.workloads):
            _log.warning("at start", subject=finding.subject, found=finding.message)


def lead_time_findings(api: ClusterClient, workload: Workload, now: datetime) -> Iterator[Finding]:
    """What the pods' own times say about the lead time that the settings assume."""
    try:
        measured = lead_times(api, workload.target, now)
    except TargetError as error:
        yield Finding(Severity.WARNING, f"{workload.name}: lead time", str(error))
        return
    if measured is None:
        return
    assumed = workload.lead_time.p95_seconds
    slower = measured.p95_seconds > assumed
    yield Finding(
        Severity.WARNING if slower else Severity.OK,
        f"{workload.name}: lead time",
        f"95 % of the present pods were ready within {measured.p95_seconds:.0f} s; "
        f"leadTime.p95Seconds is {assumed:g}" + _advice(workload, slower),
    )


def _advice(workload: Workload, slower: bool) -> str:
    if not slower:
        return ""
    if workload.lead_time.learned:
        return f": raise it; until then daybreak plans with what it sees of {FEWEST} pods or more"
    return ": raise it, or replicas will come too late"
