"""What holds for every command: numbers are finite, and no output takes the place of an input or of
another output.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

from scaler.cli.output import OUTPUTS, BadInputError
from scaler.settings import load_settings

USUAL_DATABASE, DEMO_DATABASE = Path("daybreak.db"), Path("daybreak-demo.db")
CHANGED_IN_PLACE = {("edit_trace", "source"), ("tune", "config")}
"""Inputs that an output may take the place of: they are read whole before it is written."""

OTHER_NAMES = {"json_out": "json", "database_url": "database", "sources": "from"}
"""Options that Python's own words, or other names, stand in the way of."""

Given = Mapping[str, Any]


def careful(command: Callable[..., None]) -> Callable[..., None]:
    """The same command, its options looked at together before anything is done."""
    usual = {name: one.default for name, one in inspect.signature(command).parameters.items()}

    @wraps(command)
    def run(**given: Any) -> None:
        for name, value in given.items():
            if isinstance(value, float) and value != usual[name] and not math.isfinite(value):
                raise BadInputError(f"{_option(name)}: expected a finite number, got {value}")
        _require_apart(command.__name__, given)
        command(**given)

    return run


def database_url_of(config: Path | None, database_url: str | None) -> str:
    if config is not None and database_url is not None:
        raise BadInputError("give --config or --database, not both")
    if config is not None:
        return load_settings(config).database.resolved_url()
    return database_url or f"sqlite:///{USUAL_DATABASE}"


def _require_apart(command: str, given: Given) -> None:
    taken = {path.resolve(): option for option, path in _inputs(command, given)}
    for name, value in given.items():
        if _option(name) not in OUTPUTS or value is None or str(value) == "-":
            continue
        path = Path(value).resolve()
        log = path.with_name(path.name.removesuffix("-wal").removesuffix("-shm"))
        option = taken.get(path) or taken.get(log)
        if option is not None:
            raise BadInputError(f"{_option(name)}: {value} is what {option} names")
        taken[path] = _option(name)


def _inputs(command: str, given: Given) -> Iterator[tuple[str, Path]]:
    for name, value in given.items():
        if _option(name) in OUTPUTS or (command, name) in CHANGED_IN_PLACE:
            continue
        if isinstance(value, Path) or (name == "pod_profile" and value is not None):
            yield _option(name), Path(value)
        paths = (
            [each for each in value if isinstance(each, Path)] if isinstance(value, list) else []
        )
        yield from ((_option(name), inside) for path in paths for inside in _with_files(path))
    if "database_url" in given:
        found = _file_of(database_url_of(given.get("config"), given["database_url"]))
        yield from (("--database", path) for path in (found, DEMO_DATABASE) if path is not None)


def _with_files(path: Path) -> Iterator[Path]:
    """It, and what a folder holds."""
    yield path
    if path.is_dir():
        yield from path.iterdir()


def _file_of(url: str) -> Path | None:
    """The file of an SQLite URL."""
    path = url.partition("///")[2].partition("?")[0]
    return Path(path) if url.startswith("sqlite") and path else None


def _option(name: str) -> str:
    """As it is typed; a positional one as the help text shows it."""
    if name == "source":
        return "SOURCE"
    return "--" + OTHER_NAMES.get(name, name).replace("_", "-")
