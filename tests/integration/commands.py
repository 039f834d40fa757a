"""Commands of daybreak, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from scaler.cli import COMMANDS, main

DAYBREAK = Path(sys.executable).parent / "daybreak"
SECONDS = 180

# Importing takes longer than most commands: it is done once, in a process that forks into each.
_FORKING = get_context("forkserver")
_FORKING.set_forkserver_preload(
    [__name__, *sorted({module for module, _ in COMMANDS.values()}), "scaler.live"]
)


def run(
    *arguments: str, cwd: Path | None = None, environment: Mapping[str, str] = {}
) -> subprocess.CompletedProcess[str]:
    """Ends as the console script ends, with what it has written."""
    with TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = _FORKING.Process(
            target=_command,
            args=(arguments, cwd or Path.cwd(), {**os.environ, **environment}, out, err),
        )
        process.start()
        process.join(SECONDS)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(list(arguments), SECONDS)
        return subprocess.CompletedProcess(
            list(arguments), process.exitcode, out.read_text(), err.read_text()
        )


def _command(
    arguments: tuple[str, ...], cwd: Path, environment: Mapping[str, str], out: Path, err: Path
) -> None:
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["daybreak", *arguments]
    main()
