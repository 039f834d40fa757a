"""Balancers by name: how the requests of a second find their pods.

It knows names and parameters; how each one chooses is written in `simulator.engines.routing`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
class Balancer:
    """A way of balancing and its parameters.

    `clients` matters to round robin and to local counts, `connections` and `churn_per_second`
    (the share of connections opened anew each second, to a random pod) to pinned connections.
    Raises ValueError where a figure makes no sense.
    """

    balancing: Balancing = Balancing.P2C
    clients: int = 1
    connections: int = 20_000
    churn_per_second: float = 0.0

    def __post_init__(self) -> None:
        if self.clients < 1 or self.connections < 1:
            raise ValueError("a balancer needs at least one client and one connection")
        if not 0.0 <= self.churn_per_second <= 1.0:
            raise ValueError(f"churn_per_second is a share, not {self.churn_per_second:g}")


USUAL_BALANCER = Balancer()


def balancer(name: str) -> Balancer:
    """The balancer of that name with its usual parameters; raises ValueError for another name."""
    names = {item.value for item in Balancing}
    if name not in names:
        raise ValueError(f"unknown balancer {name}: choose one of {', '.join(sorted(names))}")
    balancing = Balancing(name)
    return Balancer(balancing, clients=50 if balancing is Balancing.P2C_LOCAL else 1)
