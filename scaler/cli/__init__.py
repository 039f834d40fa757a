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

from scaler.cli.command import careful
from scaler.cli.output import clear_errors, configure_logs

COMMANDS = {
    "demo": (
        "scaler.cli.demo",
        "Watch the daemon's loop pre-scale an embedded fleet through a 200,000-QPS day.",
    ),
    "run": ("scaler.cli.daemon", "Run the scaling daemon."),
    "check": (
        "scaler.cli.daemon",
        "Check settings, connections, permissions and conflicts with other autoscalers.",
    ),
    "rbac": (
        "scaler.cli.rbac",
        "Print the least privileges that these settings need, as manifests for kubectl.",
    ),
    "simulate": (
        "scaler.cli.simulate",
        "Replay a trace under one or many policies and compare what they cost and gave.",
    ),
    "backtest": (
        "scaler.cli.backtest",
        "Forecast a trace, or your own history, as it went by, and score each model.",
    ),
    "calibrate": (
        "scaler.cli.calibrate",
        "Find what a pod carries within the objective, from benchmarks or from Prometheus.",
    ),
    "tune": (
        "scaler.cli.tune",
        "Find the cheapest settings of a policy that keep a bad ratio on your own history.",
    ),
    "explain": (
        "scaler.cli.audit",
        "Say why a decision asked for the number it asked for, and what became of it.",
    ),
    "verify": (
        "scaler.cli.audit",
        "Check that the log was not altered, and that this program decides the same again.",
    ),
    "report": (
        "scaler.cli.report",
        "Audit a period: what was promised, what it cost, why, and what else could have been.",
    ),
    "reproduce": ("scaler.cli.reproduce", "Published claims, reproduced."),
    "trace": ("scaler.cli.trace", "Traces: import, generate, edit, describe."),
    "db": ("scaler.cli.databases", "The database of the decision log."),
}
"""Where each command, or group of commands, is found under its own name, and what it is for: the
list of commands need not wait for what they import."""


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
    for name, (module, purpose) in COMMANDS.items():
        if name not in arguments:
            app.command(name, help=purpose)(_not_loaded)
            continue
        command = getattr(import_module(module), name)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(careful(command))
    return app


def _not_loaded() -> None:
    """Stands in the list of commands for one that the arguments do not name."""


def _root(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    configure_logs(log_level)
    if show_version:
        typer.echo(version("daybreak-autoscaler"))
        raise typer.Exit
