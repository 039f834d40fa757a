"""The fluid engine: one closed form a second instead of requests.

With load x a pod and no backlog the step time is t0 / (1 - c x out); beyond saturation a backlog
grows and every request waits for it; those that will not be served in time wait until they give
up. A request of length l takes wait + (l + 1/2) T. Latency quantiles come from the exact mixture
over seconds and output lengths. It knows a fleet's average speed and nothing else of single pods:
no hot spots, no bursts within a second. Every prompt counts as the mean one: where prompts of
thousands of tokens make the steps, the median comes out up to a fifth too low.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from forecaster.compiled import compiled
from forecaster.history import Floats
from simulator.engines.engine import NO_RETRIES, Minutes, Retries, Seconds
from simulator.pod import PodProfile
from simulator.traces.arrivals import poisson_counts

BELOW_SATURATION = 1 - 1e-9
STEP, WAIT, RUNNING, WAITING, FAILED, OVERDUE = range(6)
ROWS = 6
BISECTIONS = 16
"""Of the span of one group's latencies: a 65,000th of it is left."""


class FluidEngine:
    """Implements Engine. The same rates and seed give the same arrivals, whoever scales."""

    def __init__(
        self, profile: PodProfile, rates: Floats, seed: int = 0, retries: Retries = NO_RETRIES
    ) -> None:
        seconds = len(rates)
        self._profile = profile
        self._retries = retries
        self._clock = 0
        self._backlog = 0.0
        self._speeds: dict[int, float] = {}
        self._serving: set[int] = set()
        self._mean_speed: float | None = None
        self._last = -1
        self._arrivals = poisson_counts(rates, seed)
        self._pod = (
            profile.t0_seconds,
            profile.slope_seconds,
            profile.output_tokens,
            profile.full_step_seconds,
            float(profile.batch),
            profile.saturation_qps,
            profile.timeout_seconds,
            math.inf if profile.max_waiting is None else float(profile.max_waiting),
            retries.ratio,
        )
        self._p99_length = profile.length_at(0.99)
        self._latest_again = math.ceil(profile.timeout_seconds) + retries.delay_seconds
        self._again = np.zeros(seconds + self._latest_again)
        self._by_second = np.zeros((ROWS, seconds))
        self._step, self._wait, self._running, self._waiting, self._failed, _ = self._by_second

    def add(self, speed: float = 1.0) -> int:
        self._last += 1
        self._speeds[self._last] = speed
        self._serving.add(self._last)
        self._mean_speed = None
        return self._last

    def set_speed(self, pod: int, speed: float) -> None:
        self._speeds[pod] = speed
        self._mean_speed = None

    def drain(self, pod: int) -> None:
        self._serving.discard(pod)
        self._mean_speed = None

    def remove(self, pod: int) -> None:
        if pod in self._serving:
            self._lose_one_of(len(self._serving))
        self._serving.discard(pod)
        self._speeds.pop(pod, None)
        self._mean_speed = None

    def advance(self, seconds: int) -> None:
        start, end = self._clock, min(self._clock + seconds, len(self._arrivals))
        self._backlog = _serve(
            self._arrivals[start:end],
            self._again[start : end + self._latest_again],
            self._by_second,
            start,
            (float(len(self._serving)), self._speed(), self._backlog),
            self._pod,
        )
        self._clock = end

    def finish(self) -> None:
        """Nothing is under way: each second's requests are accounted for when it is served."""

    def arrivals(self, first: int, last: int) -> Floats:
        return self._arrivals[first : min(last, self._clock)]

    def offered(self, first: int, last: int) -> Floats:
        done = slice(first, min(last, self._clock))
        return np.asarray(self._arrivals[done] + self._again[done], dtype=np.float64)

    def seen(self, first: int, last: int) -> Seconds:
        done = slice(first, min(last, self._clock))
        return Seconds(
            self._arrivals[done],
            self._running[done],
            self._waiting[done],
            self._latency_of(self._p99_length, done),
        )

    def minutes(self, slo_seconds: float) -> Minutes:
        minutes = self._clock // 60
        whole = slice(0, minutes * 60)
        shape = (minutes, 60)
        late = self._served[whole] * self._share_slower(np.full(minutes * 60, slo_seconds))
        groups = np.arange(minutes * 60) // 60
        return Minutes(
            requests=self.offered(0, minutes * 60).reshape(shape).sum(axis=1),
            late=late.reshape(shape).sum(axis=1),
            failed=self._failed[whole].reshape(shape).sum(axis=1),
            p99=self._quantile_by(groups, 0.99),
        )

    def quantiles(self, levels: tuple[float, ...]) -> tuple[float, ...]:
        everything = np.zeros(self._clock, dtype=np.int64)
        return tuple(float(self._quantile_by(everything, level)[0]) for level in levels)

    def slower_shares(self, seconds: Floats) -> Floats:
        total = max(float(self._served.sum()), 1.0)
        shares = [
            float((self._served * self._share_slower(np.full(self._clock, edge))).sum()) / total
            for edge in seconds.tolist()
        ]
        return np.array(shares)

    @property
    def _served(self) -> Floats:
        return np.maximum(self.offered(0, self._clock) - self._failed[: self._clock], 0.0)

    def _lose_one_of(self, pods: int) -> None:
        """What one of the serving pods has under way is lost, the newest requests first."""
        second = self._clock - 1
        if second < 0:
            return
        self._backlog -= self._backlog / pods
        lost = left = (self._running[second] + self._waiting[second]) / pods
        served = self._served
        while left > 0 and second >= 0:
            share = min(left, served[second])
            self._failed[second] += share
            left -= share
            second -= 1
        self._again[self._clock + self._retries.delay_seconds - 1] += self._retries.ratio * lost

    def _speed(self) -> float:
        """The mean over the pods that take requests: how many times as long their steps take."""
        if self._mean_speed is None:
            speeds = [self._speeds[pod] for pod in self._serving]
            self._mean_speed = sum(speeds) / len(speeds) if speeds else 1.0
        return self._mean_speed

    def _quantile_by(self, groups: npt.NDArray[np.int64], level: float) -> Floats:
        """Latency at a level for each group of seconds: bisection on the mixture's distribution,
        for all groups at once. It lies between the lowest and the highest of its seconds' own."""
        served = self._served[: len(groups)]
        weights = np.bincount(groups, served)
        own = self._latency_of(self._profile.length_at(level), slice(0, len(groups)))
        low, high = np.full(len(weights), np.inf), np.zeros(len(weights))
        np.minimum.at(low, groups, own)
        np.maximum.at(high, groups, own)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            slower = np.bincount(groups, served * self._share_slower(middle[groups]))
            over = slower > (1 - level) * weights
            low, high = np.where(over, middle, low), np.where(over, high, middle)
        return np.where(weights > 0, high, np.nan)

    def _latency_of(self, length: int, seconds: slice) -> Floats:
        """Latency of requests of one length that come in each of the seconds."""
        service = (length + 0.5) * self._step[seconds] + self._profile.front_end_seconds
        return np.asarray(self._wait[seconds] + service, dtype=np.float64)

    def _share_slower(self, seconds: Floats) -> Floats:
        """Share of each second's requests slower than that second's figure."""
        profile, done = self._profile, slice(0, len(seconds))
        shares = np.empty(len(seconds))
        wait, step = self._wait[done], self._step[done]
        _shares_slower(seconds, wait, step, profile.front_end_seconds, profile.length_cdf, shares)
        return shares


@compiled
def still_waiting(overdue: Floats, newest: int, spans: float) -> float:
    """Requests that came in the newest so many places and have not given up yet."""
    total = 0.0
    for back in range(min(math.ceil(spans), newest + 1)):
        total += min(1.0, spans - back) * overdue[newest - back]
    return total


@compiled
def _serve(
    arrivals: Floats,
    again: Floats,
    seconds: Floats,
    first: int,
    fleet: tuple[float, float, float],
    pod: tuple[float, ...],
) -> float:
    """Serve a run of seconds from `first` on; returns the backlog after it.

    `again` holds what is sent again in each of the seconds and in those of the timeout and the
    delay after them; `fleet` is the number of pods, their mean speed and the backlog.
    """
    pods, speed, backlog = fleet
    t0, slope, tokens, full_step, sequences, saturation, timeout, most_waiting, ratio = pod
    timed_out = len(again) - len(arrivals)
    shed = timed_out - math.ceil(timeout)
    ceiling = saturation * pods / speed
    room = min(ceiling * timeout, most_waiting * pods) if pods else 0.0
    # In a second: so many find a place to wait in although they will not be served in time.
    hopeful = (most_waiting * pods - room) / timeout if pods else 0.0
    for i in range(len(arrivals)):
        offered = arrivals[i] + again[i]
        at = first + i
        if backlog == 0.0 and offered < ceiling * BELOW_SATURATION:
            # A pod that is slower by a factor is one whose time runs slower by it.
            step = speed * (t0 / (1 - slope * (offered / pods * speed) * tokens))
            seconds[STEP, at] = step
            seconds[RUNNING, at] = offered * tokens * step
            continue
        left = max(0.0, backlog + offered - ceiling)
        dropped = max(0.0, left - room)
        before, backlog = backlog, left - dropped
        seconds[STEP, at] = full_step * speed
        seconds[WAIT, at] = (before + backlog) / 2 / ceiling if pods else 0.0
        seconds[RUNNING, at] = sequences * pods
        seconds[OVERDUE, at] = dropped if pods else 0.0
        waiting = backlog + still_waiting(seconds[OVERDUE], at, timeout)
        seconds[WAITING, at] = min(waiting, most_waiting * pods) if pods else 0.0
        seconds[FAILED, at] = dropped
        waits = min(dropped, hopeful)
        again[i + shed] += ratio * (dropped - waits)
        again[i + timed_out] += ratio * waits
    return backlog


@compiled
def _shares_slower(
    limits: Floats, wait: Floats, step: Floats, front_end: float, length_cdf: Floats, shares: Floats
) -> None:
    """The share of each second's requests that takes longer than its limit."""
    for i in range(len(limits)):
        spare = limits[i] - wait[i] - front_end
        longest = math.floor(spare / max(step[i], 1e-12) - 0.5)
        shares[i] = 1.0
        if longest >= 0:
            shares[i] = 1.0 - length_cdf[min(longest, len(length_cdf) - 1)]
