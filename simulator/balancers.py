"""Balancers by name: how the requests of a second find their pods.

It knows names and parameters; how each one chooses is written in `simulator.engines.routing`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MOST_OUTSTANDING = (1 << 16) - 1
"""Requests that a gateway may be told to give a pod."""


class Balancing(StrEnum):
    """How a pod is chosen for a request."""

    P2C = "p2c"
    """The less loaded of two random pods, by counts that all clients share."""
    P2C_LOCAL = "p2c_local"
    """The same, by what each client itself has outstanding."""
    ROUND_ROBIN = "round_robin"
    """The next pod of the client that sends the request."""
    RANDOM = "random"
    LEAST_LOADED = "least_loaded"
    """The least loaded of all pods; ties are broken at random."""
    PINNED = "pinned"
    """The pod of the connection: kube-proxy with keep-alive connections."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A queue in front of all pods: a request goes to a pod only while fewer than `pod_limit` are
    outstanding there (None: a full batch), and waits otherwise; beyond `max_waiting` (None: any
    number) the newest are shed. Raises ValueError where a figure makes no sense.
    """

    pod_limit: int | None = None
    max_waiting: int | None = None

    def __post_init__(self) -> None:
        if self.pod_limit is not None and not 0 < self.pod_limit <= MOST_OUTSTANDING:
            raise ValueError(f"a gateway sends a pod from 1 to {MOST_OUTSTANDING} requests")
        if self.max_waiting is not None and self.max_waiting < 0:
            raise ValueError("a gateway holds no fewer than 0 requests")


@dataclass(frozen=True, slots=True)
class Balancer:
    """A way of balancing and its parameters; without a `gateway` requests wait in their pods.

    `clients` matters to round robin and to local counts, `connections` and `churn_per_second`
    (the share of connections opened anew each second, to a random pod) to pinned connections.
    Raises ValueError where a figure makes no sense.
    """

    balancing: Balancing = Balancing.P2C
    clients: int = 1
    connections: int = 20_000
    churn_per_second: float = 0.0
    gateway: Gateway | None = None

    def __post_init__(self) -> None:
        if self.clients < 1 or self.connections < 1:
            raise ValueError("a balancer needs at least one client and one connection")
        if not 0.0 <= self.churn_per_second <= 1.0:
            raise ValueError(f"churn_per_second is a share, not {self.churn_per_second:g}")
        if self.gateway is not None and self.balancing in (Balancing.P2C_LOCAL, Balancing.PINNED):
            raise ValueError(f"{self.balancing} has many senders and no queue that they share")


USUAL_BALANCER = Balancer()


def balancer(name: str) -> Balancer:
    """The balancer of that name with its usual parameters; raises ValueError for another name."""
    names = {item.value for item in Balancing}
    if name not in names:
        raise ValueError(f"unknown balancer {name}: choose one of {', '.join(sorted(names))}")
    balancing = Balancing(name)
    return Balancer(balancing, clients=50 if balancing is Balancing.P2C_LOCAL else 1)
