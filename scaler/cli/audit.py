"""`daybreak explain` and `daybreak verify`: what the decision log is asked."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from scaler.cli.command import database_url_of
from scaler.cli.output import (
    BadInputError,
    DatabaseOption,
    JsonOption,
    iso_time,
    progress_bar,
    write_json,
)
from storage.database import open_existing
from storage.reports.lookup import explained, parse_reference
from storage.reports.prose import explanation_document, explanation_text
from storage.verification import Verification
from storage.verification import verify as verify_log

SettingsOption = Annotated[
    Path | None, typer.Option("--config", help="Settings file (YAML).", dir_okay=False)
]
SinceOption = Annotated[str | None, typer.Option("--since", help="From this time on (ISO-8601).")]
UntilOption = Annotated[str | None, typer.Option("--until", help="Before this time (ISO-8601).")]


def explain(
    decision: Annotated[str, typer.Argument(help="A decision's id, or WORKLOAD@TIME (ISO-8601).")],
    config: SettingsOption = None,
    database_url: DatabaseOption = None,
    json_out: JsonOption = None,
) -> None:
    """Say why a decision asked for the number it asked for, and what became of it.

    With WORKLOAD@TIME it is the last decision at or before that time.

    Example: daybreak explain grammar@2026-03-16T08:15:00Z
    """
    engine = open_existing(database_url_of(config, database_url))
    try:
        found = explained(engine, parse_reference(decision))
    except ValueError as error:
        raise BadInputError(f"{decision!r}: {error}") from error
    engine.dispose()
    if json_out is not None:
        write_json(explanation_document(found), json_out)
    if json_out != "-":
        typer.echo(explanation_text(found))


def verify(
    since: SinceOption = None,
    until: UntilOption = None,
    config: SettingsOption = None,
    database_url: DatabaseOption = None,
    json_out: JsonOption = None,
) -> None:
    """Check that the log was not altered, and that this program decides the same again.

    Every decision is recomputed from the context that it was made from, the hash chain over
    decisions, outcomes and overrides is followed, and the minutes that reports read are held
    against their decisions. Ends with status 1 where anything differs.

    Example: daybreak verify --since 2026-03-16 --database sqlite:///daybreak.db
    """
    engine = open_existing(database_url_of(config, database_url))
    start, end = iso_time("--since", since), iso_time("--until", until)
    if start is not None and end is not None and start >= end:
        raise BadInputError(f"--since: {start} is not before {end}")
    with progress_bar("verify") as on_progress:
        found = verify_log(engine, start, end, on_progress)
    engine.dispose()
    if (start or end) and not found.decisions and found.sound:
        # A check of nothing would pass for ever.
        raise BadInputError(f"the log holds no decision{_span_words(start, end)}")
    if json_out is not None:
        write_json(_verification_document(found, since, until), json_out)
    else:
        _tell(found)
    if not found.sound:
        raise typer.Exit(1)


def _span_words(start: datetime | None, end: datetime | None) -> str:
    since, until = f" from {start}" if start else "", f" until {end}" if end else ""
    return since + until


def _verification_document(
    found: Verification, since: str | None, until: str | None
) -> dict[str, Any]:
    return {
        "sound": found.sound,
        "since": since,
        "until": until,
        "decisions": found.decisions,
        "entries": found.entries,
        "minutes": found.minutes,
        "unverifiable_minutes": found.unverifiable_minutes,
        "pruned_entries": found.pruned_entries,
        "reworded": found.reworded,
        "difference_count": found.difference_count,
        "differences": [
            asdict(difference) | {"at": difference.at.isoformat()}
            for difference in found.differences
        ],
        "fault_count": found.fault_count,
        "faults": [asdict(fault) for fault in found.faults],
        "ends": {name: asdict(end) for name, end in found.ends.items()},
    }


def _tell(found: Verification) -> None:
    for difference in found.differences:
        typer.echo(
            f"decision {difference.decision_id} of {difference.workload!r} at "
            f"{difference.at.isoformat()}: {difference.field} is {difference.stored}, recomputed "
            f"{difference.recomputed}"
        )
    for fault in found.faults:
        typer.echo(f"{fault.kind.value}: {fault.message} (workload {fault.workload!r})")
    untold = found.difference_count - len(found.differences)
    untold += found.fault_count - len(found.faults)
    if untold:
        typer.echo(f"... and {untold:,} more")
    reworded = f", {found.reworded:,} of them worded otherwise" if found.reworded else ""
    if found.sound:
        typer.echo(
            f"{found.decisions:,} decisions recomputed alike{reworded}; "
            f"{found.entries:,} entries of the log are as they were written; "
            f"{found.minutes:,} minutes are summed up as their decisions say"
        )
    else:
        typer.echo(
            f"{found.decisions:,} decisions: {found.difference_count:,} recomputed differently, "
            f"{found.fault_count:,} faults in the log"
        )
    if found.pruned_entries or found.unverifiable_minutes:
        typer.echo(
            f"not verifiable: {found.pruned_entries:,} entries that were pruned, and "
            f"{found.unverifiable_minutes:,} minutes that stay of them"
        )
