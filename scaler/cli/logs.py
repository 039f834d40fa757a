"""Where the lines of the log go: standard error, whoever says them, as long as it takes them.

Knows what happens to a line that cannot be written. What a line looks like is `output`'s.
"""

from __future__ import annotations

import logging
import sys

import structlog

_log = structlog.get_logger("daybreak")


class LogStream:
    """Standard error as a file that fails nobody: a full disk or a dead pipe takes the log away,
    and nothing else. `lost` counts the lines that it did not take."""

    def __init__(self) -> None:
        self.lost = 0
        self._line = ""

    def write(self, text: str) -> int:
        self._line += text
        return len(text)

    def flush(self) -> None:
        line, self._line = self._line, ""
        try:
            sys.stderr.write(line)
            sys.stderr.flush()
        except OSError:
            self.lost += 1


STREAM = LogStream()
"""The one of this process."""


class StandardLogs(logging.Handler):
    """What libraries warn of, as lines like ours: whoever reads the log by machine reads these."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            say = _log.error if record.levelno >= logging.ERROR else _log.warning
            say(record.getMessage(), logger=record.name, exc_info=record.exc_info)
        except Exception:  # noqa: BLE001  # as the library's own handlers do
            self.handleError(record)


def route_standard_logs() -> None:
    """Once for the process, however often it is asked for."""
    root = logging.getLogger()
    if not any(isinstance(handler, StandardLogs) for handler in root.handlers):
        root.addHandler(StandardLogs(logging.WARNING))
