"""Latency histogram: logarithmic buckets read off the bits of a float32, split at the objective.

The exponent and the top seven bits of the mantissa are the bucket: 128 buckets an octave, so a
bucket is at most 0.8 % wide. One more edge lies at the objective itself, so that late requests
are counted exactly. Latencies are integer ticks of 1.024 microseconds. What lies beyond the last
edge (about 18 minutes) is counted in the last bucket.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from forecaster.compiled import compiled
from forecaster.history import Floats

TICK_SECONDS = 1.024e-6
OCTAVES = 30
PER_OCTAVE = 128
BEYOND = OCTAVES * PER_OCTAVE
# One bucket more for the edge at the objective, one for what lies beyond the last edge.
WIDTH = BEYOND + 2

Counts = npt.NDArray[np.int64]

_ONE_BITS = np.uint32(0x3F800000 >> 16)
_SHIFT = np.uint32(16)
_LEAST = np.uint32(1)
_BEYOND = np.uint32(BEYOND)


def ticks_of(seconds: float) -> int:
    """The nearest whole number of ticks."""
    return round(seconds / TICK_SECONDS)


@compiled
def bucket_of(latency: np.uint32, objective: np.uint32) -> np.uint32:
    """The bucket of a latency in ticks; clamped, so that no latency writes past the counters."""
    bits = np.float32(max(latency, _LEAST)).view(np.uint32)
    octave = np.uint32(np.uint32(bits >> _SHIFT) - _ONE_BITS)
    return np.uint32(min(octave, _BEYOND) + np.uint32(latency > objective))


def edges(objective_ticks: int) -> Floats:
    """Edges in ticks of all buckets but the last, which has no upper one."""
    steps = np.arange(BEYOND + 1)
    plain = 2.0 ** (steps // PER_OCTAVE) * (1 + steps % PER_OCTAVE / PER_OCTAVE)
    # Ticks are whole and the late ones are those above the objective.
    split = objective_ticks + 0.5
    return np.insert(plain, int(np.searchsorted(plain, split)), split)


def late_count(counts: Counts, objective_ticks: int) -> int:
    """Requests slower than the objective, exactly."""
    first = int(bucket_of(np.uint32(objective_ticks), np.uint32(objective_ticks))) + 1
    return int(counts[first:].sum())


def quantile(counts: Counts, level: float, objective_ticks: int) -> float:
    """Latency in seconds at a level, interpolated inside its bucket; NaN without requests."""
    total = int(counts.sum())
    if total == 0:
        return float("nan")
    limits = edges(objective_ticks)
    below = np.concatenate([[0], np.cumsum(counts)])
    wanted = level * total
    bucket = min(int(np.searchsorted(below, wanted, side="left")) - 1, WIDTH - 2)
    bucket = max(bucket, 0)
    inside = (wanted - below[bucket]) / max(1, counts[bucket])
    low, high = limits[bucket], limits[bucket + 1]
    return float((low + min(1.0, inside) * (high - low)) * TICK_SECONDS)
