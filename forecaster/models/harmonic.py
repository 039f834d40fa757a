"""Harmonic regression on log demand with autoregressive errors.

Knows daily and weekly cycles of the local clock. Robust regression (Huber) finds them, so that an
outage in the history bends them little; an autoregression carries the present deviation on.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecaster import cycle
from forecaster.calendar import DAY_SECONDS, WEEK_SECONDS, fourier
from forecaster.cycle import LocalMeans, autoregression, local_means
from forecaster.demand import Demand, Ints
from forecaster.forecast import ForecastError, Parameters, Window
from forecaster.history import Floats

SLOT_SECONDS = 300
TRAIN_SECONDS = 900
"""The fastest wave takes two hours: nothing is lost by a coarser grid, and much time is saved."""
DAILY_HARMONICS = 12
WEEKLY_HARMONICS = 24
MIN_DAYS = 2.0
MIN_DAYS_FOR_WEEK = 14.0
PASSES = 4


@dataclass(frozen=True, slots=True)
class Harmonic:
    @property
    def name(self) -> str:
        return "harmonic"

    def fit(self, demand: Demand, windows: Sequence[Window]) -> Parameters:  # noqa: ARG002
        """Parameters: `profile`, the log rate by slot of the local week; `lags`, weights of the
        newest deviations from it. Raises ForecastError below two days of known history."""
        days = float(np.isfinite(demand.logs).sum()) / demand.steps_per_day
        if days < MIN_DAYS:
            raise ForecastError(
                f"{self.name}: needs {MIN_DAYS:g} days of known history, has {days:.1f}"
            )
        weekly = days >= MIN_DAYS_FOR_WEEK
        fine = local_means(demand, SLOT_SECONDS)
        coarse = local_means(demand, TRAIN_SECONDS)
        weights = _regressed(coarse, weekly)
        a_week = np.arange(fine.a_week, dtype=np.int64)
        profile = _design(a_week, fine.seconds, weekly) @ weights
        deviations = fine.values - profile[fine.slots % fine.a_week]
        return {"profile": profile.tolist(), "lags": autoregression(deviations).tolist()}

    def locate(
        self, parameters: Parameters, demand: Demand, windows: Sequence[Window], origins: Ints
    ) -> Floats:
        return cycle.locate(parameters, demand, windows, origins)


def _regressed(means: LocalMeans, weekly: bool) -> Floats:
    # Imported here: it takes a second, and only far windows ask this model.
    from statsmodels.robust.norms import HuberT  # noqa: PLC0415
    from statsmodels.robust.robust_linear_model import RLM  # noqa: PLC0415

    known = np.isfinite(means.values)
    design = _design(means.slots[known], means.seconds, weekly)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a few reweighted passes are enough by intent
        fit = RLM(means.values[known], design, M=HuberT()).fit(maxiter=PASSES)
    return np.asarray(fit.params, dtype=np.float64)


def _design(slots: Ints, seconds: int, weekly: bool) -> Floats:
    """Waves at the middle of each slot."""
    middles = slots * seconds + seconds // 2
    blocks = [
        np.ones((len(slots), 1)),
        fourier(middles, DAY_SECONDS, np.arange(1, DAILY_HARMONICS + 1)),
    ]
    if weekly:
        harmonics = np.arange(1, WEEKLY_HARMONICS + 1)
        blocks.append(fourier(middles, WEEK_SECONDS, harmonics[harmonics % 7 != 0]))
    return np.hstack(blocks)
