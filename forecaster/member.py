"""Member: what a model of a combination is, and how it is asked.

Knows the questions only. A member says where the highest log rate of a window will lie; how wide
its error is, is learned elsewhere from what it said before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from forecaster.demand import Demand, Ints
from forecaster.forecast import Parameters, Window
from forecaster.history import Floats


class Member(Protocol):
    """A pure function of history, calendar and windows."""

    @property
    def name(self) -> str: ...

    def fit(self, demand: Demand, windows: Sequence[Window]) -> Parameters:
        """Plain numbers; raises ForecastError where the history does not carry the model."""
        ...

    def locate(
        self,
        parameters: Parameters,
        demand: Demand,
        windows: Sequence[Window],
        origins: Ints,
    ) -> Floats:
        """The log location of each window's peak as seen from each origin.

        Shape (origins, windows), NaN where the member has nothing to say. From an origin i only
        steps before i are known; `demand` may hold later ones, which must not be looked at. It
        may also start elsewhere than the demand that was fitted on.
        """
        ...
