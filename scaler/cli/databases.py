"""`daybreak db`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaler.cli.output import BadInputError, DatabaseOption
from scaler.settings import load_settings
from storage import database

db = typer.Typer(help="The database of the decision log.", no_args_is_help=True)


@db.command("upgrade")
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
    typer.echo(f"database schema: {before} -> {after}" if before != after else f"already {after}")


def database_url_of(config: Path | None, database_url: str | None) -> str:
    if config is not None and database_url is not None:
        raise BadInputError("give --config or --database, not both")
    if config is not None:
        return load_settings(config).database.resolved_url()
    return database_url or "sqlite:///daybreak.db"
