"""The reference engine: the same fleet in continuous time, event by event, for tests only.

Simple on purpose: every request is an object of its own, a pod counts down the tokens of each
request at each step, and the next event is found by looking at all pods. All chance is an
argument: arrival times, lengths and two uniform numbers a request. It knows a gateway's queue, but
no drain, no crash and no retry.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from forecaster.compiled import compiled
from forecaster.history import Floats
from simulator.balancers import Balancer
from simulator.engines.layout import F64, I64, LEAST_LOADED, P2C, P2C_LOCAL, RANDOM, ROUND_ROBIN
from simulator.engines.routing import NUMBERS
from simulator.pod import PodProfile

NEVER = np.inf
# Words of the gateway's queue.
HEAD, TAIL = range(2)


class Requests(NamedTuple):
    """By request: when it comes (seconds, rising), its tokens, and the chance it brings."""

    arrival: F64
    output_tokens: I64
    input_tokens: I64
    first_chance: F64
    second_chance: F64
    client: I64


class _Rules(NamedTuple):
    t0: float
    t1: float
    tp: float
    batch: int
    budget: int
    timeout: float
    balancing: int
    pod_limit: int


class _Fleet(NamedTuple):
    boundary: F64
    running: I64
    batch: I64
    remaining: I64
    queue_head: I64
    queue_tail: I64
    following: I64
    outstanding: I64
    owner: I64
    tally: I64
    pointer: I64
    connection: I64
    speed: F64
    finished: F64
    gate: I64
    open: I64


def reference_latencies(
    profile: PodProfile,
    routed: Balancer,
    requests: Requests,
    speeds: Floats,
    connection: I64 | None = None,
) -> Floats:
    """Latency of each request in seconds, on one pod for each step-time factor in `speeds`.

    NaN for one that timed out while waiting. `connection` holds the pod of each pinned connection;
    a request's client is then its connection.
    """
    pods, count = len(speeds), len(requests.arrival)
    rules = _Rules(
        profile.t0_seconds,
        profile.t1_seconds,
        profile.tp_seconds,
        profile.max_num_seqs,
        profile.token_budget,
        profile.timeout_seconds,
        NUMBERS[routed.balancing],
        0 if routed.gateway is None else routed.gateway.pod_limit or profile.max_num_seqs,
    )
    fleet = _Fleet(
        boundary=np.full(pods, NEVER),
        running=np.zeros(pods, dtype=np.int64),
        batch=np.zeros(pods * profile.max_num_seqs, dtype=np.int64),
        remaining=requests.output_tokens.copy(),
        queue_head=np.full(pods, -1, dtype=np.int64),
        queue_tail=np.full(pods, -1, dtype=np.int64),
        following=np.full(count, -1, dtype=np.int64),
        outstanding=np.zeros(pods, dtype=np.int64),
        owner=np.zeros(count, dtype=np.int64),
        tally=np.zeros(routed.clients * pods, dtype=np.int64),
        pointer=np.zeros(routed.clients, dtype=np.int64),
        connection=np.zeros(1, dtype=np.int64) if connection is None else connection,
        speed=np.asarray(speeds, dtype=np.float64),
        finished=np.full(count, np.nan),
        gate=np.full(2, -1, dtype=np.int64),
        open=np.zeros(pods, dtype=np.int64),
    )
    _run(rules, fleet, requests)
    return fleet.finished - requests.arrival + profile.front_end_seconds


@compiled
def _run(rules: _Rules, fleet: _Fleet, requests: Requests) -> None:
    coming, count = 0, len(requests.arrival)
    while True:
        pod = int(np.argmin(fleet.boundary))
        if coming < count and requests.arrival[coming] <= fleet.boundary[pod]:
            _arrive(rules, fleet, requests, coming)
            coming += 1
        elif fleet.boundary[pod] < NEVER:
            now = fleet.boundary[pod]
            _step(rules, fleet, requests, pod)
            _let_in(rules, fleet, requests, now)
        else:
            return


@compiled
def _arrive(rules: _Rules, fleet: _Fleet, requests: Requests, request: int) -> None:
    room = _with_room(rules, fleet)
    if fleet.gate[HEAD] >= 0 or room == 0:
        _append(fleet, request)
    else:
        _join(rules, fleet, requests, request, room, requests.arrival[request])


@compiled
def _with_room(rules: _Rules, fleet: _Fleet) -> int:
    """List the pods that the gateway may send a request, all of them without one; their number."""
    room = 0
    for pod in range(len(fleet.speed)):
        if rules.pod_limit == 0 or fleet.outstanding[pod] < rules.pod_limit:
            fleet.open[room] = pod
            room += 1
    return room


@compiled
def _append(fleet: _Fleet, request: int) -> None:
    """The request waits at the gateway, behind those that do."""
    if fleet.gate[HEAD] < 0:
        fleet.gate[HEAD] = request
    else:
        fleet.following[fleet.gate[TAIL]] = request
    fleet.gate[TAIL] = request


@compiled
def _let_in(rules: _Rules, fleet: _Fleet, requests: Requests, now: float) -> None:
    """Those that wait at the gateway go to pods that have room now."""
    while fleet.gate[HEAD] >= 0:
        room = _with_room(rules, fleet)
        if room == 0:
            return
        request = fleet.gate[HEAD]
        fleet.gate[HEAD] = fleet.following[request]
        fleet.following[request] = -1
        if now - requests.arrival[request] <= rules.timeout:
            _join(rules, fleet, requests, request, room, now)


@compiled
def _join(
    rules: _Rules, fleet: _Fleet, requests: Requests, request: int, room: int, now: float
) -> None:
    pod = _choose(rules, fleet, requests, request, room)
    fleet.owner[request] = requests.client[request]
    if rules.balancing == P2C_LOCAL:
        fleet.tally[requests.client[request] * len(fleet.speed) + pod] += 1
    fleet.outstanding[pod] += 1
    if fleet.queue_head[pod] < 0:
        fleet.queue_head[pod] = request
    else:
        fleet.following[fleet.queue_tail[pod]] = request
    fleet.queue_tail[pod] = request
    if fleet.boundary[pod] == NEVER:
        fleet.boundary[pod] = now


@compiled
def _choose(rules: _Rules, fleet: _Fleet, requests: Requests, request: int, room: int) -> int:
    """One of the pods that have room."""
    pods = len(fleet.speed)
    client = requests.client[request]
    first = int(fleet.open[int(requests.first_chance[request] * room)])
    second = int(fleet.open[int(requests.second_chance[request] * room)])
    if rules.balancing == P2C:
        return second if fleet.outstanding[second] < fleet.outstanding[first] else first
    if rules.balancing == P2C_LOCAL:
        own = client * pods
        return second if fleet.tally[own + second] < fleet.tally[own + first] else first
    if rules.balancing == ROUND_ROBIN:
        return _next_in_turn(rules, fleet, client)
    if rules.balancing == RANDOM:
        return first
    if rules.balancing == LEAST_LOADED:
        best = first
        for turn in range(pods):
            pod = (first + turn) % pods
            if fleet.outstanding[pod] < fleet.outstanding[best]:
                best = pod
        return best
    return int(fleet.connection[client])


@compiled
def _next_in_turn(rules: _Rules, fleet: _Fleet, client: int) -> int:
    pods = len(fleet.speed)
    pod = int(fleet.pointer[client] + 1) % pods
    while rules.pod_limit > 0 and fleet.outstanding[pod] >= rules.pod_limit:
        pod = (pod + 1) % pods
    fleet.pointer[client] = pod
    return pod


@compiled
def _step(rules: _Rules, fleet: _Fleet, requests: Requests, pod: int) -> None:
    """One boundary: a token for each running request, then admission, then the next step."""
    now = fleet.boundary[pod]
    own = pod * rules.batch
    kept = 0
    for i in range(fleet.running[pod]):
        request = fleet.batch[own + i]
        fleet.remaining[request] -= 1
        if fleet.remaining[request] == 0:
            fleet.finished[request] = now
            _leave(rules, fleet, pod, request)
        else:
            fleet.batch[own + kept] = request
            kept += 1
    decoding, prompt = kept, 0
    while fleet.queue_head[pod] >= 0:
        request = fleet.queue_head[pod]
        if now - requests.arrival[request] > rules.timeout:
            _leave(rules, fleet, pod, request)
            fleet.queue_head[pod] = fleet.following[request]
            continue
        tokens = requests.input_tokens[request]
        if kept == rules.batch or prompt + tokens > rules.budget - decoding:
            break
        fleet.batch[own + kept] = request
        kept += 1
        prompt += tokens
        fleet.queue_head[pod] = fleet.following[request]
    fleet.running[pod] = kept
    duration = rules.t0 + rules.t1 * decoding + rules.tp * prompt
    fleet.boundary[pod] = now + duration * fleet.speed[pod] if kept > 0 else NEVER


@compiled
def _leave(rules: _Rules, fleet: _Fleet, pod: int, request: int) -> None:
    fleet.outstanding[pod] -= 1
    if rules.balancing == P2C_LOCAL:
        fleet.tally[fleet.owner[request] * len(fleet.speed) + pod] -= 1
