"""TrafficHistory: request rate on a regular UTC grid, with its gaps explicit.

Knows grids, gaps, aggregation and growth. Knows nothing of models, clocks or where samples come
from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SPARE_STEPS = 1440
"""Room for steps to come before a growing history is moved."""


@dataclass(frozen=True, slots=True, eq=False)
class TrafficHistory:
    """Mean request rate per step; a step without a trusted value is NaN, never zero.

    `values[i]` is the mean rate, in requests a second, over
    [start + i * step, start + (i + 1) * step); `end` is that of the last step, exclusive. Raises
    ValueError where the grid is not UTC, the step is not a whole number of seconds, or a value is
    negative or infinite.
    """

    series: str
    start: datetime
    step_seconds: int
    values: Floats
    end: datetime = field(init=False)

    def __post_init__(self) -> None:
        if self.start.utcoffset() != timedelta(0):
            raise ValueError(f"history start must be UTC, got {self.start.isoformat()}")
        if self.step_seconds < 1:
            raise ValueError(f"history step must be at least 1 second, got {self.step_seconds}")
        values = np.array(self.values, dtype=np.float64)
        if values.ndim != 1:
            raise ValueError(f"history values must be one-dimensional, got {values.ndim}")
        lowest, highest = np.fmin.reduce(values, initial=0.0), np.fmax.reduce(values, initial=0.0)
        if lowest < 0 or highest == math.inf:
            raise ValueError("history values must be finite and not negative, or NaN for a gap")
        values.setflags(write=False)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "end", _end(self.start, self.step_seconds, values))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def step(self) -> timedelta:
        return timedelta(seconds=self.step_seconds)

    @property
    def days(self) -> float:
        return len(self.values) * self.step_seconds / 86_400

    @property
    def known_ratio(self) -> float:
        """The share of steps that hold a value."""
        return float(np.isfinite(self.values).mean()) if len(self.values) else 0.0

    @property
    def last_known_end(self) -> datetime | None:
        """The end of the newest step that holds a value, or None where no step does."""
        if len(self.values) and math.isfinite(self.values[-1]):
            return self.end
        known = np.flatnonzero(np.isfinite(self.values))
        return self.start + (int(known[-1]) + 1) * self.step if len(known) else None

    def epoch_seconds(self) -> npt.NDArray[np.int64]:
        """The start of each step in seconds since 1970."""
        first = round(self.start.timestamp())
        return first + self.step_seconds * np.arange(len(self.values), dtype=np.int64)

    def between(self, start: datetime, end: datetime) -> TrafficHistory:
        """The steps that lie wholly in [start, end)."""
        seconds = self.step_seconds
        first = max(0, -int(-(start - self.start).total_seconds() // seconds))
        last = min(len(self.values), int((end - self.start).total_seconds() // seconds))
        kept = self.values[first : max(first, last)]
        return _checked(self.series, self.start + first * self.step, seconds, kept)

    def steps(self, first: int, last: int) -> TrafficHistory:
        """The steps first .. last - 1, sharing this history's memory."""
        start = self.start + timedelta(seconds=first * self.step_seconds)
        return _checked(self.series, start, self.step_seconds, self.values[first:last])

    def last(self, steps: int) -> TrafficHistory:
        """The newest steps, at most as many as asked for."""
        return self.between(self.end - min(steps, len(self.values)) * self.step, self.end)

    def until(self, end: datetime) -> TrafficHistory:
        """These steps as far as `end`: what lies beyond is cut off, what is missing is a gap."""
        missing = math.floor((end - self.end) / self.step)
        if missing == 0:
            return self
        if missing < 0:
            return self.between(self.start, end)
        values = np.concatenate([self.values, np.full(missing, np.nan)])
        return _checked(self.series, self.start, self.step_seconds, values)

    def extended(self, newer: TrafficHistory, keep_steps: int) -> TrafficHistory:
        """This history continued by a newer one of the same grid, cut to its newest steps.

        Where both hold a step the newer reading wins, unless it is a gap. Steps that neither
        holds become gaps. Raises ValueError where the grids do not match.
        """
        if newer.step_seconds != self.step_seconds:
            raise ValueError(
                f"cannot join steps of {self.step_seconds} s and {newer.step_seconds} s"
            )
        offset_seconds = round((newer.start - self.start).total_seconds())
        if offset_seconds % self.step_seconds:
            raise ValueError("cannot join histories whose grids are shifted against each other")
        offset = offset_seconds // self.step_seconds
        if offset < 0:
            return newer.extended(self, keep_steps)
        joined = np.full(max(len(self), offset + len(newer)), np.nan)
        joined[: len(self)] = self.values
        window = joined[offset : offset + len(newer)]
        np.copyto(window, newer.values, where=np.isfinite(newer.values))
        dropped = max(0, len(joined) - keep_steps)
        start = self.start + dropped * self.step
        return _checked(self.series, start, self.step_seconds, joined[dropped:])

    def resampled(self, step_seconds: int) -> TrafficHistory:
        """Means over coarser steps aligned to whole multiples of the new step.

        A coarse step is known where at least half of its fine steps are. Raises ValueError
        where the new step is not a multiple of the old one.
        """
        if step_seconds == self.step_seconds:
            return self
        if step_seconds % self.step_seconds:
            raise ValueError(f"{step_seconds} s is not a multiple of {self.step_seconds} s")
        fine = step_seconds // self.step_seconds
        first = round(self.start.timestamp())
        lead = -first % step_seconds // self.step_seconds
        count = max(0, (len(self.values) - lead) // fine)
        blocks = self.values[lead : lead + count * fine].reshape(count, fine)
        known = np.isfinite(blocks).sum(axis=1)
        sums = np.where(np.isfinite(blocks), blocks, 0.0).sum(axis=1)
        means = np.where(2 * known >= fine, sums / np.maximum(known, 1), np.nan)
        start = datetime.fromtimestamp(first + lead * self.step_seconds, UTC)
        return TrafficHistory(self.series, start, step_seconds, means)


class GrowingHistory:
    """The newest steps of a series that grows at its end, in one array that is seldom moved.

    What it has handed out never changes. One thread at a time may extend it.
    """

    def __init__(self, keep_steps: int) -> None:
        self.history: TrafficHistory | None = None
        self._keep = keep_steps
        self._room = np.empty(0)
        self._used = 0

    def extend(self, newer: TrafficHistory) -> TrafficHistory:
        """As `extended` does, without a copy where the newer steps begin at the end of the old."""
        held = self.history
        if held is None:
            return self._move(newer.last(self._keep))
        end = self._used + len(newer)
        follows = newer.start == held.end and newer.step_seconds == held.step_seconds
        if not follows or end > len(self._room):
            return self._move(held.extended(newer, self._keep))
        self._room[self._used : end] = newer.values
        self._used = end
        return self._hand_out(newer)

    def _move(self, history: TrafficHistory) -> TrafficHistory:
        self._room = np.empty(len(history) + SPARE_STEPS)
        self._used = len(history)
        self._room[: self._used] = history.values
        return self._hand_out(history)

    def _hand_out(self, newest: TrafficHistory) -> TrafficHistory:
        steps = min(self._keep, self._used)
        start = newest.end - steps * newest.step
        values = self._room[self._used - steps : self._used]
        self.history = _checked(newest.series, start, newest.step_seconds, values)
        return self.history


def _checked(series: str, start: datetime, step_seconds: int, values: Floats) -> TrafficHistory:
    """A history of values that have been checked and that nobody else will change: neither is
    done twice, since a tick would look at weeks of steps for the sake of one."""
    history = object.__new__(TrafficHistory)
    values = values.view()
    values.setflags(write=False)
    fields = (series, start, step_seconds, values, _end(start, step_seconds, values))
    for name, value in zip(TrafficHistory.__slots__, fields, strict=True):
        object.__setattr__(history, name, value)
    return history


def _end(start: datetime, step_seconds: int, values: Floats) -> datetime:
    return start + timedelta(seconds=len(values) * step_seconds)


def on_grid(
    series: str,
    samples: Iterable[tuple[float, float]],
    start: datetime,
    end: datetime,
    step_seconds: int,
) -> TrafficHistory:
    """Samples (epoch seconds at a step's start, rate) laid on the grid [start, end).

    A sample off the grid raises ValueError: it would be a step's value at the wrong place. Of
    duplicates the last wins; steps without a sample are gaps.
    """
    first = round(start.timestamp())
    count = max(0, (round(end.timestamp()) - first) // step_seconds)
    values = np.full(count, np.nan)
    for at, value in samples:
        offset = round(at) - first
        if offset % step_seconds:
            raise ValueError(f"sample at {at} is off the grid of {step_seconds} s")
        if 0 <= offset // step_seconds < count:
            values[offset // step_seconds] = value
    return TrafficHistory(series, start, step_seconds, values)
