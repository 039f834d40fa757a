"""How things are said: JSON, tables, files written whole, errors as one clear message."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TextIO, cast

import structlog
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from structlog.typing import EventDict

from forecaster.history import TrafficHistory
from scaler.cli.logs import STREAM, route_standard_logs
from scaler.listening import CannotListenError
from scaler.ports import StoreError
from scaler.setting_values import known_zone
from scaler.settings_file import SettingsError
from simulator.traces import whole_file as whole
from simulator.traces.trace_file import TraceError, read_trace
from storage.reports.words import printable

BAD_INPUT = 2
LARGEST_SEED = 2**63 - 1
PIPE_COLUMNS = 160

ConfigOption = Annotated[
    Path, typer.Option("--config", help="Settings file (YAML).", dir_okay=False)
]
DatabaseOption = Annotated[str | None, typer.Option("--database", help="Database URL.")]


class BadInputError(Exception):
    """Options that do not go together, or name what is not there."""


OUTPUTS = ("--json", "--html", "--csv", "--out", "--report")
"""Options that name a file to write."""


def output_option(*names: str, help_text: str) -> Any:
    """One of OUTPUTS; whether it can be written is found out before the work begins, since the work
    may take an hour."""
    return typer.Option(*names, help=help_text, callback=_require_writable)


def _require_writable(parameter: typer.CallbackParam, given: Any) -> Any:
    option = parameter.opts[0]
    assert option in OUTPUTS, option
    if given is None or (str(given) == "-" and option == "--json"):
        return given
    if str(given) == "-":
        raise BadInputError(f"{option}: expected a file; only --json goes to standard output")
    why = whole.why_unwritable(Path(given))
    if why is not None:
        raise BadInputError(f"{option}: cannot write {given}: {why}")
    return given


def seed_option(help_text: str) -> Any:
    """A seed that every generator takes."""
    return typer.Option(help=help_text, min=0, max=LARGEST_SEED)


def _known_zone(name: str | None) -> str | None:
    try:
        return None if name is None else known_zone(name)
    except ValueError as error:
        raise BadInputError(f"--time-zone: {error}") from error


TimeZoneOption = Annotated[
    str | None,
    typer.Option(
        "--time-zone",
        help="IANA time zone of the days of a trace; the settings', or UTC, if not said.",
        callback=_known_zone,
    ),
]
JsonOption = Annotated[
    str | None,
    output_option("--json", help_text="Write JSON to this file, or - for standard output."),
]


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """Bad input ends with one clear message and status 2, never with a traceback."""
    try:
        yield
    except (SettingsError, StoreError, TraceError, CannotListenError, BadInputError) as error:
        typer.echo(f"daybreak: {error}", err=True)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(130)


def iso_time(option: str, text: str | None) -> datetime | None:
    """The time that an option gives, or None where it is not given; raises BadInputError."""
    return None if text is None else moment(option, text)


def moment(option: str, text: str) -> datetime:
    """The time that an option gives, UTC where it names no zone; raises BadInputError."""
    try:
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadInputError(f"{option}: expected an ISO-8601 time, got {text!r}") from None


def listed(option: str, text: str) -> list[str]:
    """What an option names, separated by commas; raises BadInputError where one stands twice."""
    parts = [part.strip() for part in text.split(",")]
    if len(set(parts)) < len(parts):
        raise BadInputError(f"--{option}: a {option} stands twice: {text}")
    return parts


@contextlib.contextmanager
def progress_bar(what: str, transient: bool = False) -> Iterator[Callable[[float], None]]:
    """How far the work is, on a terminal; nothing in a pipe."""
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=transient, disable=hidden) as progress:
        task = progress.add_task(what, total=1.0)
        yield lambda share: progress.update(task, completed=share)


def table_console() -> Console:
    """As wide as the terminal; in a pipe, where nobody sees an edge, no figure is cut."""
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, PIPE_COLUMNS)
    return console


def trace_from(path: Path) -> TrafficHistory:
    """A trace, with a bar that goes away again while it is read; raises TraceError."""
    with progress_bar(f"reading {path.name}", transient=True) as on_progress:
        return read_trace(path, on_progress)


def write_json(document: object, target: str) -> None:
    """To a file, or to standard output with nothing else on it."""
    text = json.dumps(document, indent=2, allow_nan=False)
    if target == "-":
        typer.echo(text)
    else:
        write_text(Path(target), text + "\n")


def write_text(path: Path, text: str) -> None:
    """Whole or not at all; raises BadInputError where the file cannot be written."""
    with whole_file(path) as file:
        file.write(text)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A file that is there only once everything is in it; raises BadInputError where it cannot be
    written."""
    try:
        with whole.whole_file(path) as file:
            yield file
    except OSError as error:
        raise BadInputError(f"cannot write {path}: {error.strerror}") from error


LONGEST_LOGGED = 2_000


def configure_logs(level: str) -> None:
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise typer.BadParameter(f"expected debug, info, warning or error, got {level!r}")
    plain = sys.stderr.isatty()
    renderer = structlog.dev.ConsoleRenderer() if plain else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _inert,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, STREAM)),
    )
    route_standard_logs()


def _inert(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Texts from elsewhere cannot steer a terminal, forge a line or fill the disk; a traceback
    keeps its lines."""
    for name, value in event.items():
        if isinstance(value, str):
            lines = value.split("\n") if name == "exception" else [value]
            event[name] = "\n".join(printable(line, LONGEST_LOGGED) for line in lines)
    return event
