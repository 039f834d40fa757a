"""Our policy: order one cold start ahead, hold what the forecast still needs, and never ask for
less than the demand that is already there.

Knows the two windows of a scaling decision. A replica ordered now serves from now + lead on, so
the order looks at [now + lead, now + lead + one decision]; a replica deleted now is missing until
a new one could be there, so the hold looks at [now, now + lead + one decision].
"""

from __future__ import annotations

import math
from datetime import timedelta

from forecaster.forecast import UNANNOUNCED_RISE, Forecast, WindowForecast
from policies.capacity import desired, needed, rate_per_replica, replicas_at
from policies.context import ScalingContext
from policies.decision import Reason, Step
from policies.proposal import held, raised_to

DEFAULT_MARGIN = 4.0
"""Scales of forecast error that capacity is ordered for (`margin`)."""
UNTRUSTED_STEP = 0.05
"""While no forecast is trusted, observed demand is raised by this log for a unit of margin."""
MAX_UNTRUSTED_MARGIN = 8.0
DEFAULT_LOOK_BACK_SECONDS = 300.0
"""While no forecast is trusted, the fleet holds what this window asked for (`lookBackSeconds`)."""


def propose(context: ScalingContext) -> tuple[Step, ...]:
    """Parameters: `margin`, `lookBackSeconds`. The knob is `margin`; users set a target bad ratio
    instead, from which the margin is calibrated."""
    windows = _windows(context.forecast)
    if windows is not None:
        return _foreseen(context, *windows)
    return _unforeseen(context)


def look_back(context: ScalingContext, replicas: int) -> Step | None:
    """A guardrail: while no forecast is trusted, the fleet keeps the most that was asked for within
    the look-back. What it keeps was not asked for, so that it does not keep itself."""
    if _windows(context.forecast) is not None:
        return None
    seconds = context.settings.parameter("lookBackSeconds", DEFAULT_LOOK_BACK_SECONDS)
    oldest = context.now - timedelta(seconds=seconds)
    asked = [past.recommended for past in context.recent if past.at > oldest]
    kept = min(context.replicas.spec, max(asked, default=0))
    if kept <= replicas:
        return None
    text = f"no forecast is trusted: hold the most that the last {seconds:g} s asked for"
    return Step("look_back", kept, Reason.SCALE_DOWN_STABILIZED, text)


def margin_of(context: ScalingContext) -> float:
    """The user's own, else the one calibrated for the target bad ratio, else a usual one."""
    calibrated = context.forecast.calibration if context.forecast else None
    usual = DEFAULT_MARGIN if calibrated is None else calibrated.margin
    return context.settings.parameter("margin", usual)


def _windows(forecast: Forecast | None) -> tuple[WindowForecast, WindowForecast] | None:
    if forecast is None or not forecast.trusted:
        return None
    order, hold = forecast.window("order"), forecast.window("hold")
    return None if order is None or hold is None else (order, hold)


def _foreseen(
    context: ScalingContext, order: WindowForecast, hold: WindowForecast
) -> tuple[Step, ...]:
    margin = margin_of(context)
    rate = _rate(context, margin)
    steps = raised_to((), _order(order, margin, rate))
    observed = _observed(context)
    if observed is not None:
        steps = raised_to(steps, observed)
    held_back = hold.upper(margin)
    kept = replicas_at(held_back, rate)
    why = f" ({hold.floor_reason})" if hold.floor_upper(margin) >= held_back else ""
    step = Step(
        "hold",
        desired(steps[-1].replicas, kept, context.replicas.spec),
        Reason.FORECAST_HOLD,
        f"forecast needs {kept} replicas for {held_back:,.0f} requests/s{why} before a replica "
        f"deleted now could be back",
    )
    return raised_to(steps, step)


def _order(order: WindowForecast, margin: float, rate: float) -> Step:
    model, floor = order.model_upper(margin), order.floor_upper(margin)
    if floor > model:
        text = f"{order.floor_reason} asks for {floor:,.0f} requests/s"
        rises = order.floor_reason == UNANNOUNCED_RISE
        reason = Reason.UNANNOUNCED_RISE if rises else Reason.RECURRENT_EDGE
        return Step("order", replicas_at(floor, rate), reason, text)
    text = (
        f"forecast peaks at {order.median_qps:,.0f} requests/s once a replica ordered now serves; "
        f"with a margin of {margin:g} x {order.scale:.2%} that is {model:,.0f}"
    )
    return Step("order", replicas_at(model, rate), Reason.FORECAST_PEAK, text)


def _observed(context: ScalingContext) -> Step | None:
    """What is there already, whatever is forecast and whatever the margin: desired is never below
    it, so that a fleet is never left beyond saturation."""
    demand = context.demand_qps
    if demand is None:
        return None
    waiting = context.observation.requests_waiting or 0.0
    capacity = context.capacity
    load = needed(demand, waiting, capacity.saturation_ratio, capacity.backlog_seconds)
    backlog = waiting / capacity.backlog_seconds
    text = f" plus {backlog:,.0f} requests/s of backlog" if backlog else ""
    return Step(
        "reactive",
        replicas_at(load, capacity.qps_per_replica),
        Reason.BACKLOG if backlog > demand * 0.05 else Reason.OBSERVED_DEMAND,
        f"observed demand {demand:,.0f} requests/s{text}",
    )


def _unforeseen(context: ScalingContext) -> tuple[Step, ...]:
    """Observed demand with a margin, and what is spared whatever a model says: the bursts that it
    is there for are what a forecast loses its trust over."""
    demand = context.demand_qps
    if demand is None:
        return (held(context, "predictive", "no trusted demand and no trusted forecast"),)
    margin = min(max(margin_of(context), 0.0), MAX_UNTRUSTED_MARGIN)
    waiting = context.observation.requests_waiting or 0.0
    load = demand * math.exp(UNTRUSTED_STEP * margin) + waiting / context.capacity.backlog_seconds
    observed = Step(
        "reactive",
        replicas_at(load, context.capacity.qps_per_replica),
        Reason.OBSERVED_DEMAND,
        f"no forecast is trusted: observed demand {demand:,.0f} requests/s, with headroom and "
        f"backlog {load:,.0f}",
    )
    spared = _spared(context)
    return (observed,) if spared is None else raised_to((observed,), spared)


def _spared(context: ScalingContext) -> Step | None:
    windows = context.forecast.windows if context.forecast else ()
    spare = max((window.spare_qps for window in windows), default=0.0)
    if not spare or context.forecast is None or context.forecast.calibration is None:
        return None
    reason = context.forecast.calibration.spare.reason
    text = f"{spare:,.0f} requests/s are spared all the same: {reason}"
    replicas = replicas_at(spare, _rate(context, margin_of(context)))
    return Step("spare", replicas, Reason.RECURRENT_EDGE, text)


def _rate(context: ScalingContext, margin: float) -> float:
    capacity = context.capacity
    within = capacity.qps_per_replica
    return rate_per_replica(within, within * capacity.saturation_ratio, margin)
