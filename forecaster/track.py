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
from forecaster.calendar import Calendar, event_factor
from forecaster.calibration import LEVELS, ScaleRegression, blended
from forecaster.demand import Demand, Ints
from forecaster.features import Seen, layout_for, seen_from
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
    Window,
    WindowForecast,
)
from forecaster.history import Floats, TrafficHistory
from forecaster.member import Member
from forecaster.models.direct import Direct
from forecaster.spare import HOUR_SECONDS, hourly_jumps, kept

SPARE_SECONDS = 90_000
"""Room for steps to come before the arrays are laid out anew: a day, and more."""
COMPARED_STEPS = 240
"""Of the newest steps: where these are the same bits, the history is the one followed so far."""
NEGLIGIBLE = 1e-6
Learned = list[tuple[Member, Parameters, Ints]]
"""Each member with its parameters and the places of the windows that it speaks of."""


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
        self._layout = layout_for(fitted.step_seconds, self._windows)
        self._members: Learned = [
            (member, _arrays(parameters), _places(part.windows, self._windows))
            for (member, parameters), part in zip(members, fitted.members, strict=True)
        ]
        self._offset = float(_array(fitted.parameters["offset"]))
        self._weights = _array(fitted.parameters["weights"])
        if self._weights.ndim == 1:  # as stored before weights went by window
            self._weights = np.tile(self._weights[:, None], len(self._windows))
        self._weightless = (self._weights.max(axis=1) < NEGLIGIBLE).tolist()
        step = timedelta(seconds=fitted.step_seconds)
        self._spans = [(window.first * step, window.last * step) for window in fitted.windows]
        # A model stored before rises were looked for has no measure of them.
        self._steep = float(_array(fitted.parameters.get("steep", NEVER_STEEP)))
        self._stride = int(_array(fitted.parameters["stride"]))
        self._regression = ScaleRegression(
            *(_array(fitted.parameters[f"scale_{name}"]) for name in calibration.REGRESSION)
        )
        self._rates = calibration.Rates.every(self._stride * fitted.step_seconds).values
        self._start = history.start
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
        lasts = calibration.feedback_lasts(self._windows)
        first = max(1, fit_end - (int(lasts.max()) // self._stride + 1) * self._stride)
        room = (capacity - first) // self._stride + 2
        self._origins = first + self._stride * np.arange(room, dtype=np.int64)
        self._first_origin = first
        asked = len(self._fitted.windows)
        hold = [window.first for window in self._windows[:asked] if window.name == "hold"]
        self._backs = [window.first - hold[0] for window in self._windows[asked:] if hold]
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
        self._advance()
        origin = np.array([self._count])
        seen = seen_from(self._demand(), self._layout, origin)
        if not np.isfinite(seen.level[0]):
            raise ForecastError("the newest minutes of the history are not known")
        end = history.end
        located = self._locate(seen, origin)[0]
        said = self._regression.scales(seen)[0]
        asked = len(self._fitted.windows)
        if not np.isfinite(located[:asked]).all():
            raise ForecastError("no member has anything to say of the windows asked for")
        windows = tuple(
            self._window(number, located, said[number], seen, end) for number in range(asked)
        )
        return Forecast(
            issued_at=issued_at,
            windows=windows,
            model=self._fitted.model,
            fitted_at=self._fitted.fitted_at,
            history_end=end,
            skill=self._fitted.skill,
            trusted=self._fitted.trusted,
            failures=self._fitted.failures,
            calibration=self._fitted.calibration,
        )

    def _take(self, history: TrafficHistory) -> None:
        ahead = round((history.start - self._start).total_seconds()) // history.step_seconds
        ends = ahead + len(history)
        if ends > self._count:
            newer = history.values[self._count - ahead :]
            self._newest = history.values[-COMPARED_STEPS:]
            self._logs[self._count : ends] = self._ordinary(newer, history)
            self._count = ends

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

    def _advance(self) -> None:
        """Say what would have been said at every row since the fit, and learn from what came."""
        upto = int(np.searchsorted(self._origins, self._count, side="right"))
        if upto > self._rows:
            new = slice(self._rows, upto)
            origins = self._origins[new]
            seen = seen_from(self._demand(), self._layout, origins)
            self._located[new, :-1] = self._locate(seen, origins)
            self._located[new, -1] = seen.level + seen.edges[:, 0]
            asked = len(self._fitted.windows)
            self._said[new, :asked] = self._regression.scales(seen)
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

    def _locate(self, seen: Seen, origins: np.ndarray) -> Floats:
        """The members' weighted word on every window, in log rate."""
        said = np.full((len(self._members), len(origins), len(self._windows)), np.nan)
        for place, (member, parameters, spoken) in enumerate(self._members):
            if self._weightless[place]:
                continue
            if isinstance(member, Direct):
                said[place][:, spoken] = member.locate_seen(parameters, seen)
            else:
                windows = tuple(self._windows[each] for each in spoken)
                said[place][:, spoken] = member.locate(parameters, self._demand(), windows, origins)
        return blended(said, self._weights)

    def _window(
        self, number: int, located: Floats, said: float, seen: Seen, end: datetime
    ) -> WindowForecast:
        window, state = self._fitted.windows[number], self._state[number]
        starts_at, ends_at = (end + ahead for ahead in self._spans[number])
        at = float(located[number])
        clock = int(self._local[self._count - 1] // 60 % 1440)
        width = float(calibration.scale_now(state, clock, said))
        scale = math.sqrt(state[calibration.STEADY]) if self._steady else width
        floor = self._floor(number, at, scale, seen)
        spare = self._spare(number)
        if spare.log > floor.log + self._margin * floor.scale:
            floor = spare
        dip = 1.0
        if self._calendar.events:
            event = self._event(starts_at, ends_at, at, scale)
            dip = min(1.0, event_factor(self._calendar, starts_at, ends_at))
            floor = max(floor, event, key=lambda each: each.log)
        rates = calibration.quantiles_now(state, at, width, clock, self._offset)
        return WindowForecast(
            name=window.name,
            starts_at=starts_at,
            ends_at=ends_at,
            median_qps=self._rate(at) * dip,
            scale=scale,
            quantiles=tuple(map(QuantilePoint, LEVELS, rates.tolist())),
            floor_qps=self._rate(floor.log),
            floor_scale=floor.scale,
            floor_reason=floor.reason,
            spare_qps=self._rate(spare.log),
        )

    def _floor(self, number: int, located: float, scale: float, seen: Seen) -> Floor:
        """What must be covered whatever the model says of the window."""
        name = self._fitted.windows[number].name
        if name == "hold":
            return Floor(*self._expected(seen), "earlier forecasts expected it")
        if name != "order":
            return NO_FLOOR
        floor = Floor(*self._edge(seen, located, scale), "past days at this time")
        rise = self._rise()
        return Floor(rise, 0.0, UNANNOUNCED_RISE) if rise > floor.log else floor

    def _edge(self, seen: Seen, located: float, scale: float) -> tuple[float, float]:
        certain = self._state[0, calibration.CERTAIN]
        own_error = self._state[-1, calibration.SLOW]
        floor, spread = edge_at(seen.edges[0], seen.level[0], located, scale, certain, own_error)
        return float(floor), float(spread)

    def _rise(self) -> float:
        """Where a rise that was not announced leads by the end of the order window."""
        rise = self._risen(math.nan)
        return rise if rise == -math.inf else self._risen(self._announced())

    def _risen(self, announced: float) -> float:
        last, step = self._fitted.windows[0].last, self._fitted.step_seconds
        return float(rise_at(self._logs, self._count, step, last, self._steep, announced))

    def _announced(self) -> float:
        """Up to where the forecast whose order window has just ended announced demand."""
        row = (self._count - self._first_origin - self._fitted.windows[0].last) // self._stride
        if not 0 <= row < self._rows:
            return math.nan
        located, scale = float(self._located[row, 0]), float(self._scales[row, 0])
        seen = seen_from(self._demand(), self._layout, self._origins[row : row + 1])
        return float(announced_until(located, scale, self._edge(seen, located, scale)[0]))

    def _event(self, starts_at: datetime, ends_at: datetime, located: float, scale: float) -> Floor:
        """An event of the calendar that is expected to raise demand within the window."""
        factor = event_factor(self._calendar, starts_at, ends_at)
        event = self._calendar.strongest_event(starts_at, ends_at)
        if event is None or factor <= 1.0:
            return NO_FLOOR
        return Floor(float(located + np.log(factor)), scale, f"{event.name} (x{factor:g})")

    def _expected(self, seen: Seen) -> tuple[float, float]:
        """What earlier forecasts expected for now, and its spread."""
        asked = len(self._fitted.windows)
        expected = np.full(len(self._backs), np.nan)
        passed = self._count - self._first_origin
        for place, back in enumerate(self._backs):
            row = (passed - back) // self._stride
            if 0 <= row < self._rows:
                expected[place] = self._located[row, asked + place]
        own_error = self._state[asked:-1, calibration.SLOW]
        floor, spread = expected_at(expected, own_error, seen.level[0])
        return float(floor), float(spread)

    @property
    def _steady(self) -> bool:
        chosen = self._fitted.calibration
        return chosen is not None and chosen.steady

    @property
    def _margin(self) -> float:
        chosen = self._fitted.calibration
        return 0.0 if chosen is None else max(chosen.margin, 0.0)

    def _spare(self, number: int) -> Floor:
        """What the calibration keeps for bursts like those of the last days, or for a jump."""
        window, step = self._fitted.windows[number], self._fitted.step_seconds
        chosen = self._fitted.calibration
        spare = NO_SPARE if chosen is None else chosen.spare
        if not spare.factor or window.name not in spare.windows:
            return NO_FLOOR
        logs = self._logs[: self._count]
        highest = self._rate(float(np.nanmax(logs[-max(1, spare.seconds // step) :])))
        newest, jump = highest, 0.0
        if spare.hourly:
            # A step that was missed is not known to be calm: the last one that is known stands.
            known = logs[-COMPARED_STEPS:]
            newest = self._rate(float(known[np.isfinite(known)][-1]))
            jump = self._jump(window)
        rate = float(kept(spare, newest, highest, jump))
        return Floor(float(np.log(rate + self._offset)), 0.0, spare.reason)

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


def _places(some: Sequence[Window], windows: Sequence[Window]) -> Ints:
    return np.array([windows.index(each) for each in some], dtype=np.int64)


def _arrays(parameters: Parameters) -> Parameters:
    """The same numbers, laid out for a step to read them in no time."""
    laid: dict[str, Any] = {name: _array(value) for name, value in parameters.items()}
    return laid


def _array(value: object) -> Floats:
    return np.asarray(value, dtype=np.float64)
