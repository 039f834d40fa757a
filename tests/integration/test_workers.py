"""Processes that a command starts end with it, however it ends."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.integration.commands import DAYBREAK, run
from tests.integration.test_daemon import wait_for


def children(process: int) -> set[int]:
    """Those that it has started, and those that these have."""
    try:
        own = {
            int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()
        }
    except FileNotFoundError:
        return set()
    return own.union(*map(children, own))


def runs(process: int) -> bool:
    status = Path(f"/proc/{process}/status")
    try:
        return "State:\tZ" not in status.read_text()
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("command", "started"),
    [
        ("demo --headless", 2),
        ("simulate --trace days.csv --policy static,predictive --workers 2", 4),
        ("simulate --trace days.csv --policy hpa,keda_prometheus --workers 2 --sweep", 3),
    ],
    ids=["demo", "simulate", "sweep"],
)
def test_none_outlives_a_command_that_was_killed(
    tmp_path: Path, command: str, started: int
) -> None:
    """`started` counts the processes that it has begun by then, trackers of what they share too."""
    made = run("trace", "generate", "--days", "3", "--out", "days.csv", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    begun = subprocess.Popen([DAYBREAK, *command.split()], cwd=tmp_path)
    found: set[int] = set()
    try:
        wait_for(lambda: len(children(begun.pid)) >= started)
        found = children(begun.pid)
        begun.kill()
        begun.wait()
        wait_for(lambda: not any(map(runs, found)), seconds=30)
    finally:
        for process in filter(runs, {begun.pid, *found}):
            subprocess.run(["kill", "-9", str(process)], check=False)
        begun.wait()
