"""Dynamo's predictors: the mean rate of the next planning interval, one step ahead.

Source: ai-dynamo/dynamo, planner core/load/predictors.py at 260b6ae. A gap is no observation here;
as shipped, what is not finite is recorded as no load. Its ARIMA and Prophet are left out: neither
is given a season there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecaster.demand import Demand, Ints
from forecaster.forecast import ForecastError, Parameters, Window
from forecaster.history import Floats
from forecaster.models.peers.blocks import Blocks, blocks_of, logs_of, spread

INTERVAL_SECONDS = 180
LEVEL_NOISE = 1.0
TREND_NOISE = 0.1
OBSERVATION_NOISE = 10.0
WARM_UP_BLOCKS = 150
"""The filter has forgotten what lies further back: each block keeps 0.76 of what was."""


@dataclass(frozen=True, slots=True)
class Constant:
    """The last whole interval again."""

    interval_seconds: int = INTERVAL_SECONDS

    @property
    def name(self) -> str:
        return "dynamo_constant"

    def fit(self, demand: Demand, windows: Sequence[Window]) -> Parameters:  # noqa: ARG002
        """Nothing to learn; raises ForecastError before the first whole interval."""
        _observed(self.name, blocks_of(demand, self.interval_seconds))
        return {}

    def locate(
        self,
        parameters: Parameters,  # noqa: ARG002
        demand: Demand,
        windows: Sequence[Window],
        origins: Ints,
    ) -> Floats:
        blocks = blocks_of(demand, self.interval_seconds)
        last = blocks.complete(origins) - 1
        padded = np.append(_carried(blocks.means), np.nan)
        return spread(logs_of(padded[last], demand), len(windows))


@dataclass(frozen=True, slots=True)
class Kalman:
    """A local linear trend: level' = level + trend, trend' = trend."""

    interval_seconds: int = INTERVAL_SECONDS

    @property
    def name(self) -> str:
        return "dynamo_kalman"

    def fit(self, demand: Demand, windows: Sequence[Window]) -> Parameters:  # noqa: ARG002
        """Nothing to learn; raises ForecastError before the first whole interval."""
        _observed(self.name, blocks_of(demand, self.interval_seconds))
        return {}

    def locate(
        self,
        parameters: Parameters,  # noqa: ARG002
        demand: Demand,
        windows: Sequence[Window],
        origins: Ints,
    ) -> Floats:
        if not len(origins):
            return np.empty((0, len(windows)))
        blocks = blocks_of(demand, self.interval_seconds)
        complete = blocks.complete(origins)
        first = max(0, int(complete.min()) - WARM_UP_BLOCKS)
        ahead = one_step_ahead(blocks.means[first : int(complete.max())].tolist())
        last = np.where(complete > first, complete - 1 - first, len(ahead))
        padded = np.append(np.array(ahead, dtype=np.float64), np.nan)
        return spread(logs_of(padded[last], demand), len(windows))


def one_step_ahead(values: Sequence[float]) -> list[float]:
    """The filter's forecast after each value, at least 0; NaN before the first value above 0.

    Without a value the state moves on by itself. The gains depend on the ratios of the noises
    only, so the unit of the values does not matter once it has run for a while.
    """
    ahead: list[float] = []
    level, trend = np.nan, 0.0
    var, cov, var_trend = 1.0, 0.0, 1.0
    for seen in values:
        known = seen == seen  # noqa: PLR0124  # NaN is what differs from itself
        if level != level:  # noqa: PLR0124
            level = seen if known and seen > 0 else np.nan
            ahead.append(level)
            continue
        level += trend
        var, cov = var + 2 * cov + var_trend + LEVEL_NOISE, cov + var_trend
        var_trend += TREND_NOISE
        if known:
            gain, gain_trend = var / (var + OBSERVATION_NOISE), cov / (var + OBSERVATION_NOISE)
            surprise = seen - level
            level, trend = level + gain * surprise, trend + gain_trend * surprise
            var_trend -= gain_trend * cov
            var, cov = (1 - gain) * var, (1 - gain) * cov
        ahead.append(max(0.0, level + trend))
    return ahead


def _carried(values: Floats) -> Floats:
    """Gaps as the last value known before them."""
    known = np.where(np.isfinite(values), np.arange(len(values)), 0)
    return np.asarray(values[np.maximum.accumulate(known)], dtype=np.float64)


def _observed(name: str, blocks: Blocks) -> None:
    if not np.isfinite(blocks.means).any():
        raise ForecastError(f"{name}: needs one whole interval of history")
