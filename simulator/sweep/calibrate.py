"""Calibrate: from a target bad ratio to the knob, by replaying a workload's own history.

Users know how many bad requests they can bear, not how many scales of error that takes, and no
single margin fits all traffic. So every candidate is played through the compiled loop with what
the forecaster would have said, and the cheapest one that keeps the target is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import numpy.typing as npt

from forecaster.combine import Combined, Rehearsal
from forecaster.demand import Ints
from forecaster.forecast import (
    Calibration,
    FittedModel,
    Forecast,
    Window,
)
from forecaster.history import Floats, TrafficHistory
from forecaster.spare import Recent, highest_of
from simulator.sweep import loop
from simulator.sweep.plan import SLICE_SECONDS, Plan, Rows, SweepRun, slices

BURST_DAYS = (1, 3)
BURST_FACTORS = (0.5, 0.7, 0.8, 0.9, 1.0, 1.05, 1.1, 1.15, 1.2, 1.35, 1.5)
HEADROOMS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0)
HEADROOM_MARGINS = (3.0, 4.0, 6.0)
HOURLY_FACTORS = (0.9, 1.0, 1.1)
HOURLY_MARGINS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
DAILY_FACTORS = (0.9, 1.0)
DAILY_SECONDS = (600, 1800)
DAILY_MARGINS = (2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 14.0, 20.0)
LARGEST_STEADY_MARGIN = 20.0
LEARNING_DAYS, LEARNING_SHARE = 5, 3
"""The first days are not replayed, at most a third of the history: edges that recur by the clock on
working days are not known in them yet, as they are on the day that the margin is for."""
PRIOR_DAYS = 7.0
"""Days' worth of requests that the prior counts for."""
PRIORS_LOG10 = {
    -2.0: -0.7, -1.0: -1.1, 0.0: -1.5, 0.5: -1.8, 1.0: -2.1, 1.5: -2.4, 2.0: -2.7, 2.5: -2.9,
    3.0: -3.1, 3.5: -3.25, 4.0: -3.4, 5.0: -3.6, 6.0: -3.8, 8.0: -4.1, 10.0: -4.3, 14.0: -4.6,
    20.0: -4.9, 30.0: -5.2, 50.0: -5.5, 100.0: -6.0,
}  # fmt: skip
"""Share of requests that is lost to what no history held, by margin."""
MARGINS = tuple(PRIORS_LOG10)
BURST_PRIOR_LOG10 = (-1.0, -2.0, -2.4, -2.8, -3.2, -3.4, -3.6, -3.8, -4.0, -4.4, -4.8)
HEADROOM_JUMP_PRIOR, MARGIN_JUMP_PRIOR = 10**-3.6, 10**-3.9
"""Share of requests lost to jumps that no history held, where nothing is ready for them; it falls
with the sixth power of the factor that is, since few traces jump far. With headroom it is all that
is lost; of margins it is what the five measured traces lost in the mean at a target of 5e-5, when
only their width counted."""

NO_TARGET = 0.0
"""Of a choice that nobody has made yet."""
PRIOR_LEAD_SECONDS = 195.0
"""The lead time that the priors were found with. Where replicas take longer to come, what nobody
foresaw grows for longer and is borne for longer: priors rise with its square, but for fleets that
stand ready for what the last days saw."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A margin on the present scale of error or on its mean; with headroom over the present rate,
    or for jumps that come by the hour, or for what past days saw around this time of day, or with
    none of them; or a fleet for a share of the highest rate of the last days."""

    choice: Calibration
    prior: float

    def prior_at(self, exposure: float, severity: float) -> float:
        """What no history held: what its margin leaves out, and jumps beyond what it had ready.
        Headroom is kept for both; no margin promises more than what it had ready holds."""
        if self.choice.burst_factor:
            return self.prior
        if self.choice.headroom:
            return severity * min(self.prior, HEADROOM_JUMP_PRIOR * exposure)
        unforeseen = max(self.prior, MARGIN_JUMP_PRIOR * exposure)
        return unforeseen * (1.0 if self.choice.hourly else severity)


def by_margin(choice: Calibration) -> Candidate:
    return Candidate(choice, 10 ** PRIORS_LOG10[choice.margin])


CANDIDATES = (
    *(
        by_margin(Calibration(NO_TARGET, margin, steady=steady))
        for steady in (False, True)
        for margin in MARGINS
        if not steady or 2.0 <= margin <= LARGEST_STEADY_MARGIN
    ),
    *(
        Candidate(Calibration(NO_TARGET, 0.0, burst_factor=factor, burst_days=days), 10**prior)
        for days in BURST_DAYS
        for factor, prior in zip(BURST_FACTORS, BURST_PRIOR_LOG10, strict=True)
    ),
    *(
        by_margin(Calibration(NO_TARGET, margin, headroom=headroom))
        for margin in HEADROOM_MARGINS
        for headroom in HEADROOMS
    ),
    *(
        by_margin(Calibration(NO_TARGET, margin, hourly=factor))
        for margin in HOURLY_MARGINS
        for factor in HOURLY_FACTORS
    ),
    *(
        by_margin(Calibration(NO_TARGET, margin, daily=factor, daily_seconds=seconds))
        for margin in DAILY_MARGINS
        for factor in DAILY_FACTORS
        for seconds in DAILY_SECONDS
    ),
)
NOBODY = np.zeros(len(CANDIDATES), dtype=np.bool_)
SPARES = tuple(each.choice.spare for each in CANDIDATES)
SPARE_SECONDS = tuple(sorted({spare.seconds for spare in SPARES if not spare.daily}))


def calibrate(rehearsal: Rehearsal, plan: Plan, target: float) -> Calibration:
    """The cheapest candidate whose estimated bad ratio keeps the target; where none does, what lies
    beyond the least must keep it, since no fleet would have saved the rest.

    est = (bad + w * prior) / (requests + w), w being a week's worth of requests. Candidates that
    would not keep the target if nothing was bad are played only where no other keeps it.
    """
    replay = Replay.of(rehearsal, plan)
    hopeful = replay.tried(NOBODY).estimate() <= target
    tried = replay.tried(hopeful)
    chosen = choose(tried, target)
    return chosen if chosen.kept else choose(tried.beside(replay.tried(~hopeful)), target)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A forecaster whose models carry the margin for a target, found on the same history."""

    forecaster: Combined
    plan: Plan
    target_bad_ratio: float

    @property
    def name(self) -> str:
        return self.forecaster.name

    def fit(
        self, history: TrafficHistory, fitted_at: datetime, windows: Sequence[Window]
    ) -> FittedModel:
        fitted, rehearsal = self.forecaster.rehearse(history, fitted_at, windows)
        plan = planned_for(self.plan, windows[0], history.step_seconds)
        found = calibrate(rehearsal, plan, self.target_bad_ratio)
        return replace(fitted, calibration=found)

    def predict(
        self, fitted: FittedModel, history: TrafficHistory, issued_at: datetime
    ) -> Forecast:
        return self.forecaster.predict(fitted, history, issued_at)


def planned_for(plan: Plan, order: Window, step_seconds: int) -> Plan:
    """With the cold start that the window of the order begins after, where one longer than assumed
    was learned."""
    ahead = order.first * step_seconds - plan.lag_seconds
    return replace(plan, cold_seconds=max(plan.cold_seconds, ahead))


@dataclass(frozen=True, slots=True, eq=False)
class Tried:
    """What each candidate came to on the history; `requests` is what was played, `day` a day's.
    `exposure` is how open each was to jumps, of 1 with nothing ready beyond the present rate.
    `severity` is how many times as bad as the priors say it is what no history held. Who was not
    played cost infinitely much, with nothing bad and open to nothing."""

    pod_seconds: Floats
    bad: Floats
    exposure: Floats
    requests: float
    day: float
    steady_scales: tuple[float, float] = (0.0, 0.0)
    severity: float = 1.0

    def estimate(self) -> Floats:
        """The bad ratio that each promises."""
        weight = PRIOR_DAYS * self.day
        priors: Floats = np.array(
            [
                each.prior_at(exposure, self.severity)
                for each, exposure in zip(CANDIDATES, self.exposure.tolist(), strict=True)
            ]
        )
        return np.asarray((self.bad + weight * np.minimum(priors, 1.0)) / (self.requests + weight))

    def beside(self, others: Tried) -> Tried:
        """With those that were played then."""
        played = np.isfinite(others.pod_seconds)
        return replace(
            self,
            pod_seconds=np.where(played, others.pod_seconds, self.pod_seconds),
            bad=np.where(played, others.bad, self.bad),
            exposure=np.where(played, others.exposure, self.exposure),
        )


def choose(tried: Tried, target: float) -> Calibration:
    """Among those that were played."""
    estimate = np.where(np.isfinite(tried.pod_seconds), tried.estimate(), np.inf)
    kept = bool(estimate.min() <= target)
    good = estimate <= (target if kept else estimate.min() + target)
    best = int(np.argmin(np.where(good, tried.pod_seconds, np.inf)))
    return replace(
        CANDIDATES[best].choice,
        target_bad_ratio=target,
        expected_bad_ratio=float(estimate[best]),
        requests=tried.requests,
        kept=kept,
    )


def rehearsed(rehearsal: Rehearsal, plan: Plan) -> Tried:
    """Every candidate."""
    return Replay.of(rehearsal, plan).tried(~NOBODY)


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """The rows of a rehearsal, each row's word standing until the next, for candidates to be played
    on. `scales` are the mean ones of the order and the hold window."""

    run: SweepRun
    rows: Rows
    scales: tuple[float, float]
    recent: Recent

    @classmethod
    def of(cls, rehearsal: Rehearsal, plan: Plan) -> Replay:
        demand = rehearsal.demand
        step = demand.step_seconds
        rates = bridged(np.maximum(np.exp(demand.logs) - demand.offset, 0.0))
        learning = min(LEARNING_DAYS * 86_400 // step, len(rates) // LEARNING_SHARE)
        first = max(int(rehearsal.origins[0]), learning)
        run = SweepRun(plan, slices(rates[first:], step), SLICE_SECONDS)
        known = first + ((np.arange(run.ticks) * plan.tick_seconds - plan.lag_seconds) // step)
        at = np.searchsorted(rehearsal.origins, known, side="right") - 1
        at = np.clip(at, 0, len(rehearsal.origins) - 1)
        rows = _rows(rehearsal, at)
        newest = np.clip(known.astype(np.int64) - 1, 0, len(rates) - 1)
        highest = highest_of(rates, SPARE_SECONDS, step)
        recent = Recent(
            rates[newest],
            {span: _told(peaks, first, span // step)[newest] for span, peaks in highest.items()},
            rehearsal.hourly_jumps("order")[at],
            rehearsal.hourly_jumps("hold")[at],
            {seconds: rehearsal.daily_peaks(seconds)[at] for seconds in DAILY_SECONDS},
        )
        scales = (rehearsal.steady_scale("order"), rehearsal.steady_scale("hold"))
        return cls(run, rows, scales, recent)

    def tried(self, which: npt.NDArray[np.bool_]) -> Tried:
        """What these candidates come to."""
        pod_seconds = np.full(len(CANDIDATES), np.inf)
        bad, exposure = np.zeros((2, len(CANDIDATES)))
        run, rates = self.run, self.run.rates
        specs = np.zeros(run.ticks)
        for number in np.flatnonzero(which):
            tally = self._play(CANDIDATES[number].choice, specs)
            pod_seconds[number], bad[number] = tally[loop.POD_SECONDS], tally[loop.BAD]
            exposure[number] = exposure_of(specs * run.plan.qps_per_replica, rates)
        a_day = run.requests / (run.ticks * run.plan.tick_seconds) * 86_400
        severity = severity_of(run.plan)
        return Tried(pod_seconds, bad, exposure, run.requests, a_day, self.scales, severity)

    def _play(self, choice: Calibration, specs: Floats) -> Floats:
        """Fills in the replicas of each decision."""
        order, hold, trusted = self.rows
        if choice.steady:
            order, hold = with_scale(order, self.scales[0]), with_scale(hold, self.scales[1])
        order, hold = self.recent.spared(order, hold, choice.spare, choice.margin)
        rows = order, hold, trusted
        return self.run.play(loop.PREDICTIVE, choice.margin, rows=rows, specs=specs)


def _rows(rehearsal: Rehearsal, at: Ints) -> Rows:
    """What a decision at each of these rows goes by: nothing but the present rate where no forecast
    is trusted, as in life, so that a margin found for forecasts is not played there."""
    order, hold = rehearsal.window("order")[at], rehearsal.window("hold")[at]
    trusted = np.isfinite(np.hstack([order, hold])).all(axis=1) & rehearsal.trusted
    order[~trusted], hold[~trusted] = 0.0, 0.0
    return order, hold, np.asarray(trusted)


def exposure_of(ready: Floats, rates: Floats) -> float:
    """How open a fleet that was ready for so much at each decision was to jumps, at a rate of so
    much: the mean, over requests, of the sixth power of the rate by what was ready."""
    share = np.minimum(rates / np.maximum(ready, 1e-9), 1.0)
    cubed = share * share * share  # a power takes ten times as long
    return float(rates @ (cubed * cubed) / max(rates.sum(), 1e-9))


def severity_of(plan: Plan) -> float:
    """How many times the priors count where replicas take so long to come."""
    return max(1.0, (plan.cold_seconds + plan.lag_seconds) / PRIOR_LEAD_SECONDS) ** 2


def with_scale(window: Floats, scale: float) -> Floats:
    """Rows of a window with the same scale throughout."""
    return np.column_stack([window[:, 0], np.full(len(window), scale), window[:, 2:]])


def bridged(rates: Floats) -> Floats:
    """Gaps are joined by straight lines: a replay needs traffic throughout."""
    known = np.flatnonzero(np.isfinite(rates))
    return np.interp(np.arange(len(rates)), known, rates[known])


def _told(highest: Floats, first: int, steps: int) -> Floats:
    """The same for a replay from `first` on: it knows no days before, for which the highest of its
    own first ones stands."""
    told = highest.copy()
    told[: first + steps] = highest[: first + steps].max()
    return told
