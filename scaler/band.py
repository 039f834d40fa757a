"""Band: a forecast as people see it, for what a replica ordered now would serve.

Knows which figures logs, metrics and screens show of a forecast. Knows none of these.
"""

from __future__ import annotations

from dataclasses import dataclass

from forecaster.calibration import LOWEST_LEVEL
from policies.context import ScalingContext
from policies.predictive import margin_of


@dataclass(frozen=True, slots=True)
class Band:
    """Requests a second: a low quantile, the median, and the rate that capacity is ordered for."""

    low_qps: float
    median_qps: float
    high_qps: float


def forecast_band(context: ScalingContext) -> Band | None:
    """Of the order window; None where nothing is forecast for it."""
    order = context.forecast.window("order") if context.forecast else None
    if order is None:
        return None
    median = order.median_qps
    low = order.at_level(LOWEST_LEVEL) if order.quantiles else median
    return Band(low, median, order.upper(margin_of(context)))
