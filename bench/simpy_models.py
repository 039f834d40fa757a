"""The fleet in SimPy, twice: as it is usually written, and as well as SimPy can do.

Both route by power of two choices on outstanding requests and keep every latency. They know
nothing of our engines but the pod's profile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field
from random import Random

import simpy

from simulator.pod import PodProfile

Events = Generator[simpy.Event, None, None]


@dataclass
class Served:
    """How many requests came, finished or not, and the latencies of those that finished."""

    sent: int = 0
    latencies: list[float] = field(default_factory=list)


@dataclass
class Traffic:
    """Requests a second for some seconds, with lengths drawn from a table."""

    rate: float
    seconds: float
    lengths: list[int]
    seed: int = 1


def resource_a_request(profile: PodProfile, pods: int, traffic: Traffic) -> Served:
    """A Resource a pod with a place for each sequence, a process a request.

    The service time is frozen at the step time of the batch that the request finds.
    """
    world, rng = simpy.Environment(), Random(traffic.seed)
    places = [simpy.Resource(world, profile.max_num_seqs) for _ in range(pods)]
    served = Served()

    def request() -> Events:
        came = world.now
        one, other = rng.choice(places), rng.choice(places)
        place = min(one, other, key=lambda pod: pod.count + len(pod.queue))
        with place.request() as turn:
            yield turn
            step = profile.t0_seconds + profile.slope_seconds * place.count
            yield world.timeout(rng.choice(traffic.lengths) * step)
        served.latencies.append(world.now - came)

    def arrivals() -> Events:
        while True:
            yield world.timeout(rng.expovariate(traffic.rate))
            served.sent += 1
            world.process(request())

    world.process(arrivals())
    world.run(until=traffic.seconds)
    return served


@dataclass
class _Pod:
    wake: simpy.Event
    queue: deque[float] = field(default_factory=deque)
    finishing: dict[int, list[float]] = field(default_factory=dict)
    outstanding: int = 0
    idle: bool = True


def step_a_event(profile: PodProfile, pods: int, traffic: Traffic) -> Served:
    """The same pod as the exact engine's: a process a pod, an event an engine step."""
    world, rng, served = simpy.Environment(), Random(traffic.seed), Served()
    fleet = [_Pod(world.event()) for _ in range(pods)]

    def arrivals() -> Events:
        while True:
            yield world.timeout(rng.expovariate(traffic.rate))
            served.sent += 1
            one, other = rng.choice(fleet), rng.choice(fleet)
            pod = one if one.outstanding <= other.outstanding else other
            pod.outstanding += 1
            pod.queue.append(world.now)
            if pod.idle:
                pod.idle = False
                pod.wake.succeed()

    for pod in fleet:
        world.process(_serve(world, rng, profile, pod, traffic, served))
    world.process(arrivals())
    world.run(until=traffic.seconds)
    return served


def _serve(
    world: simpy.Environment,
    rng: Random,
    profile: PodProfile,
    pod: _Pod,
    traffic: Traffic,
    served: Served,
) -> Events:
    step, running = 0, 0
    prompt = profile.tp_seconds * profile.input_tokens
    while True:
        done = pod.finishing.pop(step, ())
        for came in done:
            served.latencies.append(world.now - came)
        running -= len(done)
        pod.outstanding -= len(done)
        admitted = min(len(pod.queue), profile.max_num_seqs - running)
        for _ in range(admitted):
            finish = step + rng.choice(traffic.lengths)
            pod.finishing.setdefault(finish, []).append(pod.queue.popleft())
        duration = profile.t0_seconds + profile.t1_seconds * running + prompt * admitted
        running += admitted
        step += 1
        if running:
            yield world.timeout(duration)
        else:
            pod.idle, pod.wake = True, world.event()
            yield pod.wake
