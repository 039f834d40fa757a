"""`daybreak db`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from scaler.cli.command import careful, database_url_of
from scaler.cli.output import BadInputError, DatabaseOption, progress_bar
from scaler.clock import SystemClock
from storage import database
from storage.retention import prune as prune_log
from storage.rollups import catch_up

MOST_DAYS = 36_500

db = typer.Typer(help="The database of the decision log.", no_args_is_help=True)


@db.command("upgrade")
@careful
def upgrade(
    config: Annotated[Path | None, typer.Option("--config", help="Settings file.")] = None,
    database_url: DatabaseOption = None,
) -> None:
    """Create the tables, or migrate them to this version.

    Example: daybreak db upgrade --database postgresql+psycopg://daybreak@db/daybreak
    """
    engine = database.open_engine(database_url_of(config, database_url))
    before = database.revision(engine) or "empty"
    after = database.upgrade(engine)
    with progress_bar("summing up") as on_progress:
        catch_up(engine, on_progress)
    typer.echo(f"database schema: {before} -> {after}" if before != after else f"already {after}")


@db.command("prune")
@careful
def prune(
    keep_days: Annotated[
        float, typer.Option(help="Decisions that stay, in days.", min=0.04, max=MOST_DAYS)
    ],
    keep_minute_days: Annotated[
        float | None,
        typer.Option(
            help="What reports need of each minute stays so long; for good if not given.",
            max=MOST_DAYS,
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings file.")] = None,
    database_url: DatabaseOption = None,
) -> None:
    """Delete old decisions, counted back from the newest; reports go on telling of them.

    They stand on sums by the minute, which stay. A deleted decision can no longer be explained or
    verified; the hash chain is cut where the log begins then. The database reuses the freed space;
    to give it back to the disk, VACUUM it.

    Example: daybreak db prune --keep-days 90
    """
    if keep_minute_days is not None and keep_minute_days < keep_days:
        raise BadInputError(
            f"--keep-minute-days: minutes must stay as long as decisions at least ({keep_days:g}), "
            f"got {keep_minute_days:g}"
        )
    engine = database.open_existing(database_url_of(config, database_url))
    keep_minutes = None if keep_minute_days is None else timedelta(days=keep_minute_days)
    with progress_bar("prune") as on_progress:
        found = prune_log(
            engine, SystemClock().now(), timedelta(days=keep_days), keep_minutes, on_progress
        )
    typer.echo(
        f"deleted {found.decisions:,} decisions, {found.minutes:,} minutes, {found.models:,} models"
    )
