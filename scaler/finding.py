"""Finding: one line of what `daybreak check` has to say."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """`subject` names what was looked at, such as "grammar: demand query"; `message` says what was
    found and, where it is wrong, what was expected and how to mend it."""

    severity: Severity
    subject: str
    message: str
