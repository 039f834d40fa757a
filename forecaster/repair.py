"""Repair of the history: stretches that are no demand become gaps before anything learns from them.

Knows how an outage, a lost scrape and a load test look beside other days and beside what came
before and after. It would rather keep a doubtful stretch: what goes on for more than a day, has
not ended, comes often or begins and ends slowly is demand. Knows no model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter1d

from forecaster.calendar import DAY_SECONDS, Calendar
from forecaster.demand import OFFSET_RATIO, Ints
from forecaster.history import Floats, TrafficHistory

Bools = npt.NDArray[np.bool_]

GAP = "gap"
CLOCK_SLACK_SECONDS = 1800
"""What happens on another day so much earlier or later happens at the same clock time."""
SIDE_SECONDS = 900
"""How long before and after a stretch must have been ordinary."""
MIN_OTHER_DAYS = 3
MIN_REQUESTS = 50
"""A step; below it chance alone makes outages and spikes."""
ORDINARY_RATIO = 2.0
"""Demand just before and after may be no further from what other days show: where it was odd
already, people were the cause."""
FLAT_RATIO = 1.5
EDGE_RATIO = 1.25
MAX_BRIDGE_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Stretch:
    """Steps of [start, end) that are not demand to learn from, and why."""

    reason: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True, eq=False)
class Repaired:
    """`history` has gaps where `masked` says so, and nowhere else; nothing is filled in."""

    history: TrafficHistory
    masked: tuple[Stretch, ...]


@dataclass(frozen=True, slots=True)
class _Kind:
    """What is sought: `sign` 1 for too much demand, -1 for too little, by at least `ratio`.

    It sets in and ends within `edge_seconds`, lasts `min_steps` and at most `max_seconds`, and
    comes no more than `most_a_day`: what comes more often belongs to the traffic.
    """

    reason: str
    sign: int
    ratio: float
    edge_seconds: int
    max_seconds: int
    most_a_day: float
    min_steps: int = 1
    by_clock: bool = True
    flat: bool = False

    @property
    def log_ratio(self) -> float:
        return math.log(self.ratio)


ZERO = _Kind("zero", -1, 5.0, 75, 900, 6.0, by_clock=False)
OUTAGE = _Kind("outage", -1, 5.0, 300, DAY_SECONDS, 0.5)
SPIKE = _Kind("spike", 1, 10.0, 75, 180, 1 / 7)
PLATEAU = _Kind("load test", 1, 3.0, 75, DAY_SECONDS, 1 / 7, min_steps=3, flat=True)
KINDS = (ZERO, OUTAGE, SPIKE, PLATEAU)


@dataclass(frozen=True, slots=True, eq=False)
class _Grid:
    """The history as the search sees it; what is found becomes a gap in `rates`."""

    rates: Floats
    local: Ints
    step_seconds: int
    offset: float

    def steps(self, seconds: int) -> int:
        return -(-seconds // self.step_seconds)

    @property
    def side(self) -> int:
        """Steps of one side of a stretch; odd, so that a filter over them has a centre."""
        return max(3, self.steps(SIDE_SECONDS) | 1)

    @property
    def days(self) -> float:
        return len(self.rates) * self.step_seconds / DAY_SECONDS


def repaired(history: TrafficHistory, calendar: Calendar) -> Repaired:
    """The history with everything that is no demand as a gap: events, zeros amid busy traffic,
    outages, impossible spikes and load tests."""
    if not len(history):
        return Repaired(history, ())
    seconds, step = history.epoch_seconds(), history.step_seconds
    values = history.values.copy()
    marks = np.where(np.isnan(values), 0, -1)
    reasons = [GAP]
    for event in calendar.events:
        marks[event.covers(seconds, step)] = len(reasons)
        reasons.append(f"event: {event.name}")
    values[marks >= 0] = np.nan
    grid = _Grid(values, calendar.local_seconds(seconds), step, _log_offset(values))
    for kind in KINDS:
        for start, end in list(_found(kind, grid)):
            inside = np.arange(start, end)
            marks[inside[marks[inside] < 0]] = len(reasons)
            values[inside] = np.nan
        reasons.append(kind.reason)
    kept = TrafficHistory(history.series, history.start, step, values)
    return Repaired(kept, tuple(_stretches(history, marks, reasons)))


def bridged(history: TrafficHistory, steps_per_season: int) -> TrafficHistory:
    """Gaps of at most an hour filled, for features that need continuity; never a measurement.

    What the season before shows at the same steps (else the season after) is scaled so that it
    meets both edges of the gap, the scale changing evenly in between; without a season the rates
    themselves are joined. A gap at either end of the history stays.
    """
    values = history.values.copy()
    offset = _log_offset(values)
    logs = np.log(values + offset)
    before = _later(logs, steps_per_season)
    season = np.where(np.isfinite(before), before, _later(logs[::-1], steps_per_season)[::-1])
    longest = MAX_BRIDGE_SECONDS // history.step_seconds
    for start, end in _runs(np.isnan(values)):
        if start > 0 and end < len(values) and end - start <= longest:
            around = slice(start - 1, end + 1)
            filled = np.exp(_joined(logs[around], season[around])) - offset
            values[start:end] = np.maximum(filled, 0.0)
    return TrafficHistory(history.series, history.start, history.step_seconds, values)


def _log_offset(values: Floats) -> float:
    """As `demand.log_offset`; without traffic any will do."""
    positive = values[values > 0]
    return OFFSET_RATIO * float(np.median(positive)) if len(positive) else 1.0


def _joined(logs: Floats, season: Floats) -> Floats:
    """The inner part of a stretch of which only the first and the last log are known."""
    base = season if np.isfinite(season).all() else np.zeros(len(logs))
    deviation = np.linspace(logs[0] - base[0], logs[-1] - base[-1], len(logs))
    return np.asarray((base + deviation)[1:-1])


def _later(logs: Floats, steps: int) -> Floats:
    moved = np.full(len(logs), np.nan)
    moved[steps:] = logs[: len(logs) - steps]
    return moved


def _found(kind: _Kind, grid: _Grid) -> Iterator[tuple[int, int]]:
    """The stretches [start, end) of one kind."""
    known = np.isfinite(grid.rates)
    signed = np.where(known, kind.sign * np.log(grid.rates + grid.offset), -np.inf)
    edge, side = grid.steps(kind.edge_seconds), grid.side
    highest = maximum_filter1d(signed, side, mode="constant", cval=-np.inf)
    if _comes_often(kind, grid, signed, highest):
        return
    if kind.by_clock:
        usual = _highest_on_other_days(signed, grid)
        core = signed > usual + kind.log_ratio
    else:
        usual = np.full(len(signed), np.inf)
        core = grid.rates == 0
    for start, end in _merged(_runs(core), side if kind.sign < 0 else edge):
        first, last = start - edge - side, end + edge + side
        if first < 0 or last > len(signed):
            continue
        sides = highest[first + side // 2], highest[last - 1 - side // 2]
        beyond = max(sides[0] - usual[start], sides[1] - usual[end - 1])
        measured = min(known[first : first + side].mean(), known[last - side : last].mean())
        if measured < 0.5 or beyond > math.log(ORDINARY_RATIO):
            continue
        if _stands_out(kind, grid, signed[start:end], max(sides)):
            yield _with_edges(signed, (start, end), sides, edge)


def _comes_often(kind: _Kind, grid: _Grid, signed: Floats, highest: Floats) -> bool:
    """Whether demand leaves what it was just before, so far and so fast, as a habit."""
    back = grid.steps(kind.edge_seconds) + grid.side // 2 + 1
    before = np.full(len(signed), np.inf)
    before[back:] = highest[:-back]
    before[before == -np.inf] = np.inf  # after a gap nothing is known of before
    jumps = _merged(_runs(signed > before + kind.log_ratio), grid.side)
    return len(list(jumps)) > max(2.0, kind.most_a_day * grid.days)


def _highest_on_other_days(signed: Floats, grid: _Grid) -> Floats:
    """At each step the highest that any other day shows about that clock time; infinite where
    too few days are known to tell."""
    slack = 2 * grid.steps(CLOCK_SLACK_SECONDS) + 1
    near = maximum_filter1d(signed, slack, mode="constant", cval=-np.inf)
    day = grid.local // DAY_SECONDS
    day -= day.min()
    slot = grid.local % DAY_SECONDS // grid.step_seconds
    table = np.full((-(-DAY_SECONDS // grid.step_seconds), max(2, int(day.max()) + 1)), -np.inf)
    table[slot, day] = near
    top = np.partition(table, -2, axis=1)[:, -2:]
    others = np.where(table < top[:, 1:], top[:, 1:], top[:, :1])
    known = table > -np.inf
    enough = known.sum(axis=1, keepdims=True) - known >= MIN_OTHER_DAYS
    return np.asarray(np.where(enough, others, np.inf)[slot, day])


def _stands_out(kind: _Kind, grid: _Grid, inner: Floats, sides: float) -> bool:
    inner_known = inner[np.isfinite(inner)]
    if not kind.min_steps <= len(inner) <= grid.steps(kind.max_seconds):
        return False
    level = float(np.median(inner_known))
    if level < sides + kind.log_ratio:
        return False
    if kind.flat and np.ptp(np.percentile(inner_known, [10, 90])) > math.log(FLAT_RATIO):
        return False
    busy = math.exp(level) if kind.sign > 0 else math.exp(-sides)
    return busy * grid.step_seconds >= MIN_REQUESTS


def _with_edges(
    signed: Floats, run: tuple[int, int], sides: tuple[float, float], edge: int
) -> tuple[int, int]:
    """The run and what leads to it and away from it."""
    start, end = run
    leading = np.flatnonzero(signed[start - edge : start] > sides[0] + math.log(EDGE_RATIO))
    trailing = np.flatnonzero(signed[end : end + edge] > sides[1] + math.log(EDGE_RATIO))
    first = start - edge + int(leading[0]) if len(leading) else start
    last = end + int(trailing[-1]) + 1 if len(trailing) else end
    return first, last


def _runs(mask: Bools) -> list[tuple[int, int]]:
    """The stretches [start, end) in which the mask holds."""
    changes = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
    return list(zip(changes[::2].tolist(), changes[1::2].tolist(), strict=True))


def _merged(runs: list[tuple[int, int]], distance: int) -> Iterator[tuple[int, int]]:
    """Runs no further than so many steps apart as one."""
    held: tuple[int, int] | None = None
    for start, end in runs:
        if held is not None and start - held[1] <= distance:
            held = held[0], end
            continue
        if held is not None:
            yield held
        held = start, end
    if held is not None:
        yield held


def _stretches(history: TrafficHistory, marks: Ints, reasons: list[str]) -> Iterator[Stretch]:
    """Runs of equal marks as times; marks below 0 are demand."""
    changes = np.flatnonzero(np.diff(marks)) + 1
    bounds = [0, *changes.tolist(), len(marks)]
    for start, end in pairwise(bounds):
        if start < end and marks[start] >= 0:
            yield Stretch(
                reasons[int(marks[start])],
                history.start + start * history.step,
                history.start + end * history.step,
            )
