"""PHPA's Holt-Winters: additive trend and season with fixed smoothing, one step ahead.

Source: jthomperoo/predictive-horizontal-pod-autoscaler c91d060 (2023-07-01), which runs
statsmodels' ExponentialSmoothing with optimized=False. A day of its 15 s samples would be a season
of 5,760; here a sample is the mean of five minutes, and samples are loads in the order of time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from statsmodels.tsa.holtwinters import ExponentialSmoothing

from forecaster.calendar import DAY_SECONDS
from forecaster.demand import Demand, Ints
from forecaster.forecast import ForecastError, Parameters, Window
from forecaster.history import Floats
from forecaster.models.peers.blocks import Blocks, blocks_of, logs_of, spread

STORED_SEASONS = 4


@dataclass(frozen=True, slots=True)
class Initial:
    """The states that the recursions start from."""

    level: float
    trend: float
    seasons: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class HoltWinters:
    """`alpha` smooths the level, `beta` the trend, `gamma` the season.

    PHPA's users choose them; these do well on measured traffic (0.9 throughout does not settle).
    """

    alpha: float = 0.9
    beta: float = 0.01
    gamma: float = 0.05
    sample_seconds: int = 300

    @property
    def name(self) -> str:
        return "phpa_holt_winters"

    def fit(self, demand: Demand, windows: Sequence[Window]) -> Parameters:  # noqa: ARG002
        """Nothing to learn; raises ForecastError below two seasons of samples."""
        blocks = blocks_of(demand, self.sample_seconds)
        least = _least(self._season(demand))
        if len(blocks.means) < least:
            raise ForecastError(
                f"{self.name}: needs {least} samples of {blocks.size * demand.step_seconds} s, "
                f"has {len(blocks.means)}"
            )
        return {}

    def locate(
        self,
        parameters: Parameters,  # noqa: ARG002
        demand: Demand,
        windows: Sequence[Window],
        origins: Ints,
    ) -> Floats:
        """From the newest whole days that are stored, and what has come since."""
        season, blocks = self._season(demand), blocks_of(demand, self.sample_seconds)
        complete = blocks.complete(origins)
        starts = _starts(demand, blocks, complete, season)
        column = np.full(len(origins), np.nan)
        for start in np.unique(starts[starts >= 0]):
            rows = starts == start
            samples = _carried(blocks.means[start : int(complete[rows].max())])
            ahead = self.one_step_ahead(samples, season)
            column[rows] = logs_of(ahead[complete[rows] - 1 - start], demand)
        return spread(column, len(windows))

    def one_step_ahead(self, samples: Floats, season: int) -> Floats:
        """The forecast after each sample; the states start as statsmodels estimates them from the
        first two seasons, so that no sample is used before its time."""
        start = initial(samples[: _least(season)].tobytes(), season)
        level, trend, seasons = start.level, start.trend, list(start.seasons)
        ahead = np.empty(len(samples))
        for place, seen in enumerate(samples.tolist()):
            phase, expected = place % season, level + trend
            before = level
            level = self.alpha * (seen - seasons[phase]) + (1 - self.alpha) * expected
            trend = self.beta * (level - before) + (1 - self.beta) * trend
            seasons[phase] += self.gamma * (seen - expected - seasons[phase])
            ahead[place] = level + trend + seasons[(place + 1) % season]
        return ahead

    def _season(self, demand: Demand) -> int:
        size = max(1, self.sample_seconds // demand.step_seconds)
        return DAY_SECONDS // (size * demand.step_seconds)


@lru_cache(maxsize=64)
def initial(samples: bytes, season: int) -> Initial:
    """The states before the first sample, as statsmodels estimates them from these.

    A function of its arguments alone; it is asked the same for a day.
    """
    model = ExponentialSmoothing(
        np.frombuffer(samples),
        trend="add",
        seasonal="add",
        seasonal_periods=season,
        initialization_method="estimated",
    )
    fit = model.fit(
        smoothing_level=0.5, smoothing_trend=0.5, smoothing_seasonal=0.5, optimized=False
    )
    found = fit.params
    return Initial(
        float(found["initial_level"]),
        float(found["initial_trend"]),
        tuple(float(value) for value in found["initial_seasons"]),
    )


def _starts(demand: Demand, blocks: Blocks, complete: Ints, season: int) -> Ints:
    """The block that the recursions start from, by origin: a midnight, so that it stays the same
    all day however far back the history reaches. Negative where there are too few blocks."""
    least = _least(season)
    if len(blocks.means) < least:
        return np.full(len(complete), -1, dtype=np.int64)
    newest = np.maximum(complete - 1, 0)
    clock = demand.local[blocks.first + newest * blocks.size] % DAY_SECONDS
    midnight = newest - clock // (blocks.size * demand.step_seconds)
    starts = np.maximum(midnight - STORED_SEASONS * season, midnight % season)
    starts = np.where(complete - starts < least, 0, starts)
    return np.asarray(np.where(complete < least, -1, starts), dtype=np.int64)


def _least(season: int) -> int:
    return max(2 * season, 10 + 2 * (season // 2))


def _carried(values: Floats) -> Floats:
    """Gaps as the last value known before them; those at the beginning as the first."""
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return np.zeros(len(values))
    last = np.searchsorted(known, np.arange(len(values)), side="right") - 1
    return np.asarray(values[known[np.maximum(last, 0)]], dtype=np.float64)
