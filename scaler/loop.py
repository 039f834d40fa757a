"""ControlLoop: observe, forecast, decide, record, act, for one workload.

The daemon and the simulator run this same object; they differ only in what stands behind its
ports. Its memory is the decision log: what it keeps between ticks (the history read so far, the
fitted model) is a cache that a restart rebuilds from the metrics source and the log.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import takewhile

import numpy as np

from forecaster.forecast import FittedModel, Forecast, Forecaster, ForecastError, Window
from forecaster.history import GrowingHistory, TrafficHistory
from policies.context import (
    Capacity,
    LeadTime,
    Observation,
    Override,
    PastDecision,
    PolicySettings,
    Problem,
    ProblemKind,
    ProblemSource,
    ScalingContext,
)
from policies.decision import MAY_HAVE_WRITTEN, Decision, Outcome, OutcomeKind
from policies.engine import decide
from policies.guardrails import paused
from policies.registry import POLICIES
from scaler.memory import Memory
from scaler.ports import (
    DecisionStore,
    MetricsError,
    MetricsSource,
    Reading,
    ScaleTarget,
    StoreError,
    TargetError,
)

PLAUSIBLE_ZERO_RATIO = 0.01
"""Demand below this share of the last quarter hour's median is doubted, unless the pods' own
requests in flight say the same."""
MAX_UNRECORDED = 1000
"""Decisions kept in memory while the log cannot be written; the oldest are lost beyond it."""
FIRST_TICK_STEPS = 60
STALE_HISTORY_STEPS = 10
"""No forecast is made once the newest known step lies further back than this. A gap at the end of
the history is asked for again as long."""

RIVAL_DECISIONS = 20
RIVAL_TIME = timedelta(minutes=15)
"""A mark on the target that is in no decision of our log is somebody else's. After so many
decisions, and so long, without a new one it may be taken over: whoever wrote it renews it sooner.
"""
MARKS_REMEMBERED = timedelta(days=7)

LOOK_FOR_STARTS = timedelta(hours=1)
SLOWER = 1.1
"""Starts that take so many times what is planned with are slower; less is chance."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOTHING = np.empty(0)


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """What one workload's loop is told; everything that can bear on a decision."""

    workload: str
    policy: PolicySettings
    capacity: Capacity
    lead_time: LeadTime
    interval_seconds: float
    history_steps: int
    step_seconds: int
    learns_lead_time: bool = True

    @property
    def windows(self) -> tuple[Window, Window]:
        """What a forecast must cover, from the end of the history on: order and hold.

        A replica ordered now serves from the lead time on, and until the next decision nothing
        else can be ordered. A replica deleted now is missing until a new one could be there.
        """
        lag, step = self.lead_time.metric_lag_seconds, self.step_seconds
        order = int((lag + self.lead_time.p95_seconds) // step)
        order_end = order + math.ceil(self.interval_seconds / step) + 2
        hold = int(lag // step)
        return (
            Window("order", order, order_end),
            Window("hold", hold, max(order_end - 1, hold + 1)),
        )


@dataclass(frozen=True, slots=True)
class Ports:
    """What stands around a loop."""

    metrics: MetricsSource
    target: ScaleTarget
    store: DecisionStore


@dataclass(frozen=True, slots=True)
class TickResult:
    """What one tick did; `decision_id` is None where the log could not take it. `rival` says that
    another daybreak writes to the target, where it seems so."""

    context: ScalingContext
    decision: Decision
    outcome: Outcome
    decision_id: int | None
    rival: str = ""


class ControlLoop:
    """One workload's loop. `tick` and `refit` may run in two threads at the same time."""

    def __init__(self, settings: LoopSettings, ports: Ports, forecaster: Forecaster) -> None:
        self.settings = settings  # as they hold now: with the lead time that was learned
        self._assumed = settings.lead_time
        self._looked_at: datetime | None = None
        self._ports = ports
        self._forecaster = forecaster
        self._forecasts = POLICIES[settings.policy.policy].forecasts
        self._look_back = timedelta(seconds=_look_back_seconds(settings.policy))
        self._past = Memory()
        self._memory_span = max(self._look_back, timedelta(seconds=settings.policy.memory_seconds))
        self._history = GrowingHistory(settings.history_steps)
        self._whole_read = False
        self._partial: tuple[Problem, ...] = ()
        self._fitted: FittedModel | None = None
        self._model_loaded = False
        self._last_forecast: tuple[FittedModel, TrafficHistory, Forecast] | None = None
        self._last_epoch = 0
        self._own_mark: int | None = None
        self._foreign_mark: tuple[int, datetime] | None = None
        self._log_lost = False
        self._last_override: Override | None = None
        self._lock = threading.Lock()
        self._unrecorded: deque[tuple[ScalingContext, Decision, Outcome]] = deque(
            maxlen=MAX_UNRECORDED
        )

    def tick(self, now: datetime) -> TickResult:
        """One decision. Raises TargetError where the target cannot be read: without knowing what
        runs there is nothing to decide."""
        context = self._observe(now)
        decision = decide(context)
        self._last_epoch = decision.epoch
        decision_id = self._record(context, decision)
        rival = self._rival(context)
        outcome = self._apply(context, decision, rival)
        self._record_outcome(decision_id, context, decision, outcome)
        return TickResult(context, decision, outcome, decision_id, rival)

    def _apply(self, context: ScalingContext, decision: Decision, rival: str) -> Outcome:
        """While it is paused nothing is written, not even the number that is there already: a
        floor would be, and would fight whoever steers by hand. Beside a rival nothing is taken
        away; what it lacks may be added, so that two of them settle on the larger fleet."""
        if paused(context):
            return Outcome(OutcomeKind.UNCHANGED, "paused")
        if rival and decision.desired <= context.replicas.spec:
            fits = decision.desired == context.replicas.spec
            return Outcome(OutcomeKind.UNCHANGED if fits else OutcomeKind.REFUSED, rival)
        outcome = self._ports.target.apply(decision.desired, context.replicas, decision.epoch)
        if outcome.kind in MAY_HAVE_WRITTEN:
            self._own_mark = decision.epoch
        return outcome

    def _rival(self, context: ScalingContext) -> str:
        """That another daybreak, with a log of its own, writes to the target; empty where none
        does, or where it has been silent for long.

        Time is counted from when the mark was first seen here: no other machine's clock is trusted.
        """
        mark, now = context.replicas.stored_epoch, context.now
        if mark is None or mark == self._own_mark or self._wrote(mark, now):
            self._foreign_mark = None
            return ""
        seen = self._foreign_mark
        if seen is None or seen[0] != mark or now < seen[1]:
            seen = self._foreign_mark = (mark, now)
        interval = timedelta(seconds=self.settings.interval_seconds)
        if now - seen[1] >= max(RIVAL_DECISIONS * interval, RIVAL_TIME):
            return ""
        return (
            f"another daybreak writes to this target: it carries decision epoch {mark}, which is "
            "not of this log; stop one of the two, or wait where the log was lost"
        )

    def _wrote(self, mark: int, now: datetime) -> bool:
        """Where the log cannot say, a mark that was not known for another's is taken for ours."""
        if not self._log_lost:
            with suppress(StoreError):
                since = now - MARKS_REMEMBERED
                wrote = self._ports.store.wrote(self.settings.workload, mark, since)
                self._own_mark = mark if wrote else self._own_mark
                return wrote
        return self._foreign_mark is None or self._foreign_mark[0] != mark

    def catch_up(self, now: datetime) -> None:
        """Read the history that a model from the log goes on with, or what was missing of it: weeks
        may take longer than a decision may."""
        unread = self._partial or not self._whole_read
        if self._forecasts and unread and self._model(now) is not None:
            self._read_history(now, whole=True)

    def refit_due(self, now: datetime, interval_seconds: float) -> bool:
        """Whether the model in use, this process's or the log's, is missing or too old."""
        if not self._forecasts:
            return False
        fitted = self._model(now)
        self._look_for_slower_starts(now)
        return (
            fitted is None
            or fitted.windows != self.settings.windows
            or (now - fitted.fitted_at).total_seconds() >= interval_seconds
        )

    def refit(self, now: datetime) -> FittedModel:
        """Fit the forecast to the history known now; raises ForecastError, MetricsError or
        StoreError, after each of which the last good model stays in use."""
        history, problems = self._read_history(now, whole=True)
        if problems and not len(history):
            raise MetricsError(problems[0].kind, problems[0].message)
        self._learn_lead_time(now)
        fitted = self._forecaster.fit(history, now, self.settings.windows)
        self._fitted, self._model_loaded = fitted, True
        self._ports.store.save_model(self.settings.workload, fitted)
        return fitted

    def _observe(self, now: datetime) -> ScalingContext:
        observation = self._observation(now)
        replicas = self._ports.target.read(now)
        history, history_problems = self._read_history(now)
        forecast, forecast_problems = self._forecast(history, now)
        recent, epoch, log_problems = self._memory(now)
        doubts = _implausible(observation.value, history)
        settings = self.settings
        return ScalingContext(
            workload=settings.workload,
            now=now,
            interval_seconds=settings.interval_seconds,
            settings=settings.policy,
            capacity=settings.capacity,
            lead_time=settings.lead_time,
            replicas=replicas,
            observation=observation.value,
            forecast=forecast,
            recent=_since(now - self._look_back, recent),
            changes=self._past.changes(replicas.spec, now),
            problems=(
                *observation.problems,
                *doubts,
                *history_problems,
                *forecast_problems,
                *log_problems,
            ),
            epoch=max(epoch, self._last_epoch, replicas.stored_epoch or 0) + 1,
            override=self._override(now),
        )

    def _observation(self, now: datetime) -> Reading[Observation]:
        try:
            return self._ports.metrics.observe(now)
        except MetricsError as error:
            problem = Problem(ProblemSource.DEMAND, error.kind, str(error))
            return Reading(Observation(at=now), (problem,))

    def _read_history(
        self, now: datetime, whole: bool = False
    ) -> tuple[TrafficHistory, tuple[Problem, ...]]:
        """The history, its end one metric lag before now; what is not known there is a gap.

        Of what is known already only the newest steps are read. A tick reads these alone, also
        before anything is known: the whole is read beside it.
        """
        settings, step = self.settings, self.settings.step_seconds
        if not self._forecasts:
            return TrafficHistory(settings.workload, _EPOCH, step, _NOTHING), ()
        end = _floor(now - timedelta(seconds=settings.lead_time.metric_lag_seconds), step)
        known = self._known_until(end, whole)
        start = self._unread_from(known, end, whole)
        if known is not None and start >= end:
            return known.until(end), self._partial
        try:
            reading = self._ports.metrics.demand_history(start, end, step)
        except MetricsError as error:
            problem = Problem(ProblemSource.HISTORY, error.kind, str(error))
            if known is None:
                known = TrafficHistory(settings.workload, end, step, _NOTHING)
            return known.until(end), (*self._partial, problem)
        joined = self._kept(reading, known, whole)
        return joined.until(end), (*self._partial, *reading.problems)

    def _known_until(self, end: datetime, whole: bool) -> TrafficHistory | None:
        """What need not be read again: nothing where it came from a part of the sources."""
        if not self._whole_read or (whole and self._partial):
            return None
        known = self._history.history
        # Where the clock was set back, nothing was known beyond.
        return known if known is None or known.end <= end else known.until(end)

    def _unread_from(self, known: TrafficHistory | None, end: datetime, whole: bool) -> datetime:
        """Where reading goes on: steps that were missing a moment ago may have come since."""
        settings = self.settings
        steps = settings.history_steps if whole else min(settings.history_steps, FIRST_TICK_STEPS)
        start = end - timedelta(seconds=steps * settings.step_seconds)
        if known is None:
            return start
        oldest = known.end - STALE_HISTORY_STEPS * known.step
        return max(start, oldest, known.last_known_end or known.start)

    def _kept(
        self, reading: Reading[TrafficHistory], known: TrafficHistory | None, whole: bool
    ) -> TrafficHistory:
        """With what was known. What comes from a part of the sources only is not kept: it is too
        low, and no gap. Of a whole history it is better than none, and doubted until it is read
        again."""
        newer, anew = reading.value, whole and known is None
        partial = tuple(one for one in reading.problems if one.kind is ProblemKind.PARTIAL)
        if partial and not anew:
            return newer if known is None else known.extended(newer, self.settings.history_steps)
        with self._lock:  # A fit may have read the whole while a tick was busy with the end of it.
            if anew:
                self._partial, self._whole_read = partial, True
            return self._history.extend(newer)

    def _forecast(
        self, history: TrafficHistory, now: datetime
    ) -> tuple[Forecast | None, tuple[Problem, ...]]:
        if not self._forecasts:
            return None, ()
        fitted = self._model(now)
        if fitted is None:
            return None, (_forecast_problem(ProblemKind.FORECAST_UNAVAILABLE, "no model yet"),)
        known_end = history.last_known_end
        age = math.inf if known_end is None else (now - known_end).total_seconds()
        if age > STALE_HISTORY_STEPS * self.settings.step_seconds:
            message = f"the history ends {age:.0f} s ago" if known_end else "there is no history"
            return None, (_forecast_problem(ProblemKind.FORECAST_UNAVAILABLE, message),)
        try:
            forecast = self._predict(fitted, history, now)
        except ForecastError as error:
            return None, (_forecast_problem(ProblemKind.FORECAST_UNAVAILABLE, str(error)),)
        if not forecast.trusted:
            message = "; ".join(forecast.failures) or "the model does not trust itself"
            return forecast, (_forecast_problem(ProblemKind.FORECAST_UNTRUSTED, message),)
        return forecast, ()

    def _predict(self, fitted: FittedModel, history: TrafficHistory, now: datetime) -> Forecast:
        """Between two steps of the history nothing new is known: the forecast is issued again."""
        if not self._whole_read:
            raise ForecastError("the history is still to be read")
        last = self._last_forecast
        if last is not None and last[0] is fitted and last[1] is history:
            return replace(last[2], issued_at=now)
        forecast = self._forecaster.predict(fitted, history, now)
        self._last_forecast = (fitted, history, forecast)
        return forecast

    def _model(self, now: datetime) -> FittedModel | None:
        """The model in use; after a restart the one that the log holds."""
        if not self._model_loaded:
            self._learn_lead_time(now)
            try:
                stored = self._ports.store.latest_model(self.settings.workload)
            except StoreError:
                return None  # asked again at the next tick; _memory reports the log
            fits = stored is not None and (
                stored.step_seconds == self.settings.step_seconds
                and stored.windows == self.settings.windows
            )
            self._fitted = stored if fits else None
            self._model_loaded = True
        return self._fitted

    def _learn_lead_time(self, now: datetime) -> None:
        learned = self._slowest(now)
        if learned != self.settings.lead_time:
            self.settings = replace(self.settings, lead_time=learned)

    def _look_for_slower_starts(self, now: datetime) -> None:
        """Every hour: a fit that has to look further ahead need not wait for its day."""
        if self._looked_at is not None and now - self._looked_at < LOOK_FOR_STARTS:
            return
        self._looked_at = now
        if self._slowest(now).p95_seconds > SLOWER * self.settings.lead_time.p95_seconds:
            self._learn_lead_time(now)

    def _slowest(self, now: datetime) -> LeadTime:
        """What the settings assume, or what was seen where that is longer. Never a shorter one: the
        next replica may be the one that has to wait for a node."""
        assumed = self._assumed
        if not self.settings.learns_lead_time:
            return assumed
        try:
            seen = self._ports.target.lead_time(now)
        except TargetError:
            return self.settings.lead_time
        if seen is None or seen.p95_seconds <= SLOWER * assumed.p95_seconds:
            return assumed
        p50 = max(assumed.p50_seconds, seen.p50_seconds)
        return LeadTime(p50, seen.p95_seconds, assumed.metric_lag_seconds, seen.source)

    def _memory(self, now: datetime) -> tuple[Sequence[PastDecision], int, tuple[Problem, ...]]:
        since = now - self._memory_span
        self._log_lost = False
        try:
            self._flush_unrecorded()
            recent = self._ports.store.recent(self.settings.workload, since)
            epoch = self._ports.store.last_epoch(self.settings.workload)
        except StoreError as error:
            self._log_lost = True  # It is not waited for once more in this tick.
            self._past.follow(())
            problem = Problem(ProblemSource.LOG, ProblemKind.LOG_UNAVAILABLE, str(error))
            return (), 0, (problem,)
        self._past.follow(recent)
        newest = self._past.newest
        if newest is None or newest <= now:
            return recent, epoch, ()
        # No window reaches forward: counted in, these would bar growth until their time has come.
        passed = [past for past in recent if past.at <= now]
        self._past.follow(passed)
        return passed, epoch, _set_back(newest, now)

    def _override(self, now: datetime) -> Override | None:
        """What a person decided; without the log, what was last known of it."""
        if self._log_lost:
            return self._last_override
        with suppress(StoreError):
            self._last_override = self._ports.store.override(self.settings.workload, now)
        return self._last_override

    def _record(self, context: ScalingContext, decision: Decision) -> int | None:
        if self._log_lost:
            return None
        try:
            return self._ports.store.record(context, decision)
        except StoreError:
            # Acting must not depend on the log; doubt about it already forbids shrinking from
            # the next tick on, and this decision is written when the log is back.
            return None

    def _record_outcome(
        self,
        decision_id: int | None,
        context: ScalingContext,
        decision: Decision,
        outcome: Outcome,
    ) -> None:
        if decision_id is None:
            self._unrecorded.append((context, decision, outcome))
            return
        try:
            self._ports.store.record_outcome(decision_id, context.now, outcome)
        except StoreError:
            # The intent is recorded; an intent without outcome reads as unknown, which it is.
            return

    def _flush_unrecorded(self) -> None:
        while self._unrecorded:
            context, decision, outcome = self._unrecorded[0]
            decision_id = self._ports.store.record(context, decision)
            self._unrecorded.popleft()
            self._ports.store.record_outcome(decision_id, context.now, outcome)


def _forecast_problem(kind: ProblemKind, message: str) -> Problem:
    return Problem(ProblemSource.FORECAST, kind, message)


def _implausible(observation: Observation, history: TrafficHistory) -> tuple[Problem, ...]:
    """Nothing from a source that was busy a moment ago is no demand, until the pods agree."""
    demand = observation.demand_qps
    quarter_hour = history.values[-max(1, 900 // history.step_seconds) :]
    if demand is None or demand >= PLAUSIBLE_ZERO_RATIO * np.fmax.reduce(quarter_hour, initial=0.0):
        return ()  # The median is no higher than the maximum.
    known = quarter_hour[np.isfinite(quarter_hour)]
    usual = float(np.median(known)) if len(known) else 0.0
    if demand >= PLAUSIBLE_ZERO_RATIO * usual:
        return ()
    if observation.concurrency is not None and observation.concurrency <= demand:
        return ()
    message = f"demand {demand:,.1f} requests/s from a source that had {usual:,.0f} just before"
    return (Problem(ProblemSource.DEMAND, ProblemKind.IMPLAUSIBLE, message),)


def _set_back(newest: datetime, now: datetime) -> tuple[Problem, ...]:
    """The clock was set back: what was asked for lately is not known, until time has caught up or
    for a day at most."""
    if newest - now > timedelta(days=1):
        return ()
    message = f"the log holds a decision of {newest:%Y-%m-%d %H:%M:%S} UTC: the clock was set back"
    return (Problem(ProblemSource.LOG, ProblemKind.IMPLAUSIBLE, message),)


def _look_back_seconds(policy: PolicySettings) -> float:
    """How far back a policy looks at past decisions; changes reach further but are few."""
    own = [value for name, value in policy.parameters if name.endswith("WindowSeconds")]
    return max(
        policy.scale_up.stabilization_window_seconds,
        policy.scale_down.stabilization_window_seconds,
        policy.parameter("lookBackSeconds", 0.0),
        POLICIES[policy.policy].memory_seconds,
        *own,
    )


def _since(oldest: datetime, recent: Sequence[PastDecision]) -> tuple[PastDecision, ...]:
    """The newest decisions, as far back as after `oldest`; most of them lie before it."""
    return tuple(takewhile(lambda past: past.at > oldest, reversed(recent)))[::-1]


def _floor(at: datetime, step_seconds: int) -> datetime:
    return datetime.fromtimestamp(int(at.timestamp()) // step_seconds * step_seconds, UTC)
