"""What an engine is: pods in, seconds of traffic in, latencies out.

An engine is made for a run of seconds with their mean rates; the fleet tells it which pods serve
and when to go on. All engines give the same measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from forecaster.history import Floats


@dataclass(frozen=True, slots=True)
class Retries:
    """Of the requests that time out, are shed or are lost with their pod, the share `ratio` is sent
    again, `delay_seconds` later; each counts as one more request. Raises ValueError where a figure
    makes no sense.
    """

    ratio: float = 0.0
    delay_seconds: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1 or self.delay_seconds < 1:
            raise ValueError("retries need a ratio from 0 to 1 and a delay of at least a second")


NO_RETRIES = Retries()


@dataclass(frozen=True, slots=True, eq=False)
class Seconds:
    """What scrapes can see of a run of seconds, equally long; P99 in seconds, NaN if unknown."""

    arrivals: Floats
    running: Floats
    waiting: Floats
    p99: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Minutes:
    """What became of the requests that arrived in each whole minute, equally long.

    `late` counts served requests slower than the objective; `failed` those that timed out, were
    shed or were lost with their pod. `p99` is NaN in a minute without served requests.
    """

    requests: Floats
    late: Floats
    failed: Floats
    p99: Floats


class Engine(Protocol):
    """Serves traffic on pods. Pods are named by the numbers that `add` gives."""

    def add(self, speed: float = 1.0) -> int:
        """A pod that serves from now on; its steps take `speed` times as long as the profile's."""
        ...

    def set_speed(self, pod: int, speed: float) -> None: ...

    def drain(self, pod: int) -> None:
        """No new requests for this pod; it goes on with those that it has."""
        ...

    def remove(self, pod: int) -> None:
        """The pod is gone, and with it what it had not finished."""
        ...

    def advance(self, seconds: int) -> None:
        """Serve the next seconds of the traffic that the engine was made for."""
        ...

    def finish(self) -> None:
        """No more traffic: account for every request that is still under way."""
        ...

    def arrivals(self, first: int, last: int) -> Floats:
        """Fresh requests in each of the seconds [first, last) that are served already."""
        ...

    def offered(self, first: int, last: int) -> Floats:
        """The same with those that are sent again: what a gateway counts."""
        ...

    def seen(self, first: int, last: int) -> Seconds:
        """The seconds [first, last) that are served already."""
        ...

    def minutes(self, slo_seconds: float) -> Minutes: ...

    def slower_shares(self, seconds: Floats) -> Floats:
        """Share of all served requests that took longer than each of these times."""
        ...

    def quantiles(self, levels: tuple[float, ...]) -> tuple[float, ...]:
        """Latency of all served requests at each level, in seconds."""
        ...
