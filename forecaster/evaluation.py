"""Rolling-origin evaluation: how good a forecast is on traffic that its model has not seen.

Knows origins, refits, targets and scores. Knows no model and no clock: what is judged is a
Contender, and seconds are read from a stopwatch that the caller brings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from forecaster.calendar import DAY_SECONDS, Calendar
from forecaster.demand import Ints, demand_of, log_offset
from forecaster.forecast import Forecaster, ForecastError, Window
from forecaster.history import Floats, TrafficHistory
from forecaster.member import Member

Stopwatch = Callable[[], float]
"""Seconds since some fixed moment."""

FIT_DAYS = 28.0
"""A fit looks at no more history than this."""
ERROR_DAYS = 7.0
"""What a plain model said over this long before an origin makes its quantiles."""
MIN_ERRORS = 20
STEEP_SHARE = 0.1
"""The steepest tenth of rises: what pre-scaling exists for."""
MAX_POINTS = 2000
WEEKLY_ORIGINS = 200
"""Where the steps allow it, so that a week of errors makes a quantile."""
MAX_SCORED_DAYS = 365.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said of each window from each origin, in requests a second, NaN for nothing.

    `median_qps` has the shape (origins, windows); `upper_qps` (origins, windows, levels), or None
    where the model gives no quantiles of its own.
    """

    median_qps: Floats
    upper_qps: Floats | None


Levels = tuple[float, ...]


class Contender(Protocol):
    """What is judged: fitted on history now and then, asked from every origin."""

    @property
    def name(self) -> str: ...

    @property
    def one_window(self) -> bool:
        """Whether it is to be fitted for each window alone, as it is in service."""
        ...

    def fit(self, history: TrafficHistory, windows: Sequence[Window]) -> Any:
        """Whatever `answer` needs; raises ForecastError where the history does not carry it."""
        ...

    def answer(self, fitted: Any, history: TrafficHistory, at: Ints, levels: Levels) -> Answer:
        """From the origins `at`, which count steps of this history."""
        ...


@dataclass(frozen=True, slots=True)
class Plain:
    """A member on its own: a location, without an idea of its error."""

    member: Member
    calendar: Calendar = field(default_factory=Calendar)
    one_window: bool = False

    @property
    def name(self) -> str:
        return self.member.name

    def fit(self, history: TrafficHistory, windows: Sequence[Window]) -> Any:
        demand = demand_of(history, self.calendar)
        return demand.offset, tuple(windows), self.member.fit(demand, windows)

    def answer(self, fitted: Any, history: TrafficHistory, at: Ints, levels: Levels) -> Answer:  # noqa: ARG002
        offset, windows, parameters = fitted
        demand = demand_of(history, self.calendar, offset)
        located = self.member.locate(parameters, demand, windows, at)
        return Answer(_rates(located, offset), None)


@dataclass(frozen=True, slots=True)
class Whole:
    """A forecaster with the quantiles that it itself answers for, asked as the daemon asks it."""

    forecaster: Forecaster
    one_window: bool = True

    @property
    def name(self) -> str:
        return self.forecaster.name

    def fit(self, history: TrafficHistory, windows: Sequence[Window]) -> Any:
        return self.forecaster.fit(history, history.end, windows)

    def answer(self, fitted: Any, history: TrafficHistory, at: Ints, levels: Levels) -> Answer:
        """Raises ForecastError where not one origin got an answer."""
        median = np.full((len(at), len(fitted.windows)), np.nan)
        upper = np.full((*median.shape, len(levels)), np.nan)
        refusal = None
        for row, origin in enumerate(at):
            seen = _steps(history, 0, int(origin))
            try:
                forecast = self.forecaster.predict(fitted, seen, seen.end)
            except ForecastError as error:
                refusal = error
                continue
            for column, window in enumerate(fitted.windows):
                said = forecast.window(window.name)
                if said is not None:
                    median[row, column] = said.median_qps
                    upper[row, column] = [said.at_level(level) for level in levels]
        if refusal is not None and np.isnan(median).all():
            raise refusal
        return Answer(median, upper)


@dataclass(frozen=True, slots=True, eq=False)
class RollingOrigin:
    """What all models of a comparison share: the traffic, the questions, and when they are asked.

    An origin i stands between the steps i - 1 and i: only steps before it are known. Origins
    before `cut` are asked too, but not scored; plain models learn their first errors there.
    `offset` is added to rates before a log is taken of them.
    """

    history: TrafficHistory
    windows: tuple[Window, ...]
    levels: Levels
    cut: int
    origins: Ints
    fit_steps: int
    refit_steps: int
    offset: float

    def __len__(self) -> int:
        """How many origins are scored."""
        return int((self.origins >= self.cut).sum())

    @property
    def stride(self) -> int:
        """Steps from one origin to the next."""
        return int(self.origins[1] - self.origins[0]) if len(self.origins) > 1 else 1

    @property
    def scored_from(self) -> datetime:
        return self.at(self.cut)

    @property
    def scored_until(self) -> datetime:
        """The end of the last target."""
        return self.at(int(self.origins[-1]) + max(window.last for window in self.windows))

    def at(self, origin: int) -> datetime:
        return self.history.start + origin * self.history.step

    def blocks(self) -> Iterator[tuple[int, slice]]:
        """When to fit (a step of the history), and which origins that fit answers."""
        number = (self.origins - self.cut) // self.refit_steps
        for block in np.unique(number):
            first, last = np.searchsorted(number, [block, block + 1])
            fit_at = self.cut + int(block) * self.refit_steps
            # On a short trace the first day of all may begin before it does.
            yield fit_at if fit_at > 0 else int(self.origins[0]), slice(int(first), int(last))

    def by_window(self) -> list[RollingOrigin]:
        """The same origins, with one window each."""
        return [replace(self, windows=(window,)) for window in self.windows]

    def targets(self, window: Window) -> Floats:
        """The highest rate of a window from each origin; NaN where it is not known whole."""
        ahead = np.concatenate([self.history.values, np.full(window.last, np.nan)])
        spans = np.lib.stride_tricks.sliding_window_view(ahead, window.last - window.first)
        return np.asarray(spans[self.origins + window.first].max(axis=1), dtype=np.float64)

    def latest(self) -> Floats:
        """The newest known rate before each origin."""
        known = np.maximum.accumulate(
            np.where(np.isfinite(self.history.values), np.arange(len(self.history)), 0)
        )
        return np.asarray(self.history.values[known[self.origins - 1]], dtype=np.float64)


def target_window(name: str, lead_seconds: float, long_seconds: float, step_seconds: int) -> Window:
    """The steps that [now + lead, now + lead + commitment] touches."""
    first = math.floor(_steps_of(lead_seconds, step_seconds))
    last = math.ceil(_steps_of(lead_seconds + long_seconds, step_seconds))
    return Window(name, first, max(first + 1, last))


def _steps_of(seconds: float, step_seconds: int) -> float:
    """To a billionth: 1.1 hours are 66 minutes, and not a little more."""
    return round(seconds / step_seconds, 9)


def rolling_origin(
    history: TrafficHistory,
    windows: Sequence[Window],
    levels: Sequence[float],
    train_days: float | None = None,
    max_days: float = MAX_SCORED_DAYS,
    max_points: int = MAX_POINTS,
) -> RollingOrigin:
    """The plan of an evaluation: half of the trace, at most 28 days, is history; the `max_days`
    after it are scored. Every k-th step is an origin and models are fitted anew each day.

    k keeps to about `max_points`, but leaves 200 origins a week where the step allows; it shares
    no factor with the day, so that no clock time is left out.

    Raises ValueError where nothing would be left to score, ForecastError where there is no
    traffic to learn from.
    """
    per_day = DAY_SECONDS / history.step_seconds
    chosen = min(history.days / 2, FIT_DAYS) if train_days is None else train_days
    cut = round(chosen * per_day)
    reach = max(window.last for window in windows)
    end = min(len(history), cut + round(max_days * per_day))
    scored = end - reach - cut + 1
    if cut < 2 or scored < 1:
        raise ValueError(
            f"{chosen:g} days to learn from and {reach / per_day:.2g} to look ahead leave nothing "
            f"to score of a trace of {history.days:.2f} days"
        )
    stride = _stride(scored / max_points, round(per_day))
    before = min(round(ERROR_DAYS * per_day), cut // 2) // stride
    origins = cut + stride * np.arange(-before, (scored - 1) // stride + 1, dtype=np.int64)
    return RollingOrigin(
        history=history,
        windows=tuple(windows),
        levels=tuple(levels),
        cut=cut,
        origins=origins,
        fit_steps=round(FIT_DAYS * per_day),
        refit_steps=max(1, round(per_day)),
        offset=log_offset(_steps(history, 0, cut)),
    )


@dataclass(frozen=True, slots=True)
class LevelScore:
    """How a quantile did. `pinball` is its mean loss over the mean of the targets; `coverage` the
    share of targets at or below it, `coverage_steepest` that of the steepest tenth of rises."""

    level: float
    pinball: float
    coverage: float
    coverage_steepest: float


@dataclass(frozen=True, slots=True)
class Score:
    """How a model did on one window: `wape` is the sum of |target - median| over that of targets.

    `points` are the targets it was scored on, `failures` those on which it said nothing. Figures
    are NaN where there is no point.
    """

    wape: float
    levels: tuple[LevelScore, ...]
    points: int
    failures: int


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One model's forecasts of one window, and their scores.

    Arrays have an entry a scored origin, `upper_qps` a column a level. Seconds are medians of a
    single fit and of a single forecast. `errors` says why fits or forecasts failed, each cause
    once.
    """

    model: str
    window: Window
    origins: Ints
    target_qps: Floats
    latest_qps: Floats
    median_qps: Floats
    upper_qps: Floats
    score: Score
    fits: int
    fit_seconds: float
    predict_seconds: float
    errors: tuple[str, ...]


def judge(
    contender: Contender,
    plan: RollingOrigin,
    stopwatch: Stopwatch,
    on_answers: Callable[[int], None] = lambda _: None,
) -> list[Judged]:
    """Walk a model through the plan: what it said of each window, in the plan's order.

    `on_answers` is told how many origins were answered, each time for all windows or for one. A
    model that gives no quantiles gets those of its own errors (`trailing_quantiles`).
    """
    judged = []
    for part in plan.by_window() if contender.one_window else [plan]:
        walk = _Walk(contender, part, stopwatch)
        for fit_at, asked in part.blocks():
            walk.block(fit_at, asked)
            on_answers(asked.stop - asked.start)
        judged += [walk.judged(column) for column in range(len(part.windows))]
    return judged


def score(levels: Levels, targets: Floats, latest: Floats, median: Floats, upper: Floats) -> Score:
    """Scores on the targets that are known; `upper` has a column a level."""
    known = np.isfinite(targets)
    said = known & np.isfinite(median) & np.isfinite(upper).all(axis=1)
    steep = steepest(targets, latest) & said
    y, points = targets[said], int(said.sum())
    total = float(y.sum()) or math.nan
    return Score(
        wape=float(np.abs(y - median[said]).sum()) / total,
        levels=tuple(
            LevelScore(
                level,
                float(pinball(y, upper[said, column], level).sum()) / total,
                _share(covered(y, upper[said, column])),
                _share(covered(targets[steep], upper[steep, column])),
            )
            for column, level in enumerate(levels)
        ),
        points=points,
        failures=int(known.sum()) - points,
    )


def pinball(targets: Floats, quantiles: Floats, level: float) -> Floats:
    """The loss that a quantile of this level minimises: Koenker and Bassett, Econometrica 1978."""
    short = targets - quantiles
    return np.maximum(level * short, (level - 1.0) * short)


def covered(targets: Floats, quantiles: Floats) -> npt.NDArray[np.bool_]:
    """Which targets lie at or below the quantile, but for the rounding of logs and back."""
    return np.asarray(targets <= quantiles * (1.0 + 1e-9))


def steepest(targets: Floats, latest: Floats) -> npt.NDArray[np.bool_]:
    """Which targets rise most over the last value known before them: the top tenth."""
    rises = targets - latest
    known = np.isfinite(rises)
    if not known.any():
        return known
    return np.asarray(known & (rises >= np.quantile(rises[known], 1.0 - STEEP_SHARE)))


def trailing_quantiles(
    errors: Floats, origins: Ints, reach: int, memory: int, levels: Levels
) -> Floats:
    """The quantiles that a model's own recent errors give, (origins, levels).

    From an origin those errors count whose target had ended by then (`reach` steps after its own
    origin) and lay within the last `memory` steps. Of n errors the ceil((n + 1) level)-th smallest
    is taken (split conformal prediction, Vovk et al. 2005), or the largest. NaN below 20 errors.
    """
    known = np.isfinite(errors)
    ended, values = origins[known] + reach, errors[known]
    firsts = np.searchsorted(ended, origins - memory, side="right")
    lasts = np.searchsorted(ended, origins, side="right")
    found = np.full((len(origins), len(levels)), np.nan)
    for row, (first, last) in enumerate(zip(firsts, lasts, strict=True)):
        count = int(last - first)
        if count >= MIN_ERRORS:
            ranks = [min(math.ceil((count + 1) * level), count) - 1 for level in levels]
            found[row] = np.partition(values[first:last], ranks)[ranks]
    return found


@dataclass(slots=True)
class _Walk:
    """A model on its way through the plan."""

    contender: Contender
    plan: RollingOrigin
    stopwatch: Stopwatch
    median: Floats = field(init=False)
    upper: Floats = field(init=False)
    own_quantiles: bool = False
    fit_seconds: list[float] = field(default_factory=list)
    predict_seconds: list[float] = field(default_factory=list)
    errors: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.plan.origins), len(self.plan.windows))
        self.median = np.full(shape, np.nan)
        self.upper = np.full((*shape, len(self.plan.levels)), np.nan)

    def block(self, fit_at: int, part: slice) -> None:
        first = max(0, fit_at - self.plan.fit_steps)
        try:
            fitted = self._fit(_steps(self.plan.history, first, fit_at))
            self._ask(fitted, first, part)
        except (ForecastError, ValueError, ArithmeticError) as error:
            # A library's own failure on odd data costs the model these points, not the evaluation.
            self.errors[str(error).removeprefix(f"{self.contender.name}: ")] = None

    def _fit(self, seen: TrafficHistory) -> Any:
        began = self.stopwatch()
        fitted = self.contender.fit(seen, self.plan.windows)
        self.fit_seconds.append(self.stopwatch() - began)
        return fitted

    def _ask(self, fitted: Any, first: int, part: slice) -> None:
        """Nothing after the last origin is shown, so that nothing there can be looked at."""
        origins, levels = self.plan.origins[part], self.plan.levels
        seen = _steps(self.plan.history, first, int(origins[-1]))
        answer = self.contender.answer(fitted, seen, origins - first, levels)
        self.median[part] = answer.median_qps
        if answer.upper_qps is not None:
            self.own_quantiles = True
            self.upper[part] = answer.upper_qps
        answered = np.flatnonzero(np.isfinite(answer.median_qps).any(axis=1))
        if len(answered):
            self._time_one(fitted, first, int(origins[answered[0]]))

    def _time_one(self, fitted: Any, first: int, origin: int) -> None:
        """A forecast as it is asked for in service: one, from the end of a history."""
        seen, at = _steps(self.plan.history, first, origin), np.array([origin - first])
        began = self.stopwatch()
        self.contender.answer(fitted, seen, at, self.plan.levels)
        self.predict_seconds.append(self.stopwatch() - began)

    def judged(self, column: int) -> Judged:
        plan, window = self.plan, self.plan.windows[column]
        targets, median = plan.targets(window), self.median[:, column]
        upper = self.upper[:, column]
        if not self.own_quantiles:
            upper = _quantiles_of_errors(plan, window, targets, median)
        kept = plan.origins >= plan.cut
        latest = plan.latest()[kept]
        return Judged(
            model=self.contender.name,
            window=window,
            origins=plan.origins[kept],
            target_qps=targets[kept],
            latest_qps=latest,
            median_qps=median[kept],
            upper_qps=upper[kept],
            score=score(plan.levels, targets[kept], latest, median[kept], upper[kept]),
            fits=len(self.fit_seconds),
            fit_seconds=_typical(self.fit_seconds),
            predict_seconds=_typical(self.predict_seconds),
            errors=tuple(self.errors),
        )


def _quantiles_of_errors(
    plan: RollingOrigin, window: Window, targets: Floats, median: Floats
) -> Floats:
    centre = np.log(median + plan.offset)
    errors = np.log(targets + plan.offset) - centre
    memory = round(ERROR_DAYS * DAY_SECONDS / plan.history.step_seconds)
    found = trailing_quantiles(errors, plan.origins, window.last, memory, plan.levels)
    return _rates(centre[:, None] + found, plan.offset)


def _rates(logs: Floats, offset: float) -> Floats:
    return np.asarray(np.maximum(np.exp(logs) - offset, 0.0), dtype=np.float64)


def _steps(history: TrafficHistory, first: int, last: int) -> TrafficHistory:
    start = history.start + first * history.step
    return TrafficHistory(history.series, start, history.step_seconds, history.values[first:last])


def _stride(wanted: float, per_day: int) -> int:
    """The nearest to what is wanted that shares no factor with the day and leaves enough a week."""
    target = max(1.0, min(wanted, 7 * per_day / WEEKLY_ORIGINS))
    strides = [one for one in range(1, 2 * math.ceil(target) + 8) if math.gcd(one, per_day) == 1]
    return min(strides, key=lambda one: abs(math.log(one / target)))


def _share(hits: npt.NDArray[np.bool_]) -> float:
    return float(hits.mean()) if len(hits) else math.nan


def _typical(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else math.nan
