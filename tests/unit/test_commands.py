"""The list of commands, which is shown without importing them."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
import typer

from scaler.cli import COMMANDS, build_app

HEAVY = ("altair", "statsmodels", "kubernetes", "alembic", "numba", "pandas")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_listed_with_the_first_sentence_of_its_help(name: str) -> None:
    module, purpose = COMMANDS[name]
    command = getattr(import_module(module), name)
    told = command.info.help if isinstance(command, typer.Typer) else inspect.getdoc(command)
    assert told is not None
    assert told.split("\n\n")[0].replace("\n", " ") == purpose


def helps(command: Any) -> Iterator[str]:
    """What a command says of itself and of its options, and those below it."""
    yield command.help or ""
    yield from (getattr(parameter, "help", None) or "" for parameter in command.params)
    for inner in getattr(command, "commands", {}).values():
        yield from helps(inner)


def test_no_bracket_of_a_help_is_taken_for_markup_and_left_out() -> None:
    told = list(helps(typer.main.get_command(build_app(list(COMMANDS)))))
    assert len(told) > 100
    assert [text for text in told if "[" in text] == []


def imported(code: str) -> list[str]:
    """What a fresh process has imported of what takes long."""
    show = f"import sys\n{code}\nprint(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_list_of_commands_waits_for_none_of_them() -> None:
    assert imported("from scaler.cli import build_app\nbuild_app(['--help'])") == []


def test_a_replay_waits_for_no_chart_and_no_far_model() -> None:
    assert imported("import scaler.cli.simulate") == ["numba"]


def test_a_report_waits_for_no_table_and_no_model() -> None:
    assert imported("import scaler.cli.report") == ["altair", "alembic"]
