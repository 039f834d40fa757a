"""Tune: the cheapest setting that keeps a target on a workload's own history, and how sure that is.

Chosen on the first days and checked on later ones that were never used for choosing, walking
forward where there are days enough. There is one knob or there are two, so a grid is searched and
no optimizer: every fold chooses among the same settings, each of which was played once, and the
same history gives the same answer. An optimizer would save plays that take milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from forecaster.history import Floats
from simulator.sweep.trials import Played

MOST_FOLDS = 4
CONFIDENCE = 0.95
RESAMPLES = 4000
RULE_OF_THREE = 3.0


@dataclass(frozen=True, slots=True)
class Span:
    """Days first .. last - 1 of those that were played."""

    first: int
    last: int

    @property
    def days(self) -> slice:
        return slice(self.first, self.last)

    def pod_hours(self, played: Played) -> float:
        return float(played.pod_hours[self.days].sum())

    def bad_ratio(self, played: Played) -> float:
        requests = float(played.requests[self.days].sum())
        return float(played.bad[self.days].sum()) / requests if requests else 0.0


@dataclass(frozen=True, slots=True)
class Fold:
    """What was chosen on some days, and whether it kept the target on the days after them; None
    where nothing kept it on the days to choose on."""

    choosing: Span
    checking: Span
    chosen: Played | None
    kept: bool


@dataclass(frozen=True, slots=True)
class Tuned:
    """`chosen` is the last fold's choice where it kept the target on days that it had not seen.

    Else it is the cheapest that keeps it on both parts, which leaves no day to check it on, or
    None; `nearest` came closest. `upper_bad_ratio` bounds the bad ratio of the chosen one, or the
    nearest, over all days.
    """

    target: float
    folds: tuple[Fold, ...]
    chosen: Played | None
    checked: bool
    nearest: Played
    upper_bad_ratio: float
    days: int

    @property
    def certified(self) -> bool:
        return self.chosen is not None and self.upper_bad_ratio <= self.target

    @property
    def days_to_certify(self) -> int:
        """Days without a bad minute from which a target can be promised: the rule of three."""
        return math.ceil(RULE_OF_THREE / self.target / 1440)


def tune(played: Sequence[Played], target: float, seed: int = 0) -> Tuned:
    """Choose, check and bound; raises ValueError where there are fewer than two days."""
    days = len(played[0].requests)
    folds = tuple(
        _fold(played, choosing, checking, target) for choosing, checking in walking_forward(days)
    )
    newest = folds[-1]
    chosen = newest.chosen if newest.kept else _safest(played, newest, target)
    nearest = min(played, key=lambda each: (_worst(each, newest), each.pod_hours.sum()))
    return Tuned(
        target=target,
        folds=folds,
        chosen=chosen,
        checked=newest.kept,
        nearest=nearest,
        upper_bad_ratio=upper_bad_ratio(chosen or nearest, seed),
        days=days,
    )


def walking_forward(days: int) -> list[tuple[Span, Span]]:
    """The later half in two to four parts, of two days where there are days enough, each checked
    with all days before it to choose on.

    Raises ValueError below two days.
    """
    if days < 2:
        raise ValueError(
            f"{days} whole days to play cannot be split into a part to choose on and "
            f"a part to check on"
        )
    later = (days + 1) // 2
    parts = min(later, MOST_FOLDS, max(2, later // 2))
    edges = np.linspace(days - later, days, parts + 1).astype(int)
    return [(Span(0, int(first)), Span(int(first), int(last))) for first, last in pairwise(edges)]


def cheapest(played: Sequence[Played], span: Span, target: float) -> Played | None:
    """The setting with the fewest GPU-hours among those that kept the target on the days."""
    kept = [each for each in played if span.bad_ratio(each) <= target]
    return min(kept, key=lambda each: (span.pod_hours(each), span.bad_ratio(each)), default=None)


def upper_bad_ratio(played: Played, seed: int) -> float:
    """The bad ratio that is not exceeded with 95 % confidence, by bootstrap over days, since the
    minutes of one day hang together.

    Not below 3 over the number of minutes: as much may be missed by what never happened in them
    (the rule of three; Hanley and Lippman-Hand, 1983).
    """
    rng = np.random.Generator(np.random.Philox(key=seed))
    days = len(played.requests)
    drawn = rng.integers(0, days, (RESAMPLES, days))
    bad, requests = played.bad[drawn].sum(axis=1), played.requests[drawn].sum(axis=1)
    ratios: Floats = bad / np.maximum(requests, 1.0)
    return max(float(np.quantile(ratios, CONFIDENCE)), RULE_OF_THREE / (days * 1440))


def _fold(played: Sequence[Played], choosing: Span, checking: Span, target: float) -> Fold:
    chosen = cheapest(played, choosing, target)
    kept = chosen is not None and checking.bad_ratio(chosen) <= target
    return Fold(choosing, checking, chosen, kept)


def _safest(played: Sequence[Played], fold: Fold, target: float) -> Played | None:
    """The cheapest that keeps the target on both parts of a fold."""
    kept = [each for each in played if _worst(each, fold) <= target]
    return cheapest(kept, Span(0, fold.checking.last), target)


def _worst(played: Played, fold: Fold) -> float:
    return max(fold.choosing.bad_ratio(played), fold.checking.bad_ratio(played))
