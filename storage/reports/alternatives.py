"""Alternatives: what would have changed a decision, found by deciding again.

Pure: a context and its decision in, answers out. One thing is changed at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from forecaster.forecast import WindowForecast
from policies.context import RateLimit, ScalingContext, ScalingRules, SelectPolicy
from policies.decision import Decision
from policies.engine import decide
from policies.guardrails import holding, paused
from policies.registry import POLICIES

UNBOUNDED = 1_000_000
"""Stands for maxReplicas where the question is what would be asked for without it."""
SEARCH_STEPS = 60


@dataclass(frozen=True, slots=True)
class Alternative:
    """What would have been asked for, had one thing been otherwise."""

    change: str
    desired: int
    difference: int
    reason: str


@dataclass(frozen=True, slots=True)
class Threshold:
    """How far one input would have had to be elsewhere for the number to be another.

    `value` is None where no value of that input would have done it.
    """

    question: str
    value: float | None
    actual: float
    unit: str


Change = Callable[[ScalingContext], ScalingContext]


def _with_parameter(name: str, value: float) -> Change:
    def changed(context: ScalingContext) -> ScalingContext:
        others = [(key, old) for key, old in context.settings.parameters if key != name]
        parameters = tuple(sorted([*others, (name, value)]))
        return replace(context, settings=replace(context.settings, parameters=parameters))

    return changed


def _with_rules(window: int | None = None, limits: tuple[RateLimit, ...] | None = None) -> Change:
    """Both directions without their stabilization, or without their limits."""

    def relaxed(rules: ScalingRules) -> ScalingRules:
        if window is not None:
            return replace(rules, stabilization_window_seconds=window)
        return replace(rules, limits=limits or (), select_policy=SelectPolicy.MAX)

    def changed(context: ScalingContext) -> ScalingContext:
        settings = context.settings
        up, down = relaxed(settings.scale_up), relaxed(settings.scale_down)
        return replace(context, settings=replace(settings, scale_up=up, scale_down=down))

    return changed


def _without_forecast(context: ScalingContext) -> ScalingContext:
    return replace(context, forecast=None)


def _trusting(context: ScalingContext) -> ScalingContext:
    return replace(context, problems=())


def _without_bounds(context: ScalingContext) -> ScalingContext:
    settings = replace(context.settings, min_replicas=0, max_replicas=UNBOUNDED)
    return replace(context, settings=settings)


def _without_override(context: ScalingContext) -> ScalingContext:
    return replace(context, override=None)


def _without_backlog(context: ScalingContext) -> ScalingContext:
    return replace(context, observation=replace(context.observation, requests_waiting=0.0))


def _without_hold(context: ScalingContext) -> ScalingContext:
    return _scaled_forecast(context, 0.0, ("hold",))


WITHOUT: Mapping[str, tuple[str, Change]] = MappingProxyType(
    {
        "hold": ("without the forecast for the time before the order", _without_hold),
        "look_back": ("without the look-back", _with_parameter("lookBackSeconds", 0.0)),
        "reactive": ("without the requests that waited", _without_backlog),
        "hold_on_doubt": ("with every input trusted", _trusting),
        "hold_on_collapse": ("without the hold on a collapse", _with_parameter("collapseRatio", 0)),
        "stabilize": ("without stabilization windows", _with_rules(window=0)),
        "limit_rate": ("without rate limits", _with_rules(limits=())),
        "override": ("without the override", _without_override),
        "bound": ("without minReplicas and maxReplicas", _without_bounds),
        "pause": ("without the pause", _without_override),
    }
)
"""How each rule is taken out of a context."""


def alternatives(context: ScalingContext, decision: Decision) -> Iterator[Alternative]:
    """One thing changed at a time; what could not have mattered is left out."""
    asked: list[tuple[str, Change]] = []
    if context.forecast is not None:
        asked.append(("without the forecast", _without_forecast))
        if "margin" in POLICIES[context.settings.policy].knobs:
            asked.append(("with no margin for its error", _with_parameter("margin", 0.0)))
    rules = dict.fromkeys(step.rule for step in decision.steps)
    if holding(context) is not None:
        # It leaves no step where it changed nothing, but who asks why wants to know of it.
        rules |= {"pause" if paused(context) else "override": None}
    asked += [WITHOUT[rule] for rule in rules if rule in WITHOUT]
    for text, change in asked:
        changed = change(context)
        if changed == context:
            continue
        again = decide(changed)
        difference = again.desired - decision.desired
        yield Alternative(text, again.desired, difference, again.reason.value)


def thresholds(context: ScalingContext, decision: Decision) -> Iterator[Threshold]:
    """Which demand, and which forecast, would have asked for one replica more."""
    wanted = decision.desired + 1
    demand = context.demand_qps
    if demand is not None:
        found = _least(
            lambda qps: decide(_with_demand(context, qps)).desired >= wanted,
            demand,
            max(demand, context.capacity.qps_per_replica),
        )
        yield Threshold("observed demand for one replica more", found, demand, "requests/s")
    order = context.forecast.window("order") if context.forecast else None
    if order is not None and order.median_qps > 0:
        factor = _least(
            lambda ratio: decide(_scaled_forecast(context, ratio)).desired >= wanted, 1.0, 1.0
        )
        value = None if factor is None else factor * order.median_qps
        text = "forecast median for one replica more"
        yield Threshold(text, value, order.median_qps, "requests/s")


def _with_demand(context: ScalingContext, qps: float) -> ScalingContext:
    return replace(context, observation=replace(context.observation, demand_qps=qps))


def _scaled_forecast(
    context: ScalingContext, ratio: float, names: tuple[str, ...] = ("order", "hold")
) -> ScalingContext:
    forecast = context.forecast
    assert forecast is not None
    windows = tuple(
        _scaled(window, ratio) if window.name in names else window for window in forecast.windows
    )
    return replace(context, forecast=replace(forecast, windows=windows))


def _scaled(window: WindowForecast, ratio: float) -> WindowForecast:
    return replace(
        window,
        median_qps=window.median_qps * ratio,
        floor_qps=window.floor_qps * ratio,
        quantiles=tuple(replace(point, qps=point.qps * ratio) for point in window.quantiles),
    )


def _least(enough: Callable[[float], bool], low: float, step: float) -> float | None:
    """The least value above `low` that is enough, by doubling and bisection; None where none is.

    Exact to a billionth of itself.
    """
    high = low + step
    while not enough(high):
        if high > low + step * 2**12:
            return None
        high = low + 2 * (high - low)
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
        if high - low <= high * 1e-9:
            break
    return high
