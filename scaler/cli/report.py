"""`daybreak report`: the audit of a period."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Annotated, Any

import typer
from sqlalchemy import Engine

from scaler.audit import DEFAULT_SLO_SECONDS, Period, audits, helper_for, last_moment
from scaler.cli.audit import SettingsOption, SinceOption, UntilOption
from scaler.cli.command import database_url_of
from scaler.cli.output import (
    BadInputError,
    DatabaseOption,
    JsonOption,
    iso_time,
    output_option,
    progress_bar,
    whole_file,
    write_json,
    write_text,
)
from scaler.settings import load_settings
from storage.database import open_existing
from storage.reports import charts, timeline
from storage.reports.audit import AuditReport
from storage.reports.export import audit_document, csv_header, minutes_csv
from storage.reports.report import (
    SHOWN_WORKLOADS,
    FleetRow,
    fleet_row,
    render_fleet,
    render_html,
)
from storage.reports.summary import burn, headline
from storage.reports.words import printable
from storage.rollups import MINUTE, minute_of

PERIODS = {"day": 1, "week": 7, "month": 30, "quarter": 91}
"""Lengths in days."""


def report(
    since: SinceOption = None,
    until: UntilOption = None,
    period: Annotated[
        str | None,
        typer.Option(
            help=f"Before --until: {', '.join(PERIODS)}; else day. Not with --since.",
            show_default=False,
        ),
    ] = None,
    workload: Annotated[
        list[str] | None, typer.Option("--workload", help="One of them; may be given again.")
    ] = None,
    config: SettingsOption = None,
    database_url: DatabaseOption = None,
    slo_seconds: Annotated[
        float | None, typer.Option(help="P99 objective; else the settings', else 1.", min=0.001)
    ] = None,
    price: Annotated[
        float | None, typer.Option(help="Of a replica for an hour, in any currency.", min=0)
    ] = None,
    html: Annotated[Path | None, output_option(help_text="Write one HTML file.")] = None,
    json_out: JsonOption = None,
    csv: Annotated[Path | None, output_option(help_text="Write every minute as CSV.")] = None,
) -> None:
    """Audit a period: what was promised, what it cost, why, and what else could have been.

    Objective and error budget, cost and regret, what other policies would have cost, how good the
    forecast was, every change and every doubt. Without --until it ends with the newest decision.

    Example: daybreak report --period month --workload grammar --html march.html
    """
    gc.freeze()  # A month makes millions of objects; what was imported need not be searched too.
    engine = open_existing(database_url_of(config, database_url))
    names = _chosen(timeline.workload_names(engine), workload)
    start, end = _span(
        engine, names, iso_time("--since", since), iso_time("--until", until), period
    )
    goals = _objectives(config)
    periods = [
        Period(name, start, end, slo_seconds or goals.get(name, DEFAULT_SLO_SECONDS), price)
        for name in names
    ]
    if html is not None:
        Thread(target=charts.warm_up).start()  # while the log is read
    gathered = _Gathered(keep_documents=json_out is not None)
    # Of very many a page tells only the first whole, and the others need not be compared.
    brief = len(periods) > SHOWN_WORKLOADS and json_out is None
    asked = [replace(period, brief=brief) for period in periods]
    with (
        charts.unchecked(),
        helper_for(asked, charts.warm_up if html else _nothing) as helper,
        whole_file(csv) if csv else contextlib.nullcontext() as table,
    ):
        if table is not None:
            table.write(csv_header())
        with progress_bar("report") as on_progress:
            for number, found in enumerate(audits(engine, asked, helper=helper)):
                if found is not None:
                    gathered.add(found)
                    if table is not None:
                        table.write(minutes_csv(found))
                on_progress((number + 1) / len(periods))
        if not gathered.rows:
            raise BadInputError(f"the log holds no decision from {start} until {end}")
        if brief and html is not None:
            told = {report.workload for report in gathered.shown}
            whole = audits(engine, [period for period in periods if period.workload in told])
            gathered.shown = [report for report in whole if report is not None]
        engine.dispose()
        _write(gathered, html, json_out, helper.pool if helper else None)


def _nothing() -> None:
    """Where no picture is to be drawn."""


class _Gathered:
    """What is kept of each audit: of many workloads only the most urgent ones whole."""

    def __init__(self, keep_documents: bool) -> None:
        self.rows: list[FleetRow] = []
        self.sentences: list[str] = []
        self.documents: list[dict[str, Any]] = []
        self.shown: list[AuditReport] = []
        self._keep_documents = keep_documents

    def add(self, found: AuditReport) -> None:
        self.rows.append(fleet_row(found))
        most = "at most " if found.compliance.bad_requests and not found.compliance.exact else ""
        budget = f"Error budget used up: {most}{burn(found.compliance.burn)}{_unseen(found)}."
        self.sentences.append(f"{printable(found.workload)}: {headline(found)} {budget}")
        if self._keep_documents:
            self.documents.append(audit_document(found))
        self.shown.append(found)
        self.shown.sort(key=lambda one: fleet_row(one).urgency)
        del self.shown[SHOWN_WORKLOADS:]


def _unseen(found: AuditReport) -> str:
    """Of how many minutes the log cannot tell."""
    blind, minutes = found.compliance.minutes_blind, found.compliance.minutes
    return f" (nothing is known of {blind:,} of {minutes:,} minutes)" if blind else ""


def _chosen(known: Sequence[str], wanted: Sequence[str] | None) -> Sequence[str]:
    unknown = [name for name in wanted or () if name not in known]
    if unknown or not known:
        there = ", ".join(repr(name) for name in known[:10]) or "none"
        raise BadInputError(f"--workload: {unknown or 'any'} not in the log; there are: {there}")
    return tuple(dict.fromkeys(wanted or known))


def _span(
    engine: Engine,
    names: Sequence[str],
    since: datetime | None,
    until: datetime | None,
    period: str | None,
) -> tuple[datetime, datetime]:
    """Whole minutes; the period ends with the newest decision where nothing else is said."""
    if since is not None and period is not None:
        raise BadInputError(f"--period: not with --since, got both: {since} and {period!r}")
    days = PERIODS.get(period or "day")
    if days is None:
        raise BadInputError(f"--period: expected one of {', '.join(PERIODS)}, got {period!r}")
    end = until or last_moment(engine, names)
    if end is None:
        raise BadInputError("the log holds no decision")
    end = minute_of(end - timedelta(microseconds=1)) + MINUTE
    start = minute_of(since) if since is not None else end - timedelta(days=days)
    if start >= end:
        what = "" if until is not None else ", where the minute of the newest decision ends"
        raise BadInputError(f"--since: {start} is not before {end}{what}")
    return start, end


def _objectives(config: Path | None) -> dict[str, float]:
    if config is None:
        return {}
    return {one.name: one.slo.p99_seconds for one in load_settings(config).workloads}


def _write(
    gathered: _Gathered, html: Path | None, json_out: str | None, helper: Executor | None
) -> None:
    """Every form that was asked for, and the outcome in a line for each workload."""
    if html is not None:
        alone = len(gathered.rows) == 1
        page = (
            render_html(gathered.shown[0], helper)
            if alone
            else render_fleet(gathered.rows, gathered.shown)
        )
        write_text(html, page)
    if json_out is not None:
        write_json({"workloads": gathered.documents}, json_out)
    if json_out != "-":
        typer.echo("\n".join(gathered.sentences))
