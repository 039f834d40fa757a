"""Explanation: why one decision asked for the number it asked for, and what became of it.

Pure: a stored decision and what the log says of the time after it in, figures and words out.
Knows no database and no layout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from forecaster.forecast import Calibration, WindowForecast
from forecaster.history import Floats
from policies.capacity import replicas_at
from policies.context import Override, ScalingContext
from policies.decision import Decision, Outcome, Step
from policies.guardrails import holding
from policies.predictive import margin_of
from storage.reports import words
from storage.reports.alternatives import Alternative, Threshold, alternatives, thresholds
from storage.reports.timeline import Timeline


@dataclass(frozen=True, slots=True)
class Input:
    """One figure that the decision was made from; `value` is None where it was not known."""

    name: str
    value: float | None
    unit: str
    source: str
    age_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class WindowView:
    """A forecast window in seconds from the decision on, rates in requests a second.

    `ordered_qps` is the rate to be ready for: the median and `margin` scales of error, or the
    floor where that is higher.
    """

    name: str
    starts_in_seconds: float
    ends_in_seconds: float
    median_qps: float
    scale: float
    margin: float
    ordered_qps: float
    quantiles: tuple[tuple[float, float], ...]
    floor_qps: float
    floor_scale: float
    floor_reason: str


@dataclass(frozen=True, slots=True)
class ForecastView:
    model: str
    fitted_age_seconds: float
    history_age_seconds: float
    skill: float | None
    trusted: bool
    failures: tuple[str, ...]
    windows: tuple[WindowView, ...]
    calibration: Calibration | None


@dataclass(frozen=True, slots=True)
class StepView:
    """One rule's effect: the number before it and after it."""

    rule: str
    before: int | None
    after: int
    reason: str
    message: str

    @property
    def change(self) -> int | None:
        return None if self.before is None else self.after - self.before


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What the log says of the span that the order was for; None where it does not reach there.

    `within_order` is also None where the forecast was not trusted, since nothing was ordered by it.
    `spare_replicas` is what was asked for less what the highest demand needed; negative where it
    was too little. `next_change` is when another number was asked for, and which.
    """

    since: datetime
    until: datetime
    demand_qps: float | None
    forecast_error_ratio: float | None
    within_order: bool | None
    needed_replicas: int | None
    spare_replicas: int | None
    ready_replicas: float | None
    latency_p99_seconds: float | None
    next_change: tuple[datetime, int] | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that there is to say about one decision; `override` is what a person had decided
    and still held, whether or not it changed the number."""

    id: int
    workload: str
    at: datetime
    policy: str
    epoch: int
    current: int
    recommended: int
    desired: int
    reason: str
    why: str
    outcome: Outcome | None
    inputs: tuple[Input, ...]
    override: Override | None
    problems: tuple[tuple[str, str, str], ...]
    forecast: ForecastView | None
    steps: tuple[StepView, ...]
    binding: str
    alternatives: tuple[Alternative, ...]
    thresholds: tuple[Threshold, ...]
    aftermath: Aftermath


def explain(
    decision_id: int,
    context: ScalingContext,
    decision: Decision,
    outcome: Outcome | None,
    later: Timeline,
) -> Explanation:
    """`later` is what was logged from the decision on, as far as it is there."""
    return Explanation(
        id=decision_id,
        workload=context.workload,
        at=context.now,
        policy=context.settings.policy,
        epoch=decision.epoch,
        current=decision.current,
        recommended=decision.recommended,
        desired=decision.desired,
        reason=decision.reason.value,
        why=words.reason_words(decision.reason.value),
        outcome=outcome,
        inputs=tuple(_inputs(context)),
        override=holding(context),
        problems=tuple((p.source.value, p.kind.value, p.message) for p in context.problems),
        forecast=_forecast_view(context),
        steps=_steps(decision.steps),
        binding=_binding(decision),
        alternatives=tuple(alternatives(context, decision)),
        thresholds=tuple(thresholds(context, decision)),
        aftermath=_aftermath(context, decision, later),
    )


def order_span(context: ScalingContext) -> tuple[datetime, datetime]:
    """When a replica ordered by this decision is what counts."""
    order = context.forecast.window("order") if context.forecast else None
    if order is not None:
        return order.starts_at, order.ends_at
    ready_at = context.now + timedelta(seconds=context.lead_time.p95_seconds)
    return ready_at, ready_at + timedelta(seconds=context.interval_seconds + 60)


def _inputs(context: ScalingContext) -> Iterator[Input]:
    seen, replicas = context.observation, context.replicas
    age = (context.now - seen.at).total_seconds()
    doubted = seen.demand_qps is not None and context.demand_qps is None
    source = "metrics, not trusted" if doubted else "metrics"
    yield Input("demand", seen.demand_qps, "requests/s", source, age)
    for name, value, unit in (
        ("requests running", seen.requests_running, ""),
        ("requests waiting", seen.requests_waiting, ""),
        ("KV cache in use", seen.kv_cache_usage_ratio, "of 1"),
        ("P99 latency", seen.latency_p99_seconds, "s"),
        ("errors", seen.errors_qps, "requests/s"),
    ):
        yield Input(name, value, unit, "metrics", None if value is None else age)
    yield Input("replicas asked for", replicas.spec, "", "target", 0.0)
    yield Input("replicas ready", replicas.ready, "", "target", 0.0)
    note = f"target{_expected(replicas.starting, context.now)}"
    yield Input("replicas starting", len(replicas.starting), "", note, 0.0)
    yield Input("replicas draining", replicas.draining, "", "target", 0.0)
    capacity, lead = context.capacity, context.lead_time
    yield Input("capacity of a replica", capacity.qps_per_replica, "requests/s", capacity.source)
    yield Input("lead time, median", lead.p50_seconds, "s", lead.source)
    yield Input("lead time, 95 %", lead.p95_seconds, "s", lead.source)
    yield Input("metric lag", lead.metric_lag_seconds, "s", lead.source)
    yield Input("past decisions looked at", len(context.recent), "", "decision log")


def _expected(starting: Sequence[datetime], now: datetime) -> str:
    """When the first and the last of those that start are to be ready."""
    if not starting:
        return ""
    first, last = ((at - now).total_seconds() for at in (min(starting), max(starting)))
    if first == last:
        return f"; expected in {first:.0f} s"
    return f"; the first expected in {first:.0f} s, the last in {last:.0f} s"


def _forecast_view(context: ScalingContext) -> ForecastView | None:
    forecast, now = context.forecast, context.now
    if forecast is None:
        return None
    return ForecastView(
        model=forecast.model,
        fitted_age_seconds=(now - forecast.fitted_at).total_seconds(),
        history_age_seconds=(now - forecast.history_end).total_seconds(),
        skill=forecast.skill,
        trusted=forecast.trusted,
        failures=forecast.failures,
        windows=tuple(_window_view(context, window) for window in forecast.windows),
        calibration=forecast.calibration,
    )


def _window_view(context: ScalingContext, window: WindowForecast) -> WindowView:
    margin = margin_of(context)
    return WindowView(
        name=window.name,
        starts_in_seconds=(window.starts_at - context.now).total_seconds(),
        ends_in_seconds=(window.ends_at - context.now).total_seconds(),
        median_qps=window.median_qps,
        scale=window.scale,
        margin=margin,
        ordered_qps=window.upper(margin),
        quantiles=tuple((point.level, point.qps) for point in window.quantiles),
        floor_qps=window.floor_qps,
        floor_scale=window.floor_scale,
        floor_reason=window.floor_reason,
    )


def _steps(steps: tuple[Step, ...]) -> tuple[StepView, ...]:
    before = (None, *(step.replicas for step in steps))
    return tuple(
        StepView(step.rule, was, step.replicas, step.reason.value, step.message)
        for was, step in zip(before, steps, strict=False)
    )


def _binding(decision: Decision) -> str:
    """Which rule had the last word, and over which one."""
    last = decision.steps[-1]
    text = f"{last.rule} ({last.reason.value}): {last.message}"
    if len(decision.steps) == 1:
        return text
    before = decision.steps[-2]
    verb = "raised" if last.replicas > before.replicas else "cut"
    return f"{text}; it {verb} {before.replicas} to {last.replicas}"


def _aftermath(context: ScalingContext, decision: Decision, later: Timeline) -> Aftermath:
    since, until = order_span(context)
    lag = timedelta(seconds=context.lead_time.metric_lag_seconds)
    # What was seen at a moment is what came one metric lag before it.
    span = later.between(since + lag, until + lag)
    reached = len(later) > 0 and later.time[-1] >= (until + lag).timestamp() - 1
    came = _highest(span.demand_qps) if reached else None
    forecast = context.forecast
    order = forecast.window("order") if forecast else None
    needed = None if came is None else replicas_at(came, context.capacity.qps_per_replica)
    return Aftermath(
        since=since,
        until=until,
        demand_qps=came,
        forecast_error_ratio=(order.median_qps / came - 1 if order is not None and came else None),
        within_order=(
            came <= order.upper(margin_of(context))
            if order is not None and came is not None and forecast is not None and forecast.trusted
            else None
        ),
        needed_replicas=needed,
        spare_replicas=None if needed is None else decision.desired - needed,
        ready_replicas=float(span.ready.min()) if reached and len(span) else None,
        latency_p99_seconds=_highest(span.latency_p99_seconds) if reached else None,
        next_change=_next_change(decision, later),
    )


def _highest(column: Floats) -> float | None:
    known = column[np.isfinite(column)]
    return float(known.max()) if len(known) else None


def _next_change(decision: Decision, later: Timeline) -> tuple[datetime, int] | None:
    others = np.flatnonzero(np.round(later.desired) != decision.desired)
    if not len(others):
        return None
    first = int(others[0])
    return later.at(first), round(float(later.desired[first]))
