"""Blocks: rates on a coarser grid, as peers see them that look every few minutes only.

Knows grids and rates. Knows no peer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forecaster.demand import Demand, Ints
from forecaster.history import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """`means[b]` is the mean rate, in requests/s, of the steps from first + b * size on.

    A block of which less than half is known is NaN.
    """

    means: Floats
    first: int
    size: int

    def complete(self, origins: Ints) -> Ints:
        """How many blocks lie wholly before each origin."""
        whole = np.maximum(origins - self.first, 0) // self.size
        return np.asarray(np.minimum(whole, len(self.means)), dtype=np.int64)


def rates_of(demand: Demand) -> Floats:
    """Requests a second by step; NaN for a gap."""
    return np.asarray(np.maximum(np.exp(demand.logs) - demand.offset, 0.0), dtype=np.float64)


def logs_of(rates: Floats, demand: Demand) -> Floats:
    return np.asarray(np.log(np.maximum(rates, 0.0) + demand.offset), dtype=np.float64)


def blocks_of(demand: Demand, seconds: int) -> Blocks:
    """Blocks that begin at whole multiples of their length on the clock.

    They are as long as a whole number of steps allows, one step at least.
    """
    size = max(1, seconds // demand.step_seconds)
    if not len(demand):
        return Blocks(np.empty(0), 0, size)
    length = size * demand.step_seconds
    first = int(-demand.local[0] % length // demand.step_seconds)
    count = max(0, len(demand) - first) // size
    parts = rates_of(demand)[first : first + count * size].reshape(count, size)
    known = np.isfinite(parts).sum(axis=1)
    sums = np.where(np.isfinite(parts), parts, 0.0).sum(axis=1)
    means = np.where(2 * known >= size, sums / np.maximum(known, 1), np.nan)
    return Blocks(means, first, size)


def spread(column: Floats, count: int) -> Floats:
    """The same answer for each of the windows: the peer knows one only."""
    return np.repeat(column[:, None], count, axis=1)
