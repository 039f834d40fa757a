"""Track: a fitted combination followed through the steps that have come since.

What it says is a function of the fitted model and the history. It keeps what it has worked out so
that the next step costs microseconds; started anew at any step it says the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np

from forecaster import calibration
from forecaster.blend import Blend, Words
from forecaster.calendar import Calendar, event_factor
from forecaster.calibration import LEVELS, ScaleRegression
from forecaster.compiled import as_python
from forecaster.demand import MOST_EXPECTED, MOST_POSSIBLE, Demand, Ints
from forecaster.features import layout_for
from forecaster.floors import (
    NEVER_STEEP,
    NO_FLOOR,
    Floor,
    announced_until,
    edge_at,
    expected_at,
    rise_at,
)
from forecaster.forecast import (
    HOURLY_SECONDS,
    NO_SPARE,
    UNANNOUNCED_RISE,
    FittedModel,
    Forecast,
    ForecastError,
    Parameters,
    QuantilePoint,
    Spare,
    Window,
    WindowForecast,
)
from forecaster.history import Floats, TrafficHistory
from forecaster.member import Member
from forecaster.spare import HOUR_SECONDS, daily_peaks, hourly_jumps, kept

SPARE_SECONDS = 90_000
"""Room for steps to come before the arrays are laid out anew: a day, and more."""
COMPARED_STEPS = 240
"""Of the newest steps: where these are the same bits, the history is the one followed so far."""
WIDTH, FLOOR, SPREAD, QUANTILES = 0, 1, 2, 3
"""Figures of a window at one moment: how wide its error is, what past days' edges and earlier
forecasts ask for, in log rate, with the spread of that, and the rate at each level."""


class Track:
    """One fitted model on one history, growing at its end."""

    def __init__(
        self,
        fitted: FittedModel,
        members: Sequence[tuple[Member, Parameters]],
        calendar: Calendar,
        history: TrafficHistory,
    ) -> None:
        self._fitted = fitted
        self._calendar = calendar
        self._windows = fitted.members[0].windows
        weights = _array(fitted.parameters["weights"])
        if weights.ndim == 1:  # as stored before weights went by window
            weights = np.tile(weights[:, None], len(self._windows))
        self._blend = Blend(
            layout_for(fitted.step_seconds, self._windows),
            [
                (member, _arrays(parameters), part.windows)
                for (member, parameters), part in zip(members, fitted.members, strict=True)
            ],
            weights,
            ScaleRegression(
                *(_array(fitted.parameters[f"scale_{name}"]) for name in calibration.REGRESSION)
            ),
        )
        self._offset = float(_array(fitted.parameters["offset"]))
        step = timedelta(seconds=fitted.step_seconds)
        self._spans = [(window.first * step, window.last * step) for window in fitted.windows]
        # A model stored before rises were looked for has no measure of them.
        steep = float(_array(fitted.parameters.get("steep", NEVER_STEEP)))
        self._rising = fitted.windows[0].last, steep
        # Nor has an older one the highest rate that it was fitted to.
        self._highest_at_fit = float(_array(fitted.parameters.get("highest", math.inf)))
        self._stride = int(_array(fitted.parameters["stride"]))
        self._rates = calibration.Rates.every(self._stride * fitted.step_seconds).values
        self._start = history.start
        chosen = fitted.calibration
        self._steady = chosen is not None and chosen.steady
        self._margin = 0.0 if chosen is None else max(chosen.margin, 0.0)
        self._lay_out(history)

    def _lay_out(self, history: TrafficHistory) -> None:
        count = len(history)
        step = history.step_seconds
        capacity = count + SPARE_SECONDS // step
        self._logs = np.full(capacity, np.nan)
        self._logs[:count] = self._ordinary(history.values, history)
        first_second = round(history.start.timestamp())
        self._local, self._day_type = _days(self._calendar, first_second, step, capacity)
        self._count = count
        self._newest = history.values[-COMPARED_STEPS:]
        columns = len(self._windows) + 1
        fit_end = int((self._fitted.history_end - history.start).total_seconds()) // step
        for start, end in np.asarray(self._fitted.parameters["masked"]).reshape(-1, 2):
            masked = np.round((np.array([start, end]) - first_second) / step).astype(np.int64)
            self._logs[max(0, masked[0]) : max(0, min(masked[1], count))] = np.nan
        self._highest = np.full(capacity, self._highest_at_fit)
        self._seen_until(max(1, fit_end), count)
        lasts = calibration.feedback_lasts(self._windows)
        first = max(1, fit_end - (int(lasts.max()) // self._stride + 1) * self._stride)
        room = (capacity - first) // self._stride + 2
        self._origins = first + self._stride * np.arange(room, dtype=np.int64)
        self._first_origin = first
        asked = len(self._fitted.windows)
        names = [window.name for window in self._fitted.windows]
        self._order, self._hold = (_place(name, names) for name in ("order", "hold"))
        hold = self._windows[self._hold].first
        expectations = self._windows[asked:] if self._hold >= 0 else ()
        self._backs = np.array([window.first - hold for window in expectations], dtype=np.int64)
        newest = np.minimum(self._origins - 1, capacity - 1)
        self._clock = calibration.clock_of(self._local[newest])
        self._firsts = np.array([*(w.first for w in self._windows), self._windows[0].first])
        self._lasts = lasts
        self._located = np.full((room, columns), np.nan)
        self._said = np.zeros((room, columns))
        self._scales = np.zeros((room, columns))
        self._usual = np.zeros((room, columns))
        self._means = np.zeros((room, columns))
        self._rows = 0
        self._fed = np.zeros(columns, dtype=np.int64)
        self._state = calibration.stored_state(_array(self._fitted.parameters["state"]))

    def continues(self, fitted: FittedModel, history: TrafficHistory) -> bool:
        """Whether this history is the one followed so far, with more at its end."""
        if fitted is not self._fitted:
            return False
        ahead = round((history.start - self._start).total_seconds()) // history.step_seconds
        ends = ahead + len(history)
        if ahead < 0 or not self._count <= ends <= len(self._logs):
            return False
        compared = min(COMPARED_STEPS, self._count - ahead)
        if compared <= 0:
            return False
        last = self._count - ahead
        tail = history.values[last - compared : last].tobytes()
        return tail == self._newest.tobytes()[-len(tail) :]

    def forecast(self, history: TrafficHistory, issued_at: datetime) -> Forecast:
        """From the end of the history on; raises ForecastError where the newest minutes are not
        known."""
        self._take(history)
        words = self._advance()  # the last of which is of now
        if not math.isfinite(words.level[-1]):
            raise ForecastError("the newest minutes of the history are not known")
        fitted, located = self._fitted, words.located[-1].tolist()
        asked = range(len(fitted.windows))
        if not all(math.isfinite(located[number]) for number in asked):
            raise ForecastError("no member has anything to say of the windows asked for")
        figures, rise = self._now(words)
        end = history.end
        rise = rise if rise == -math.inf else self._risen(self._announced())
        windows = tuple(
            self._window(number, located[number], figures[number], rise, end) for number in asked
        )
        return Forecast(
            issued_at=issued_at,
            windows=windows,
            model=fitted.model,
            fitted_at=fitted.fitted_at,
            history_end=end,
            skill=fitted.skill,
            trusted=fitted.trusted,
            failures=fitted.failures,
            calibration=fitted.calibration,
        )

    def _now(self, words: Words) -> tuple[list[list[float]], float]:
        """The figures of each window asked for, and where demand rises to unannounced."""
        figures = np.empty((len(self._fitted.windows), QUANTILES + len(LEVELS)))
        clock = int(calibration.clock_of(self._local[self._count - 1]))
        passed = self._count - self._first_origin
        rise = _figures(
            (self._logs, self._count, clock, self._fitted.step_seconds, *self._rising),
            self._state,
            (words.level[-1], words.edges[-1], words.located[-1], words.scales[-1]),
            (self._order, self._hold, self._steady, self._offset, self._highest[self._count - 1]),
            (self._located, self._rows, passed, self._stride, self._backs),
            figures,
        )
        return figures.tolist(), rise

    def _take(self, history: TrafficHistory) -> None:
        ahead = round((history.start - self._start).total_seconds()) // history.step_seconds
        ends = ahead + len(history)
        self._reach = len(history)
        if ends > self._count:
            newer = history.values[self._count - ahead :]
            self._newest = history.values[-COMPARED_STEPS:]
            self._logs[self._count : ends] = self._ordinary(newer, history)
            self._seen_until(self._count, ends)
            self._count = ends

    def _seen_until(self, first: int, end: int) -> None:
        """The highest log rate of the fit's history and what has come since, for steps so far."""
        known = np.fmax.accumulate(self._logs[first:end])
        self._highest[first:end] = np.fmax(known, self._highest[first - 1])

    def _ordinary(self, newest: Floats, history: TrafficHistory) -> Floats:
        """Log rates of the newest steps without the effects that are expected of events."""
        rates = newest
        if self._calendar.events:
            seconds = history.epoch_seconds()[len(history) - len(newest) :]
            rates = newest / self._calendar.effect(seconds)
        return np.asarray(np.log(rates + self._offset), dtype=np.float64)

    def _demand(self) -> Demand:
        count = self._count
        return Demand(
            self._logs[:count],
            self._local[:count],
            self._day_type[:count],
            self._fitted.step_seconds,
            self._offset,
        )

    def _advance(self) -> Words:
        """Say what would have been said at every row since the fit, and learn from what came; at
        last what is said now."""
        upto = max(0, (self._count - self._first_origin) // self._stride + 1)
        new, rows = slice(self._rows, upto), upto - self._rows
        origins = self._origins[new]
        if not rows or origins[-1] != self._count:
            origins = np.append(origins, self._count)
        words = self._blend.say(self._demand(), origins)
        most = self._highest[origins - 1] + MOST_EXPECTED
        np.minimum(words.located, most[:, None], out=words.located)
        if rows:
            self._located[new, :-1] = words.located[:rows]
            edges = words.level[:rows] + words.edges[:rows, 0]
            self._located[new, -1] = np.minimum(edges, most[:rows])
            self._said[new, : words.scales.shape[1]] = words.scales[:rows]
        calibration.advance(
            self._logs,
            self._count,
            self._origins,
            self._clock,
            self._firsts,
            self._lasts,
            self._located,
            self._said,
            self._state,
            self._rates,
            calibration.TRACKING_RATE,
            self._fed,
            self._scales,
            self._usual,
            self._means,
            self._rows,
            upto,
        )
        self._rows = upto
        return words

    def _window(
        self, number: int, at: float, figures: list[float], rise: float, end: datetime
    ) -> WindowForecast:
        window = self._fitted.windows[number]
        starts_at, ends_at = (end + ahead for ahead in self._spans[number])
        scale = figures[WIDTH]
        if self._steady:
            scale = math.sqrt(self._state[number, calibration.STEADY])
        floor = self._floor(number, figures, rise)
        spare = self._spare(number)
        if spare.log > floor.log + self._margin * floor.scale:
            floor = spare
        dip = 1.0
        if self._calendar.events:
            event = self._event(starts_at, ends_at, at, scale)
            dip = min(1.0, event_factor(self._calendar, starts_at, ends_at))
            floor = max(floor, event, key=lambda each: each.log)
        return WindowForecast(
            name=window.name,
            starts_at=starts_at,
            ends_at=ends_at,
            median_qps=self._rate(at) * dip,
            scale=scale,
            quantiles=tuple(map(QuantilePoint, LEVELS, figures[QUANTILES:])),
            floor_qps=self._rate(floor.log),
            floor_scale=floor.scale,
            floor_reason=floor.reason,
            spare_qps=self._rate(spare.log),
        )

    def _floor(self, number: int, figures: list[float], rise: float) -> Floor:
        """What must be covered whatever the model says of the window."""
        log, spread = figures[FLOOR], figures[SPREAD]
        if number == self._hold:
            return Floor(log, spread, "earlier forecasts expected it")
        if number != self._order:
            return NO_FLOOR
        if rise > log:
            return Floor(rise, 0.0, UNANNOUNCED_RISE)
        return Floor(log, spread, "past days at this time")

    def _risen(self, announced: float) -> float:
        """Where a rise that was not announced leads by the end of the order window."""
        step = self._fitted.step_seconds
        return float(rise_at(self._logs, self._count, step, *self._rising, announced))

    def _announced(self) -> float:
        """Up to where the forecast whose order window has just ended announced demand."""
        row = (self._count - self._first_origin - self._fitted.windows[0].last) // self._stride
        if not 0 <= row < self._rows:
            return math.nan
        located, scale = float(self._located[row, 0]), float(self._scales[row, 0])
        words = self._blend.say(self._demand(), self._origins[row : row + 1])
        certain = self._state[0, calibration.CERTAIN]
        own_error = self._state[-1, calibration.SLOW]
        edge = edge_at(words.edges[0], words.level[0], located, scale, certain, own_error)[0]
        edge = min(edge, self._highest[self._origins[row] - 1] + MOST_EXPECTED)
        return float(announced_until(located, scale, edge))

    def _event(self, starts_at: datetime, ends_at: datetime, located: float, scale: float) -> Floor:
        """An event of the calendar that is expected to raise demand within the window."""
        factor = event_factor(self._calendar, starts_at, ends_at)
        event = self._calendar.strongest_event(starts_at, ends_at)
        if event is None or factor <= 1.0:
            return NO_FLOOR
        return Floor(float(located + np.log(factor)), scale, f"{event.name} (x{factor:g})")

    def _spare(self, number: int) -> Floor:
        """What the calibration keeps for bursts like those of the last days, or for a jump."""
        window = self._fitted.windows[number]
        chosen = self._fitted.calibration
        spare = NO_SPARE if chosen is None else chosen.spare
        if not spare.factor or window.name not in spare.windows:
            return NO_FLOOR
        highest = self._highest_of(spare, window)
        newest, jump = highest, 0.0
        if spare.hourly:
            # A step that was missed is not known to be calm: the last one that is known stands.
            known = self._logs[max(0, self._count - COMPARED_STEPS) : self._count]
            newest = self._rate(float(known[np.isfinite(known)][-1]))
            jump = self._jump(window)
        rate = float(kept(spare, newest, highest, jump))
        return Floor(float(np.log(rate + self._offset)), 0.0, spare.reason)

    def _highest_of(self, spare: Spare, window: Window) -> float:
        """The rate that a share is kept of."""
        if spare.daily:
            now = np.array([self._count])
            return float(daily_peaks(self._demand(), now, window, spare.seconds, self._reach)[0])
        steps = max(1, spare.seconds // self._fitted.step_seconds)
        return self._rate(float(np.nanmax(self._logs[max(0, self._count - steps) : self._count])))

    def _jump(self, window: Window) -> float:
        """The highest that past hours saw at this time, from what lies so far back."""
        step = self._fitted.step_seconds
        known = self._logs[: self._count]
        reach = HOURLY_SECONDS + HOUR_SECONDS + (window.last + 1) * step
        newest = known[-max(1, reach // step) :]
        return float(hourly_jumps(newest, np.array([len(newest)]), step, window)[0])

    def _rate(self, log: float) -> float:
        return max(0.0, math.exp(log) - self._offset)


@lru_cache(maxsize=4)
def _days(calendar: Calendar, first_second: int, step: int, count: int) -> tuple[Ints, Ints]:
    """Clock and day type of each step; workloads on one grid share them."""
    seconds = first_second + step * np.arange(count, dtype=np.int64)
    local = calendar.local_seconds(seconds)
    return local, calendar.day_types(local)


def _place(name: str, names: Sequence[str]) -> int:
    """Where it is, -1 where it is not."""
    return names.index(name) if name in names else -1


def _arrays(parameters: Parameters) -> Parameters:
    """The same numbers, laid out for a step to read them in no time."""
    laid: dict[str, Any] = {name: _array(value) for name, value in parameters.items()}
    return laid


def _array(value: object) -> Floats:
    return np.asarray(value, dtype=np.float64)


@as_python
def _figures(known, state, words, asked, earlier, out):  # type: ignore[no-untyped-def]
    """Fills a row of figures for each window asked for; gives the log rate that a rise leads to,
    as if nothing had announced it."""
    logs, count, clock, step_seconds, last, steep = known
    level, edges, located, said = words
    order, hold, steady, offset, highest = asked
    most = highest + MOST_POSSIBLE
    windows = len(out)
    for window in range(windows):
        width = calibration.scale_now(state[window], clock, said[window])
        out[window, WIDTH], out[window, FLOOR], out[window, SPREAD] = width, -np.inf, 0.0
        calibration.quantiles_at(
            state[window], located[window], width, clock, most, offset, out[window, QUANTILES:]
        )
    if order >= 0:
        scale = np.sqrt(state[order, calibration.STEADY]) if steady else out[order, WIDTH]
        certain, own_error = state[0, calibration.CERTAIN], state[-1, calibration.SLOW]
        floor, out[order, SPREAD] = edge_at(edges, level, located[order], scale, certain, own_error)
        out[order, FLOOR] = min(floor, highest + MOST_EXPECTED)
    if hold >= 0:
        expected = _expectations(earlier, windows)
        own_errors = state[windows:-1, calibration.SLOW]
        out[hold, FLOOR], out[hold, SPREAD] = expected_at(expected, own_errors, level)
    return rise_at(logs, count, step_seconds, last, steep, np.nan)


@as_python
def _expectations(earlier, asked):  # type: ignore[no-untyped-def]
    """What earlier forecasts expected for now, the nearest first; NaN where nothing was said."""
    said, rows, passed, stride, backs = earlier
    expected = np.full(len(backs), np.nan)
    for place in range(len(backs)):
        row = (passed - backs[place]) // stride
        if 0 <= row < rows:
            expected[place] = said[row, asked + place]
    return expected
