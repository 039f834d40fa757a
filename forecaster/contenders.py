"""Contenders: every model that can be judged, by its name.

Knows the names. Outside tools are imported only when one of theirs is asked for.
"""

from __future__ import annotations

from forecaster.calendar import Calendar
from forecaster.combine import NAME as COMBINED
from forecaster.evaluation import Contender, Plain, Whole
from forecaster.outside import OUTSIDE, outside_member
from forecaster.registry import MEMBERS, combined


def known_models() -> tuple[str, ...]:
    """Ours first, then members and peers, then the outside tools, installed or not."""
    return (COMBINED, *MEMBERS, *OUTSIDE)


def contender(name: str, calendar: Calendar) -> Contender:
    """Raises KeyError for an unknown name, MissingToolError for a tool that is not installed."""
    if name == COMBINED:
        return Whole(combined(calendar))
    member = outside_member(name) if name in OUTSIDE else MEMBERS[name]()
    return Plain(member, calendar)
