"""Random numbers by counter: every word is a pure function of (seed, stream, cell, index).

So any window of a run can be replayed, nothing depends on batch sizes, and two fleets under the
same seed see the same arrivals. The mixing function is the finaliser of splitmix64 (Steele, Lea
and Flood 2014). It knows nothing of pods or requests.
"""

from __future__ import annotations

import math

import numpy as np

from forecaster.compiled import compiled

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
ARRIVALS, ROUTES, LENGTHS, CLIENTS = (np.uint64(number) for number in range(1, 5))

_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_STREAM = np.uint64(0xD1342543DE82EF95)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_ONE = np.uint64(1)
_UNIT = 2.0**-53
# Below this mean a sequential search is cheaper than rejection, and rejection needs 10 or more.
_SMALL_MEAN = 12.0


@compiled
def mixed(word: np.uint64) -> np.uint64:
    """A word whose every bit depends on every bit of the input."""
    word = (word ^ (word >> _S30)) * _FIRST
    word = (word ^ (word >> _S27)) * _SECOND
    return word ^ (word >> _S31)


@compiled
def stream_key(seed: np.uint64, stream: np.uint64, cell: np.uint64) -> np.uint64:
    """Where the sequence of one cell (a slot, a pod) of one stream begins."""
    return mixed(mixed(seed + stream * _STREAM) + cell * GOLDEN)


@compiled
def uniform(key: np.uint64, index: np.uint64) -> float:
    """A float in [0, 1)."""
    return np.float64(mixed(key + (index + _ONE) * GOLDEN) >> _S11) * _UNIT


@compiled
def poisson(mean: float, key: np.uint64) -> int:
    """A Poisson count: sequential search, or transformed rejection (PTRS, Hormann 1993)."""
    if mean < _SMALL_MEAN:
        return _searched(mean, key)
    root = math.sqrt(mean)
    width = 0.931 + 2.53 * root
    shift = -0.059 + 0.02483 * width
    inverse_alpha = 1.1239 + 1.1328 / (width - 3.4)
    quick = 0.9277 - 3.6224 / (width - 2.0)
    index = np.uint64(0)
    while True:
        u = uniform(key, index) - 0.5
        v = uniform(key, index + _ONE)
        index += _ONE + _ONE
        near = 0.5 - abs(u)
        count = math.floor((2.0 * shift / near + width) * u + mean + 0.43)
        if near >= 0.07 and v <= quick:
            return int(count)
        if count < 0 or (near < 0.013 and v > near):
            continue
        left = math.log(v) + math.log(inverse_alpha) - math.log(shift / (near * near) + width)
        if left <= -mean + count * math.log(mean) - math.lgamma(count + 1.0):
            return int(count)


@compiled
def _searched(mean: float, key: np.uint64) -> int:
    u = uniform(key, np.uint64(0))
    probability = math.exp(-mean)
    below = probability
    count = 0
    # The second test ends the search where rounding keeps the sum below u.
    while u > below and count < 200:
        count += 1
        probability *= mean / count
        below += probability
    return count
