"""Which samples of an answer are trusted: what is dropped, and for what reason.

Knows numbers and time stamps. Knows nothing of queries, servers or what the numbers measure.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Trusted:
    """Samples in order of time (epoch seconds, value), and how many were dropped and why."""

    samples: list[tuple[float, float]]
    dropped: Counter[str]

    @property
    def dropped_ratio(self) -> float:
        """The share of all samples that was dropped."""
        count = self.dropped.total()
        return count / (count + len(self.samples)) if count else 0.0

    @property
    def reasons(self) -> str:
        """The dropped samples in words, such as "3 negative, 1 NaN"."""
        return ", ".join(f"{count} {reason}" for reason, count in self.dropped.most_common())


def trusted_samples(raw: Iterable[Any], first: int, last: int, step_seconds: int) -> Trusted:
    """The samples at first, first + step, ..., last (epoch seconds) that can be believed."""
    trusted = Trusted([], Counter())
    newest = -math.inf
    for sample in raw:
        at, value, reason = parse_sample(sample)
        reason = reason or _misplaced(at, newest, first, last, step_seconds)
        if reason:
            trusted.dropped[reason] += 1
        else:
            newest = at
            trusted.samples.append((at, value))
    return trusted


def parse_sample(sample: Any) -> tuple[float, float, str]:
    """Time in epoch seconds, value, and what is wrong with them: empty where nothing is."""
    try:
        at, value = float(sample[0]), float(sample[1])
    except (TypeError, ValueError, IndexError, KeyError, OverflowError):
        return 0.0, math.nan, "not a number"
    if math.isnan(value):
        return at, value, "NaN"
    if not (math.isfinite(value) and math.isfinite(at)):
        return at, value, "infinite"
    return at, value + 0.0, "negative" if value < 0 else ""


def _misplaced(at: float, newest: float, first: int, last: int, step_seconds: int) -> str:
    if at > last:
        return "in the future"
    if at < first:
        return "before the period asked for"
    if (at - first) % step_seconds:
        return "off the grid"
    return "out of order or twice" if at <= newest else ""
