"""What is logged: texts from elsewhere stay on their line."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest
import structlog

from scaler.cli.logs import STREAM
from scaler.cli.output import LONGEST_LOGGED, configure_logs

HOSTILE = "x\x1b[2J\u202egpj\r\nlevel=error\x07"


@pytest.mark.parametrize("terminal", [True, False])
def test_hostile_names_steer_no_terminal_and_forge_no_line(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    configure_logs("info")
    structlog.get_logger().warning("refused", workload=HOSTILE, label="y" * 1_000_000)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert not set("\u202e\r\x07") & set(told)
    assert "\x1b[2J" not in told
    assert "gpj" in told
    assert len(told) < LONGEST_LOGGED + 500


def fail() -> None:
    raise ValueError(HOSTILE)


def test_a_traceback_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info")
    try:
        fail()
    except ValueError:
        structlog.get_logger().exception("failed")
    logged = json.loads(capsys.readouterr().err)["exception"]
    assert logged.splitlines()[0].startswith("Traceback")
    assert "\x1b" not in logged
    assert "\u202e" not in logged


def test_a_line_that_cannot_be_written_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    configure_logs("info")
    before = STREAM.lost
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        structlog.get_logger().info("decided")
        with pytest.raises(OSError, match="No space left"):
            full.close()
    assert STREAM.lost == before + 1


def test_what_libraries_warn_of_is_a_line_like_ours(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        configure_logs("info")
    library = logging.getLogger("library.of.somebody")
    library.info("connected")
    library.warning("retry %d of %s", 2, HOSTILE)
    try:
        fail()
    except ValueError:
        library.exception("given up")
    told = capsys.readouterr().err.splitlines()
    warned, failed = map(json.loads, told[:2])
    assert (warned["level"], warned["logger"]) == ("warning", "library.of.somebody")
    assert warned["event"].startswith("retry 2 of x")
    assert (failed["level"], failed["event"]) == ("error", "given up")
    assert failed["exception"].startswith("Traceback")
