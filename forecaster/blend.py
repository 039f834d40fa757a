"""Blend: a fitted combination asked what it says from origins, in one compiled call.

Knows members, their weights and the scale's regression. Knows nothing of what came of what was
said. A step of the daemon or of a replay costs about as much as its calls into compiled code do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecaster.calibration import ScaleRegression, scales_from
from forecaster.compiled import as_python
from forecaster.demand import Demand, Ints
from forecaster.features import EDGE_FIGURES, Layout, features_from
from forecaster.forecast import Parameters, Window
from forecaster.history import Floats
from forecaster.member import Member
from forecaster.models.direct import Direct, located_from

NEGLIGIBLE = 1e-6
Learned = Sequence[tuple[Member, Parameters, Sequence[Window]]]
"""Each member with its parameters and the windows that it speaks of."""


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """What was said from each origin: the present log level, what past days' edges were (see
    `features.Seen`), the log location of each window and the regressed scale of those asked for."""

    level: Floats
    edges: Floats
    located: Floats
    scales: Floats


class Blend:
    """`weights` has shape (members, windows of the layout); members of no weight are not asked."""

    def __init__(
        self, layout: Layout, learned: Learned, weights: Floats, regression: ScaleRegression
    ) -> None:
        heard = [n for n in range(len(learned)) if weights[n].max() >= NEGLIGIBLE]
        asked = [(place, *learned[n]) for place, n in enumerate(heard)]
        self._layout, self._windows = layout, layout.windows
        self._weights = weights[heard]
        self._others = [each for each in asked if not isinstance(each[1], Direct)]
        self._direct = _stacked([each for each in asked if isinstance(each[1], Direct)], layout)
        self._regression = layout.scale_columns, *regression.figures

    def say(self, demand: Demand, origins: Ints) -> Words:
        rows, layout = len(origins), self._layout
        spoken = np.full((len(self._weights), rows, len(self._windows)), np.nan)
        for place, member, parameters, windows in self._others:
            places = [self._windows.index(window) for window in windows]
            spoken[place][:, places] = member.locate(parameters, demand, windows, origins)
        level, edges = np.empty(rows), np.empty((rows, EDGE_FIGURES))
        located = np.empty((rows, len(self._windows)))
        scales = np.empty((rows, len(self._regression[-1])))
        _say(
            (demand.logs, demand.local, demand.day_type, origins),
            (layout.shape, layout.lags, *layout.bounds),
            self._direct,
            self._weights,
            (layout.recent - 2, *self._regression),
            (np.empty((rows, layout.width)), spoken, level, edges, located, scales),
        )
        return Words(level, edges, located, scales)


def blended(said: Floats, weights: Floats) -> Floats:
    """Members' log locations, shape (members, origins, windows), averaged by their weights, shape
    (members, windows); where a member says nothing the others speak for it."""
    blend = np.empty(said.shape[1:])
    _blend(said, weights, blend)
    return blend


def _stacked(
    directs: Sequence[tuple[int, Member, Parameters, Sequence[Window]]], layout: Layout
) -> tuple[Ints, Floats, Floats, Floats, Floats, Floats]:
    """Place, `low`, `high`, `mean`, weights and intercept of each, of all windows: NaN is the
    intercept of those that it does not speak of."""
    places = np.array([place for place, *_ in directs], dtype=np.int64)
    shape = len(directs), len(layout.windows), layout.width
    weights, intercepts = np.zeros(shape), np.full(shape[:2], np.nan)
    columns = np.empty((3, shape[0], layout.width))
    for row, (_, _, parameters, windows) in enumerate(directs):
        spoken = [layout.windows.index(window) for window in windows]
        weights[row, spoken] = parameters["weights"]
        intercepts[row, spoken] = parameters["intercept"]
        columns[:, row] = [parameters[name] for name in ("low", "high", "mean")]
    low, high, mean = columns
    return places, low, high, mean, weights, intercepts


@as_python
def _say(demand, layout, direct, weights, regression, out):  # type: ignore[no-untyped-def]
    logs, local, day_type, origins = demand
    shape, lags, firsts, lasts = layout
    features, spoken, level, edges, located, scales = out
    features_from(
        logs, local, day_type, origins, shape, lags, firsts, lasts, level, features, edges
    )
    places, low, high, mean, member_weights, intercepts = direct
    for n in range(len(places)):
        located_from(
            features,
            level,
            low[n],
            high[n],
            mean[n],
            member_weights[n],
            intercepts[n],
            spoken[places[n]],
        )
    _blend(spoken, weights, located)
    recent, columns, scale_low, scale_high, scale_mean, spread, scale_weights = regression
    scales_from(
        features, columns, recent, scale_low, scale_high, scale_mean, spread, scale_weights, scales
    )


@as_python
def _blend(said, weights, out):  # type: ignore[no-untyped-def]
    for row in range(out.shape[0]):
        for window in range(out.shape[1]):
            total = 0.0
            share = 0.0
            for member in range(len(weights)):
                value = said[member, row, window]
                if value == value:
                    total += weights[member, window] * value
                    share += weights[member, window]
            out[row, window] = total / share if share > 0 else np.nan
