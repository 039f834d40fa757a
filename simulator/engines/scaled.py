"""The exact engine at a scale of 1 to k: a fleet of N pods, of which about N / k are simulated.

Whoever scales sees N pods and the whole traffic. Simulated are n = N / k pods, rounded, with the
share n / N of the traffic, so that the load of each is exact; what they measure counts N / n
times. Pods are told apart by their speed alone: each speed keeps its share of the simulated ones.
For sweeps and CI, never for the final verdict on a ramp that is short of pods, and never with
fewer than about FEWEST_PODS simulated, or where a speed's share rounds to nothing.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from forecaster.history import Floats
from simulator.engines.engine import Minutes, Seconds
from simulator.engines.exact_fleet import ExactFleetEngine

FEWEST_PODS = 10
"""With fewer pods simulated, one of them is too large a part of the fleet."""


class ScaledEngine:
    """Implements Engine. `rates` are those of the whole fleet, and `simulated` is made for them."""

    def __init__(self, simulated: ExactFleetEngine, rates: Floats, scale: int) -> None:
        self._simulated = simulated
        self._rates = rates
        self._scale = scale
        self._clock = 0
        self._last = -1
        self._speeds: dict[int, float] = {}
        self._stand_ins: dict[int, float] = {}
        self._leaving: dict[int, list[int]] = {}
        # A half, so that crashes are simulated neither early nor late on average.
        self._crashes = 0.5
        self._factor = np.full(len(rates), float(scale))

    def add(self, speed: float = 1.0) -> int:
        self._last += 1
        self._speeds[self._last] = speed
        self._match()
        return self._last

    def set_speed(self, pod: int, speed: float) -> None:
        if pod in self._speeds:
            self._speeds[pod] = speed
            self._match()

    def drain(self, pod: int) -> None:
        del self._speeds[pod]
        self._leaving[pod] = self._match()

    def remove(self, pod: int) -> None:
        """One in k crashes is simulated: it loses k times what one pod would."""
        if pod in self._leaving:
            for stand_in in self._leaving.pop(pod):
                self._simulated.remove(stand_in)
            return
        self._crashes += len(self._stand_ins) / len(self._speeds)
        speed = self._speeds.pop(pod)
        if self._crashes >= 1:
            self._crashes -= 1
            alike = [held for held, own in self._stand_ins.items() if own == speed]
            lost = (alike or list(self._stand_ins))[0]
            del self._stand_ins[lost]
            self._simulated.remove(lost)
        self._match()

    def advance(self, seconds: int) -> None:
        end = min(self._clock + seconds, len(self._rates))
        pods, simulated = (
            (len(self._speeds), len(self._stand_ins)) if self._speeds else (self._scale, 1)
        )
        self._factor[self._clock : end] = pods / simulated
        self._simulated.advance(end - self._clock, simulated / pods)
        self._clock = end

    def finish(self) -> None:
        self._simulated.finish()

    def arrivals(self, first: int, last: int) -> Floats:
        """With the noise of the whole fleet's traffic, not the wider one of its part."""
        counted = self._simulated.arrivals(first, last)
        factor, mean = self._span(self._factor, first, last), self._span(self._rates, first, last)
        return np.asarray(mean + (counted * factor - mean) / np.sqrt(factor), dtype=np.float64)

    def offered(self, first: int, last: int) -> Floats:
        simulated = self._simulated
        again = simulated.offered(first, last) - simulated.arrivals(first, last)
        factor = self._span(self._factor, first, last)
        return np.asarray(self.arrivals(first, last) + again * factor, dtype=np.float64)

    def seen(self, first: int, last: int) -> Seconds:
        seen, factor = self._simulated.seen(first, last), self._span(self._factor, first, last)
        return Seconds(
            self.arrivals(first, last), seen.running * factor, seen.waiting * factor, seen.p99
        )

    def minutes(self, slo_seconds: float) -> Minutes:
        counted = self._simulated.minutes(slo_seconds)
        weights = self._weights(len(counted.requests))
        return Minutes(
            requests=counted.requests * weights,
            late=counted.late * weights,
            failed=counted.failed * weights,
            p99=counted.p99,
        )

    def slower_shares(self, seconds: Floats) -> Floats:
        return self._simulated.slower_shares(seconds, self._weights(self._begun))

    def quantiles(self, levels: tuple[float, ...]) -> tuple[float, ...]:
        return self._simulated.quantiles(levels, self._weights(self._begun))

    @property
    def _begun(self) -> int:
        """Minutes begun."""
        return -(-self._clock // 60)

    def _span(self, by_second: Floats, first: int, last: int) -> Floats:
        return by_second[first : min(last, self._clock)]

    def _weights(self, minutes: int) -> Floats:
        """How many requests of the whole fleet one simulated in each minute stands for."""
        starts = np.arange(minutes) * 60
        whole = np.add.reduceat(self.offered(0, self._clock), starts) if minutes else np.zeros(0)
        part = self._simulated.offered(0, self._clock)
        counted = np.add.reduceat(part, starts) if minutes else np.zeros(0)
        weights = np.full(minutes, float(self._scale))
        np.divide(whole, counted, out=weights, where=counted > 0)
        return weights

    def _match(self) -> list[int]:
        """Make the simulated pods a picture of the fleet's; those that had to go, draining."""
        lacking = Counter(parts(Counter(self._speeds.values()), self._wanted))
        lacking.subtract(self._stand_ins.values())
        spare = [pod for pod, speed in self._stand_ins.items() if lacking[speed] < 0]
        gone: list[int] = []
        for pod in reversed(spare):
            old = self._stand_ins[pod]
            if lacking[old] >= 0:
                continue
            lacking[old] += 1
            new = next((speed for speed, count in lacking.items() if count > 0), None)
            if new is None:
                gone.append(pod)
                del self._stand_ins[pod]
                self._simulated.drain(pod)
            else:
                lacking[new] -= 1
                self._stand_ins[pod] = new
                self._simulated.set_speed(pod, new)
        for speed in lacking.elements():
            self._stand_ins[self._simulated.add(speed)] = speed
        return gone

    @property
    def _wanted(self) -> int:
        pods = len(self._speeds)
        return max(1, round(pods / self._scale)) if pods else 0


def parts(counts: Counter[float], total: int) -> dict[float, int]:
    """A total cut by these counts into whole parts, the largest remainders rounded up."""
    everything = max(1, counts.total())
    cut = {key: divmod(count * total, everything) for key, count in counts.items()}
    left = total - sum(whole for whole, _ in cut.values())
    order = sorted(cut, key=lambda key: (-cut[key][1], -counts[key], key))
    return {key: cut[key][0] + (key in order[:left]) for key in cut}
