"""`daybreak report`: the audit of a period."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Engine

from scaler.audit import DEFAULT_SLO_SECONDS, audit, last_moment
from scaler.cli.audit import SettingsOption, SinceOption, UntilOption
from scaler.cli.databases import database_url_of
from scaler.cli.output import (
    BadInputError,
    DatabaseOption,
    JsonOption,
    iso_time,
    progress_bar,
    write_json,
    write_text,
)
from scaler.settings import load_settings
from storage.database import open_existing
from storage.reports import timeline
from storage.reports.audit import AuditReport, NoDecisionError
from storage.reports.export import audit_document, minutes_csv
from storage.reports.report import render_fleet, render_html
from storage.reports.summary import burn, headline
from storage.reports.words import printable
from storage.rollups import MINUTE, minute_of

PERIODS = {"day": 1, "week": 7, "month": 30, "quarter": 91}
"""Lengths in days."""


def report(
    since: SinceOption = None,
    until: UntilOption = None,
    period: Annotated[
        str, typer.Option(help=f"Before --until: {', '.join(PERIODS)}. Not with --since.")
    ] = "day",
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
    html: Annotated[Path | None, typer.Option(help="Write one HTML file.")] = None,
    json_out: JsonOption = None,
    csv: Annotated[Path | None, typer.Option(help="Write every minute as CSV.")] = None,
) -> None:
    """Audit a period: objective and error budget, cost and regret, what other policies would have
    cost, how good the forecast was, every change and every doubt.

    Without --until it ends with the newest decision.

    Example: daybreak report --period month --workload grammar --html march.html
    """
    gc.freeze()  # A month makes millions of objects; what was imported need not be searched too.
    engine = open_existing(database_url_of(config, database_url))
    names = _chosen(timeline.workload_names(engine), workload)
    start, end = _span(
        engine, names, iso_time("--since", since), iso_time("--until", until), period
    )
    goals = _objectives(config)
    reports = []
    with progress_bar("report") as on_progress:
        for number, name in enumerate(names):
            goal = slo_seconds or goals.get(name, DEFAULT_SLO_SECONDS)
            with contextlib.suppress(NoDecisionError):
                reports.append(audit(engine, name, start, end, goal, price))
            on_progress((number + 1) / len(names))
    engine.dispose()
    if not reports:
        raise BadInputError(f"the log holds no decision from {start} until {end}")
    _write(reports, html, json_out, csv)


def _chosen(known: Sequence[str], wanted: Sequence[str] | None) -> Sequence[str]:
    unknown = [name for name in wanted or () if name not in known]
    if unknown or not known:
        there = ", ".join(repr(name) for name in known[:10]) or "none"
        raise BadInputError(f"--workload: {unknown or 'any'} not in the log; there are: {there}")
    return wanted or known


def _span(
    engine: Engine,
    names: Sequence[str],
    since: datetime | None,
    until: datetime | None,
    period: str,
) -> tuple[datetime, datetime]:
    """Whole minutes; the period ends with the newest decision where nothing else is said."""
    if period not in PERIODS:
        raise BadInputError(f"--period: expected one of {', '.join(PERIODS)}, got {period!r}")
    end = until or last_moment(engine, names)
    if end is None:
        raise BadInputError("the log holds no decision")
    end = minute_of(end - timedelta(microseconds=1)) + MINUTE
    start = minute_of(since) if since is not None else end - timedelta(days=PERIODS[period])
    if start >= end:
        raise BadInputError(f"--since: {start} is not before {end}")
    return start, end


def _objectives(config: Path | None) -> dict[str, float]:
    if config is None:
        return {}
    return {one.name: one.slo.p99_seconds for one in load_settings(config).workloads}


def _write(
    reports: Sequence[AuditReport], html: Path | None, json_out: str | None, csv: Path | None
) -> None:
    """Every form that was asked for; without any, the outcome in a few lines."""
    if html is not None:
        page = render_html(reports[0]) if len(reports) == 1 else render_fleet(reports)
        write_text(html, page)
    if csv is not None:
        write_text(csv, minutes_csv(reports))
    if json_out is not None:
        write_json({"workloads": [audit_document(one) for one in reports]}, json_out)
    if json_out != "-":
        for one in reports:
            typer.echo(f"{printable(one.workload)}: {headline(one)} {_budget_sentence(one)}")


def _budget_sentence(one: AuditReport) -> str:
    return f"Error budget used up: {burn(one.compliance.burn)}."
