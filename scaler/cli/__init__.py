"""The command line: `daybreak`.

Knows commands, exit statuses (0 done, 1 the answer is no, 2 bad input) and how things are said to
people. Everything that it does stands in other modules.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Annotated

import typer

from scaler.cli.output import clear_errors, configure_logs

COMMANDS = {
    "demo": "scaler.cli.demo",
    "run": "scaler.cli.daemon",
    "check": "scaler.cli.daemon",
    "simulate": "scaler.cli.simulate",
    "backtest": "scaler.cli.backtest",
    "tune": "scaler.cli.tune",
    "reproduce": "scaler.cli.reproduce",
    "trace": "scaler.cli.trace",
    "explain": "scaler.cli.audit",
    "verify": "scaler.cli.audit",
    "report": "scaler.cli.report",
    "db": "scaler.cli.databases",
}
"""Where each command, or group of commands, is found under its own name."""


def main() -> None:
    """The console script."""
    with clear_errors():
        build_app(sys.argv[1:])()


def build_app(arguments: Sequence[str]) -> typer.Typer:
    """The commands; of those named in the arguments only the one that is wanted.

    Each brings libraries that take a second or more to import, which the others need not wait for.
    """
    app = typer.Typer(
        help="Predictive autoscaling for GPU inference: one cold start ahead of the traffic.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback(invoke_without_command=True)(_root)
    named = [name for name in COMMANDS if name in arguments]
    for name in named or ([] if "--version" in arguments else COMMANDS):
        command = getattr(import_module(COMMANDS[name]), name)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def _root(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    configure_logs(log_level)
    if show_version:
        typer.echo(version("daybreak-autoscaler"))
        raise typer.Exit
