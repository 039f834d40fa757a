"""Obstacles: what stands between decisions and their targets, told once and kept while it stands.

Knows what became of each workload's last decisions. Knows no metrics and no page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from policies.decision import NOT_APPLIED, Outcome, OutcomeKind
from scaler.loop import TickResult
from scaler.rounds import Failure

MOST_TOLD = 10
"""Wordings of one obstacle that are told at most: a message may name a pod or a moment."""
_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+")

_log = structlog.get_logger("daybreak")

Obstacle = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unapplied:
    """A workload's last decision was not applied, nor were those before it `since` then. `growing`
    tells since when they ask for more replicas than there are; None where the last does not."""

    outcome: Outcome
    since: datetime
    growing: datetime | None


class Writes:
    """Whose decisions are not applied at present."""

    def __init__(self) -> None:
        self._standing: dict[str, Unapplied] = {}

    def after_tick(self, result: TickResult | Failure) -> None:
        """Without a decision nothing is known anew."""
        if isinstance(result, Failure):
            return
        name, now = result.context.workload, result.context.now
        before = self._standing.get(name)
        if result.outcome.kind not in NOT_APPLIED:
            self._standing.pop(name, None)
            return
        grows = result.decision.desired > result.decision.current
        self._standing[name] = Unapplied(
            result.outcome,
            before.since if before else now,
            ((before and before.growing) or now) if grows else None,
        )

    def standing(self) -> Mapping[str, Unapplied]:
        return dict(self._standing)

    def starving(self, now: datetime, longest: timedelta) -> Iterator[str]:
        """Workloads that have not got what they ask for, each with the reason after a colon. A
        fleet that is only not made smaller lacks nothing."""
        for name, one in self.standing().items():
            if one.growing is not None and now - one.growing > longest:
                yield (
                    f"{name}: asks for more replicas since {one.growing:%H:%M:%S} UTC in vain: "
                    f"{one.outcome.kind}: {one.outcome.detail}"
                )


class Teller:
    """Writes to the log what is in a workload's way, when it comes up or becomes something else:
    numbers alone change all the time."""

    def __init__(self) -> None:
        self._told: dict[str, dict[Obstacle, frozenset[str]]] = {}

    def after_tick(self, result: TickResult | Failure) -> None:
        if isinstance(result, Failure):
            return  # told where it happened
        workload = result.context.workload
        before = self._told.get(workload, {})
        now = dict(_still(before, result))
        for obstacle, why in _obstacles(result):
            told = before.get(obstacle, frozenset())
            wording = _NUMBERS.sub("#", why)
            if wording not in told and len(told) < MOST_TOLD:
                _log.warning(obstacle[0], workload=workload, **_named(obstacle), why=why)
                told |= {wording}
            now[obstacle] = told
        self._told[workload] = now


def _obstacles(result: TickResult) -> Iterator[tuple[Obstacle, str]]:
    if result.outcome.kind in NOT_APPLIED:
        yield ("not applied", result.outcome.kind.value), result.outcome.detail
    for problem in result.context.problems:
        yield ("doubtful", problem.kind.value, problem.source.value), problem.message


def _still(
    told: Mapping[Obstacle, frozenset[str]], result: TickResult
) -> Iterator[tuple[Obstacle, frozenset[str]]]:
    """Where there was nothing to write, nothing is known anew of what is in the way of writing."""
    if result.outcome.kind is OutcomeKind.UNCHANGED:
        yield from ((one, words) for one, words in told.items() if one[0] == "not applied")


def _named(obstacle: Obstacle) -> dict[str, str]:
    return dict(zip(("kind", "source"), obstacle[1:], strict=False))
