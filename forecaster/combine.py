"""Combined: competing members weighed by skill, with one calibration for what they say together.

Knows which windows a decision needs, and what must be covered whatever the members say: edges that
recur by the clock, and falls that no earlier forecast announced. Knows no member's inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
from threadpoolctl import threadpool_limits

from forecaster import calibration
from forecaster.blend import blended
from forecaster.calendar import Calendar
from forecaster.calibration import Rates
from forecaster.demand import Demand, Ints, demand_of, log_offset
from forecaster.features import WEEKLY_EDGES, Seen, layout_for, seen_from
from forecaster.floors import announced_until, edge_floor, expected_floor, rise_floor, steep_rise
from forecaster.forecast import (
    FittedModel,
    Forecast,
    ForecastError,
    Parameters,
    Window,
)
from forecaster.history import Floats, TrafficHistory
from forecaster.member import Member
from forecaster.models.direct import Direct, training_origins
from forecaster.models.double_seasonal import DoubleSeasonal
from forecaster.models.harmonic import Harmonic
from forecaster.models.peers.hour_of_week import HourOfWeek
from forecaster.repair import GAP, repaired
from forecaster.spare import HOUR_SECONDS, daily_peaks, hourly_jumps
from forecaster.track import Track

NAME = "combined"
EXPECTATION_SECONDS = (900, 3600, 14_400)
"""How long before now the forecasts were made that a fall is measured against."""
DISCOUNT_DAYS = 3.0
NERVOUSNESS = 12.0
"""Members are weighed by loss to the minus this: near to choosing the best."""
FAR_NERVOUSNESS = 4.0
"""Of far windows, and less by lead: half at a day. The farther ahead, the fewer of the errors that
were held out are independent."""
FAR_SECONDS = 1800
"""Windows that begin this far ahead are asked of the far members too, and weighed on their own."""
OPERATING_LEVEL = 0.95
NO_LOSS = 1e-12
"""Of log rate: where nothing varies all members are as good."""
HELD_OUT_DAYS, HELD_OUT_SHARE = 7, 4
"""How long members other than the direct one are tried on what they have not seen, at most a
quarter of the history; where it is so long, on the week before too."""
HEARD_SHARE, MIN_HEARD_DAYS = 0.9, 10.0
"""Errors are the blend's own where members of so much weight spoke; where those days are as many,
errors of other days are forgotten: a week alone is too little to learn from."""


EXPECTATION = "hold in "


def is_expectation(window: Window) -> bool:
    return window.name.startswith(EXPECTATION)


def expectation_windows(windows: Sequence[Window], step_seconds: int) -> tuple[Window, ...]:
    """The hold window of later decisions, as seen from now."""
    hold = next((window for window in windows if window.name == "hold"), None)
    if hold is None:
        return ()
    stride = max(1, 60 // step_seconds)
    backs = sorted({max(1, seconds // step_seconds) for seconds in EXPECTATION_SECONDS})
    return tuple(
        Window(
            f"{EXPECTATION}{back * step_seconds} s",
            hold.first + back,
            hold.last + back + stride - 1,
        )
        for back in backs
    )


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """What a member was fitted to, and what it says of days that it had not seen: a column for
    every window, NaN where it does not speak of it."""

    member: Member
    parameters: Parameters
    windows: tuple[Window, ...]
    located: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Rehearsal:
    """What the forecaster would have said at each row of its history without knowing that day.

    Shapes: `located`, `scales` and `means` (the mean error of about a day) are (rows, windows and
    past days' edges), in log rate; `state` is where they end. `steep` is what counts as a steep
    rise in it, in log rate a step. Where the model is not `trusted`, no decision goes by any of it.
    """

    demand: Demand
    origins: Ints
    seen: Seen
    located: Floats
    scales: Floats
    means: Floats
    state: Floats
    steep: float
    trusted: bool

    def window(self, name: str) -> Floats:
        """A row an origin: median, scale, floor and the floor's scale, rates in requests a
        second; NaN where nothing was said."""
        number = self._place(name)
        located, scale = self.located[:, number], self.scales[:, number]
        floor, spread = np.full(len(located), -np.inf), np.zeros(len(located))
        if name == "order":
            floor, spread = self._edges_and_rises(self._windows[number], located, scale)
        elif name == "hold":
            earlier = self._expectations(self._windows[number])
            floor, spread = expected_floor(*earlier, self.seen.level)
        offset = self.demand.offset
        median = np.maximum(np.exp(located) - offset, 0.0)
        return np.column_stack([median, scale, np.maximum(np.exp(floor) - offset, 0.0), spread])

    def _edges_and_rises(
        self, order: Window, located: Floats, scale: Floats
    ) -> tuple[Floats, Floats]:
        certain = self.state[0, calibration.CERTAIN]
        seen = replace(self.seen, edges=self._edges_as_known_today())
        edge, spread = edge_floor(seen, located, scale, certain, self.means[:, -1])
        edge = np.minimum(edge, self.demand.most_expected(self.origins))
        back = -(-order.last // self._stride)
        announced = np.full(len(located), np.nan)
        announced[back:] = announced_until(located, scale, edge)[:-back]
        step = self.demand.step_seconds
        rise = rise_floor(self.demand.logs, self.origins, step, order.last, self.steep, announced)
        return np.maximum(edge, rise), np.where(rise > edge, 0.0, spread)

    def _edges_as_known_today(self) -> Floats:
        """What is seen by now to recur on a weekday was not seen in the first weeks of the history:
        they would ask for a margin that no later day needs."""
        edges = self.seen.edges.copy()
        week = 7 * self.demand.steps_per_day // self._stride
        for later in (2 * week, week):
            unknown = np.isnan(edges[:-later, WEEKLY_EDGES])
            np.copyto(
                edges[:-later, WEEKLY_EDGES], self.seen.edges[later:, WEEKLY_EDGES], where=unknown
            )
        return edges

    def hourly_jumps(self, name: str) -> Floats:
        """Of each row, see `spare.hourly_jumps`."""
        window = self._windows[self._place(name)]
        return hourly_jumps(self.demand.logs, self.origins, self.demand.step_seconds, window)

    def daily_peaks(self, side_seconds: int) -> Floats:
        """Of each row for the order window, see `spare.daily_peaks`."""
        order = self._windows[self._place("order")]
        return daily_peaks(self.demand, self.origins, order, side_seconds, len(self.demand))

    @property
    def _windows(self) -> tuple[Window, ...]:
        return self.seen.layout.windows

    def _place(self, name: str) -> int:
        return next(n for n, window in enumerate(self._windows) if window.name == name)

    @property
    def _stride(self) -> int:
        return int(self.origins[1] - self.origins[0])

    def steady_scale(self, name: str) -> float:
        """The root mean square of a window's scale."""
        return float(np.sqrt(self.state[self._place(name), calibration.STEADY]))

    def _expectations(self, hold: Window) -> tuple[Floats, Floats]:
        """What was said earlier of each row's hold window, and its mean error by then."""
        expected, means = [], []
        for number, window in enumerate(self._windows):
            if is_expectation(window):
                back = -(-(window.first - hold.first) // self._stride)
                said = np.full(len(self.origins), np.nan)
                said[back:] = self.located[: len(said) - back, number]
                expected.append(said)
                means.append(self.means[:, number])
        return np.column_stack(expected), np.column_stack(means)


@dataclass(slots=True)
class Combined:
    """The forecaster for one calendar. Where it is not `guarded` it learns from the history as it
    is, and what it says is trusted whatever its skill, as in tools that do neither.

    Its memo makes the next step cheap; it never changes what is said: a forecast is a function of
    the fitted model and the history.
    """

    calendar: Calendar
    members: Sequence[Member] = (Direct(), Direct(past_days=False))
    far_members: Sequence[Member] = (DoubleSeasonal(), Harmonic(), HourOfWeek(slot_seconds=300))
    name: str = NAME
    guarded: bool = True
    _track: Track | None = field(default=None, init=False, repr=False)

    def fit(
        self, history: TrafficHistory, fitted_at: datetime, windows: Sequence[Window]
    ) -> FittedModel:
        return self.rehearse(history, fitted_at, windows)[0]

    def rehearse(
        self, history: TrafficHistory, fitted_at: datetime, windows: Sequence[Window]
    ) -> tuple[FittedModel, Rehearsal]:
        """The fitted model, and what it would have said along its own history."""
        # Threads of a linear algebra library fight each other over matrices as small as these.
        with threadpool_limits(1, "blas"):
            return self._rehearse(history, fitted_at, windows)

    def _rehearse(
        self, history: TrafficHistory, fitted_at: datetime, windows: Sequence[Window]
    ) -> tuple[FittedModel, Rehearsal]:
        learned, masked = self._learned(history)
        demand = demand_of(learned, self.calendar, log_offset(history))
        step = history.step_seconds
        every = (*windows, *expectation_windows(windows, step))
        origins = training_origins(demand)
        seen = seen_from(demand, layout_for(step, every), origins)
        said, failures = _ask(self.members, demand, len(windows), origins, seen)
        far = [n for n, window in enumerate(windows) if window.first * step >= FAR_SECONDS]
        if far:
            of_far, more = _ask_far(self.far_members, demand, far, origins, seen)
            said, failures = [*said, *of_far], [*failures, *more]
        weights = _weights_by_window(said, demand, far, origins, every)
        located = blended(np.stack([each.located for each in said]), weights)
        located = np.minimum(located, demand.most_expected(origins)[:, None])
        skill = _skill(located[:, 0], demand.peaks(windows[0], origins), demand, origins)
        trusted = skill > 0 or not self.guarded
        judged = _without_understudies(located, said, weights, demand, origins)
        parameters, rehearsal = _calibrated(demand, origins, seen, located, judged, len(windows))
        fitted = FittedModel(
            model=self.name,
            fitted_at=fitted_at,
            history_end=history.end,
            step_seconds=step,
            windows=tuple(windows),
            parameters={
                "offset": demand.offset,
                "weights": weights.tolist(),
                "masked": masked,
                **parameters,
            },
            members=tuple(
                FittedModel(
                    each.member.name, fitted_at, history.end, step, each.windows, each.parameters
                )
                for each in said
            ),
            skill=skill,
            trusted=trusted,
            failures=(*failures, *(() if skill > 0 else ("no better than the last value",))),
        )
        return fitted, replace(rehearsal, trusted=trusted)

    def _learned(self, history: TrafficHistory) -> tuple[TrafficHistory, list[list[float]]]:
        """What may be learned from, and what may not: start and end of each stretch since 1970."""
        if not self.guarded:
            return history, []
        found = repaired(history, self.calendar)
        stretches = [
            [stretch.start.timestamp(), stretch.end.timestamp()]
            for stretch in found.masked
            if stretch.reason != GAP
        ]
        return found.history, stretches

    def predict(
        self, fitted: FittedModel, history: TrafficHistory, issued_at: datetime
    ) -> Forecast:
        """Raises ForecastError where the newest minutes are not known or a member is missing."""
        track = self._track
        if track is None or not track.continues(fitted, history):
            track = Track(fitted, self._known_members(fitted), self.calendar, history)
            self._track = track
        return track.forecast(history, issued_at)

    def _known_members(self, fitted: FittedModel) -> list[tuple[Member, Parameters]]:
        known = {member.name: member for member in (*self.members, *self.far_members)}
        missing = [part.model for part in fitted.members if part.model not in known]
        if missing:
            raise ForecastError(f"the stored model has members not known here: {missing}")
        return [(known[part.model], part.parameters) for part in fitted.members]


def _ask(
    members: Sequence[Member], demand: Demand, asked: int, origins: Ints, seen: Seen
) -> tuple[list[Said], list[str]]:
    """Fit each member; failures as sentences. The first that can be fitted speaks of every
    window, the others of the windows asked for."""
    said: list[Said] = []
    failures: list[str] = []
    for member in members:
        places = range(asked if said else len(seen.layout.windows))
        found = _fitted(member, demand, places, origins, seen)
        if isinstance(found, str):
            failures.append(found)
        else:
            said.append(found)
    if not said:
        raise ForecastError("; ".join(failures))
    return said, failures


def _ask_far(
    members: Sequence[Member], demand: Demand, far: Sequence[int], origins: Ints, seen: Seen
) -> tuple[list[Said], list[str]]:
    """The same of members that speak of far windows only; it is no failure if none can."""
    found = [_fitted(member, demand, far, origins, seen) for member in members]
    said = [each for each in found if isinstance(each, Said)]
    return said, [each for each in found if isinstance(each, str)]


def _fitted(
    member: Member, demand: Demand, places: Sequence[int], origins: Ints, seen: Seen
) -> Said | str:
    """One member on the windows at these places, or why it could not be fitted."""
    windows = tuple(seen.layout.windows[place] for place in places)
    try:
        if isinstance(member, Direct):
            parameters, spoken = member.fit_seen(demand, windows, origins, seen)
        else:
            parameters, spoken = _held_out(member, demand, windows, origins)
    except ForecastError as error:
        return str(error)
    except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        # A library's own failure on odd data must cost the model, never the loop.
        return f"{member.name}: {error}"
    located = np.full((len(origins), len(seen.layout.windows)), np.nan)
    located[:, list(places)] = spoken
    return Said(member, parameters, windows, located)


def _held_out(
    member: Member, demand: Demand, windows: Sequence[Window], origins: Ints
) -> tuple[Parameters, Floats]:
    """The newest stretch as a fit on what lay before it sees it, or the newest two."""
    week = HELD_OUT_DAYS * demand.steps_per_day
    length = min(len(demand) // HELD_OUT_SHARE, week)
    located = np.full((len(origins), len(windows)), np.nan)
    for back in (2, 1) if length == week else (1,):
        cut = len(demand) - back * length
        trial = member.fit(demand.before(cut), windows)
        tried = (origins >= cut) & (origins <= cut + length)
        located[tried] = member.locate(trial, demand, windows, origins[tried])
    return member.fit(demand, windows), located


def _weights_by_window(
    said: Sequence[Said],
    demand: Demand,
    far: Sequence[int],
    origins: Ints,
    windows: Sequence[Window],
) -> Floats:
    """Shape (members, windows): of far windows each its own, of the others those of the first."""
    weights = np.tile(_weights(said, demand, 0, origins, windows)[:, None], len(windows))
    for place in far:
        lead_days = windows[place].first / demand.steps_per_day
        nervousness = FAR_NERVOUSNESS / (1.0 + lead_days)
        weights[:, place] = _weights(said, demand, place, origins, windows, nervousness)
    return weights


def _weights(
    said: Sequence[Said],
    demand: Demand,
    place: int,
    origins: Ints,
    windows: Sequence[Window],
    nervousness: float = NERVOUSNESS,
) -> Floats:
    """By pinball loss at the operating level for one window, older losses counting less; members
    that say nothing of it get none."""
    errors = demand.peaks(windows[place], origins)[:, None] - np.column_stack(
        [each.located[:, place] for each in said]
    )
    speak = np.isfinite(errors).any(axis=0)
    rows = np.isfinite(errors[:, speak]).all(axis=1)
    if speak.sum() < 2 or not rows.any():
        return np.asarray(np.eye(len(said))[int(np.argmax(speak))], dtype=np.float64)
    age_days = (origins[-1] - origins[rows]) / demand.steps_per_day
    discount = 0.5 ** (age_days / DISCOUNT_DAYS)
    found = [_pinball(errors[rows, m], discount) for m in np.flatnonzero(speak)]
    losses = np.maximum(found, NO_LOSS)
    weights = np.zeros(len(said))
    weights[speak] = (losses / losses.min()) ** -nervousness
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def _pinball(errors: Floats, discount: Floats, level: float = OPERATING_LEVEL) -> float:
    """Of the errors around their own quantile: a constant shift is the calibration's business."""
    left = errors - np.quantile(errors, level)
    loss = np.where(left > 0, level * left, (level - 1) * left)
    return float((loss * discount).sum() / discount.sum())


def _without_understudies(
    located: Floats, said: Sequence[Said], weights: Floats, demand: Demand, origins: Ints
) -> Floats:
    """The same with NaN where members of some weight were silent: the far ones speak of what was
    held out alone, and the errors of those who speak before that are not the blend's."""
    enough = MIN_HEARD_DAYS * demand.steps_per_day / int(origins[1] - origins[0])
    spoke = np.stack([np.isfinite(each.located) for each in said])
    heard = (weights[:, None, :] * spoke).sum(axis=0) >= HEARD_SHARE
    few = (heard & np.isfinite(located)).sum(axis=0) < enough
    return np.where(heard | few, located, np.nan)


def _calibrated(
    demand: Demand, origins: Ints, seen: Seen, located: Floats, judged: Floats, asked: int
) -> tuple[dict[str, float | str | list[float] | list[list[float]]], Rehearsal]:
    """The scale's regression and the state that the errors of `judged` so far have left: a row a
    window, and one for what past days' edges say of the first. Beside them the rehearsal of every
    row, which is what was `located`."""
    windows = seen.layout.windows
    peaks = np.column_stack([demand.peaks(window, origins) for window in windows])
    peaks = np.column_stack([peaks, peaks[:, 0]])
    edges = np.minimum(seen.level + seen.edges[:, 0], demand.most_expected(origins))
    judged, located = np.column_stack([judged, edges]), np.column_stack([located, edges])
    errors = peaks - judged
    regression = calibration.fit_scale(seen, errors[:, :asked])
    state = calibration.initial_state(errors)
    scales, usual, means, said = (np.zeros_like(errors) for _ in range(4))
    said[:, :asked] = regression.scales(seen)
    stride = int(origins[1] - origins[0])
    calibration.advance(
        demand.logs,
        len(demand),
        origins,
        calibration.clock_of(demand.local[origins - 1]),
        np.array([*(window.first for window in windows), windows[0].first]),
        calibration.feedback_lasts(windows),
        judged,
        said,
        state,
        Rates.every(stride * demand.step_seconds).values,
        0.0,
        np.zeros(errors.shape[1], dtype=np.int64),
        scales,
        usual,
        means,
        0,
        len(origins),
    )
    of_asked = errors[:, :asked], scales[:, :asked]
    calibration.shape(*of_asked, judged[:, :asked], state)
    if demand.step_seconds < HOUR_SECONDS:
        calibration.mix(*of_asked, usual[:, :asked], judged[:, :asked], state)
    calibration.steady_scores(errors, scales, usual, state)
    steep = steep_rise(demand.logs, demand.step_seconds)
    parameters: dict[str, float | str | list[float] | list[list[float]]] = {
        "stride": float(stride),
        "steep": steep,
        "highest": float(np.nanmax(demand.logs)),
        "state": state.tolist(),
        **{f"scale_{name}": getattr(regression, name).tolist() for name in calibration.REGRESSION},
    }
    rehearsal = Rehearsal(demand, origins, seen, located, scales, means, state, steep, trusted=True)
    return parameters, rehearsal


def _skill(located: Floats, peaks: Floats, demand: Demand, origins: Ints) -> float:
    """1 - pinball loss / that of the last value, which is what a reactive rule goes by.

    Errors count as far as calibration counts them: a fall to nothing, which nobody foresees, would
    outweigh a week.
    """
    week = slice(-7 * 1440, None)
    last = demand.logs[origins - 1]
    errors, naive = (
        np.clip((peaks - said)[week], -calibration.MOST_FALL, calibration.MAX_CHANGE)
        for said in (located, last)
    )
    known = np.isfinite(errors) & np.isfinite(naive)
    if not known.any():
        raise ForecastError("no window has ended yet to measure skill on")
    ones = np.ones(int(known.sum()))
    yardstick = _pinball(naive[known], ones)
    return 1.0 - _pinball(errors[known], ones) / yardstick if yardstick > 0 else 0.0
