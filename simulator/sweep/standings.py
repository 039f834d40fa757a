"""Standings: who keeps a bad ratio with the fewest GPU-hours, by how much, and who does not.

Pure: points in, comparisons and sentences out. Wins, ties and losses are told alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from simulator.sweep.results import Point, by_policy

LEVELS = {"1e-3": 1e-3, "1e-4": 1e-4}
TIE_RATIO = 0.01
"""Closer than this is a tie: the settings that were tried lie further apart."""
NAMED = 3
"""Policies that a sentence compares the cheapest with."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The least that keeping a bad ratio takes a policy; None where no setting kept it."""

    policy: str
    point: Point | None


def least(points: Iterable[Point], level: float) -> Point | None:
    """The cheapest of the settings that keep a bad ratio."""
    kept = (point for point in points if point.bad_ratio <= level)
    return min(kept, key=lambda point: point.pod_hours, default=None)


def undominated(points: Sequence[Point]) -> list[Point]:
    """The Pareto frontier, cheapest first: what nobody beats in GPU-hours and bad requests."""
    found: list[Point] = []
    for point in sorted(points, key=lambda each: (each.pod_hours, each.bad_ratio)):
        if not found or point.bad_ratio < found[-1].bad_ratio:
            found.append(point)
    return found


def standings(points: Sequence[Point], level: float) -> list[Standing]:
    """The cheapest first; those that did not keep the level last."""
    found = [Standing(policy, least(mine, level)) for policy, mine in by_policy(points).items()]
    kept = [each for each in found if each.point is not None]
    kept.sort(key=lambda each: each.point.pod_hours if each.point else 0.0)
    return [*kept, *(each for each in found if each.point is None)]


def verdict(points: Sequence[Point], level: str) -> str:
    """Who keeps a level most cheaply and by how many GPU-hours, in two or three sentences."""
    found = standings(points, LEVELS[level])
    kept = [each.point for each in found if each.point is not None]
    missed = [each.policy for each in found if each.point is None]
    if not kept:
        return f"No setting of {_listed(missed, 'or')} keeps a bad ratio of {level}."
    tied = [point for point in kept if _ties(point, kept[0])]
    hours = _listed([f"{point.pod_hours:,.0f}" for point in tied])
    names = _listed([point.policy for point in tied])
    text = f"At a bad ratio of {level} {names} {'tie at' if len(tied) > 1 else 'is cheapest:'} "
    text += f"{hours} GPU-hours"
    dearer = [_against(kept[0], point) for point in kept[len(tied) :][:NAMED]]
    text += f", {_listed(dearer)}." if dearer else "."
    return f"{text} No setting of {_listed(missed, 'or')} keeps it." if missed else text


def _ties(one: Point, other: Point) -> bool:
    return one.pod_hours < other.pod_hours * (1 + TIE_RATIO)


def _against(best: Point, other: Point) -> str:
    fewer = other.pod_hours - best.pod_hours
    return f"{fewer:,.0f} fewer than {other.policy} ({-fewer / other.pod_hours:.1%})"


def _listed(parts: Sequence[str], last: str = "and") -> str:
    return f"{', '.join(parts[:-1])} {last} {parts[-1]}" if len(parts) > 1 else parts[0]
