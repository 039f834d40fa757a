"""Our policy: order one cold start ahead, hold what the forecast still needs, and never ask for
less than the demand that is already there.

Knows the two windows of a scaling decision. A replica ordered now serves from now + lead on, so
the order looks at [now + lead, now + lead + one decision]; a replica deleted now is missing until
a new one could be there, so the hold looks at [now, now + lead + one decision].
"""

from __future__ import annotations

from datetime import timedelta

from policies.capacity import backlog_qps, replicas_for
from policies.context import ScalingContext
from policies.decision import Reason, Step
from policies.proposal import held, raised_to

DEFAULT_QUANTILE = 0.99
"""Level of the forecast that capacity is ordered for (`quantile`)."""
DEFAULT_HEADROOM = 1.15
"""Factor on observed demand while no forecast is trusted (`reactiveHeadroom`)."""
DEFAULT_LOOK_BACK_SECONDS = 300.0
"""While no forecast is trusted, the fleet holds what this window asked for (`lookBackSeconds`)."""


def propose(context: ScalingContext) -> tuple[Step, ...]:
    """Parameters: `quantile`, `reactiveHeadroom`, `lookBackSeconds`."""
    forecast = context.forecast
    windows = _forecast_windows(context) if forecast and forecast.trusted else None
    steps: tuple[Step, ...] = ()
    if windows is not None:
        steps = raised_to(steps, _order(context, windows[0]))
    steps = _raised_to_observed(context, steps, trusted=windows is not None)
    if not steps:
        return (held(context, "predictive", "no trusted demand and no trusted forecast"),)
    if windows is not None:
        return raised_to(steps, _hold(context, windows[1]))
    return raised_to(steps, _look_back(context))


def _forecast_windows(context: ScalingContext) -> tuple[float, float] | None:
    """Upper quantile of the peak rate over the order window and over the hold window."""
    forecast = context.forecast
    assert forecast is not None
    ready_at = context.now + timedelta(seconds=context.lead_time.p95_seconds)
    until = ready_at + timedelta(seconds=context.interval_seconds)
    level = context.settings.parameter("quantile", DEFAULT_QUANTILE)
    order = forecast.peak(level, ready_at, until)
    hold = forecast.peak(level, context.now, until)
    return (order, hold) if order is not None and hold is not None else None


def _order(context: ScalingContext, peak_qps: float) -> Step:
    level = context.settings.parameter("quantile", DEFAULT_QUANTILE)
    return Step(
        "order",
        replicas_for(peak_qps, context.capacity),
        Reason.FORECAST_PEAK,
        f"forecast (quantile {level:g}) peaks at {peak_qps:,.0f} requests/s in the decision after "
        f"the {context.lead_time.p95_seconds:g} s lead time",
    )


def _hold(context: ScalingContext, peak_qps: float) -> Step:
    needed = replicas_for(peak_qps, context.capacity)
    return Step(
        "hold",
        min(context.replicas.spec, needed),
        Reason.FORECAST_HOLD,
        f"forecast needs {needed} replicas for {peak_qps:,.0f} requests/s before a replica "
        f"deleted now could be back",
    )


def _raised_to_observed(
    context: ScalingContext, steps: tuple[Step, ...], trusted: bool
) -> tuple[Step, ...]:
    demand = context.demand_qps
    if demand is None:
        return steps
    headroom = 1.0 if trusted else context.settings.parameter("reactiveHeadroom", DEFAULT_HEADROOM)
    backlog = backlog_qps(context.observation.requests_waiting or 0.0, context.capacity)
    load = demand * headroom + backlog
    margin = "" if headroom == 1.0 else f" with {headroom:g} times headroom (forecast not trusted)"
    backlog_text = f" plus {backlog:,.0f} requests/s of backlog" if backlog else ""
    observed = Step(
        "reactive",
        replicas_for(load, context.capacity),
        Reason.BACKLOG if backlog > demand * 0.05 else Reason.OBSERVED_DEMAND,
        f"observed demand {demand:,.0f} requests/s{margin}{backlog_text}",
    )
    return raised_to(steps, observed)


def _look_back(context: ScalingContext) -> Step:
    seconds = context.settings.parameter("lookBackSeconds", DEFAULT_LOOK_BACK_SECONDS)
    oldest = context.now - timedelta(seconds=seconds)
    asked = [past.recommended for past in context.recent if past.at > oldest]
    return Step(
        "look_back",
        min(context.replicas.spec, max(asked, default=0)),
        Reason.SCALE_DOWN_STABILIZED,
        f"forecast not trusted: hold the most that the last {seconds:g} s asked for",
    )
