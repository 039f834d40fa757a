"""Routing: the arrivals of one slot find their pods, one function a balancer.

Each takes the number of arrivals and the slot, and leaves every chosen pod with one more
outstanding request. It knows counts of outstanding requests and nothing of what pods do.
"""

from __future__ import annotations

import numpy as np

from forecaster.compiled import compiled, inlined
from simulator.balancers import Balancing
from simulator.engines.layout import (
    BEFORE,
    COUNT_SHIFT,
    FLAG,
    I64,
    IDLE,
    LEAST_LOADED,
    LINE,
    ONE_REQUEST,
    P2C,
    P2C_LOCAL,
    PINNED,
    RANDOM,
    ROUND_ROBIN,
    U64,
    Clients,
    Places,
    State,
    Whole,
)
from simulator.engines.random_streams import CLIENTS, GOLDEN, ROUTES, mixed, stream_key

NUMBERS = {
    Balancing.P2C: P2C,
    Balancing.P2C_LOCAL: P2C_LOCAL,
    Balancing.ROUND_ROBIN: ROUND_ROBIN,
    Balancing.RANDOM: RANDOM,
    Balancing.LEAST_LOADED: LEAST_LOADED,
    Balancing.PINNED: PINNED,
}
_U0, _U1, _U2, _U3 = (np.uint64(number) for number in range(4))
_LOW32 = np.uint64(0xFFFFFFFF)
_LOW16 = np.uint64(0xFFFF)
_S32 = np.uint64(32)
_ULINE, _UBEFORE = np.uint64(LINE), np.uint64(BEFORE)


@inlined
def route(state: State, slot: Whole, count: Whole, active: Whole) -> None:
    """Send the arrivals of a slot to active pods by the model's balancer."""
    balancer = state.model.balancer
    key = stream_key(state.model.seed, ROUTES, np.uint64(slot))
    if balancer == P2C:
        _power_of_two(state, slot, count, active, key)
    elif balancer == P2C_LOCAL:
        _local_power_of_two(state, slot, count, active, key)
    elif balancer == LEAST_LOADED:
        _least_loaded(state, slot, count, active, key)
    else:
        _blind(state, slot, count, active, key)


@inlined
def _power_of_two(state: State, slot: Whole, count: Whole, active: Whole, key: np.uint64) -> None:
    places, line, length = state.places, state.pods.line, state.model.slot
    outstanding = places.outstanding
    picks = state.scratch.picks
    _draw_pairs(picks, active, count, key)
    threes = np.uint64(count) // _U3
    for n in range(threes):
        i = n * _U3
        p, q, r = picks[i], picks[i + _U1], picks[i + _U2]
        qa, qb, ra, rb = q & _LOW32, q >> _S32, r & _LOW32, r >> _S32
        # The packed words carry their position, so the smaller one *is* the choice, without a
        # branch; the flag lets the first, random pick win a tie. Three are chosen at once as if
        # they could not meet, since otherwise every load would wait for the store before it.
        one = min(outstanding[p & _LOW32], outstanding[p >> _S32] + FLAG) & ~FLAG
        two = min(outstanding[qa], outstanding[qb] + FLAG) & ~FLAG
        three = min(outstanding[ra], outstanding[rb] + FLAG) & ~FLAG
        first, second = np.uint64(one) & _LOW16, np.uint64(two) & _LOW16
        outstanding[first] = one + ONE_REQUEST
        # Those that do meet are chosen again. One condition: six short-circuits are six branches.
        if (
            (qa == first)
            | (qb == first)
            | (ra == first)
            | (rb == first)
            | (ra == second)
            | (rb == second)
        ):
            two = min(outstanding[qa], outstanding[qb] + FLAG) & ~FLAG
            second = np.uint64(two) & _LOW16
            outstanding[second] = two + ONE_REQUEST
            three = min(outstanding[ra], outstanding[rb] + FLAG) & ~FLAG
        else:
            outstanding[second] = two + ONE_REQUEST
        outstanding[np.uint64(three) & _LOW16] = three + ONE_REQUEST
        if min(one, two, three) < ONE_REQUEST:
            _wake(places, line, one, time_of(length, slot, np.int64(i), count))
            _wake(places, line, two, time_of(length, slot, np.int64(i) + 1, count))
            _wake(places, line, three, time_of(length, slot, np.int64(i) + 2, count))
    for n in range(threes * _U3, np.uint64(count)):
        pair = picks[n]
        one = min(outstanding[pair & _LOW32], outstanding[pair >> _S32] + FLAG) & ~FLAG
        outstanding[np.uint64(one) & _LOW16] = one + ONE_REQUEST
        _wake(places, line, one, time_of(length, slot, np.int64(n), count))


@inlined
def _draw_pairs(picks: U64, active: Whole, count: Whole, key: np.uint64) -> None:
    """Two positions a request; a loop of its own, because it vectorises and routing cannot."""
    pods = np.uint64(active)
    for i in range(np.uint64(count)):
        word = mixed(key + (i + _U1) * GOLDEN)
        first = ((word & _LOW32) * pods) >> _S32
        second = ((word >> _S32) * pods) >> _S32
        picks[i] = first | (second << _S32)


@inlined
def time_of(length: Whole, slot: Whole, number: Whole, count: Whole) -> Whole:
    """When the arrivals of a slot come: evenly spread over its length."""
    return slot * length + (2 * number + 1) * length // (2 * count)


@inlined
def _wake(places: Places, line: I64, chosen: Whole, at: Whole) -> None:
    """A pod that was empty begins a step when its first request comes."""
    if chosen < ONE_REQUEST:
        position = np.uint64(chosen)
        places.due[position] = at
        line[np.uint64(places.row[position]) * _ULINE + _UBEFORE] = at


@inlined
def assign(places: Places, line: I64, position: np.uint64, at: Whole) -> None:
    """One more request for the pod at a position."""
    chosen = places.outstanding[position]
    places.outstanding[position] = chosen + ONE_REQUEST
    _wake(places, line, chosen, at)


@compiled
def _blind(state: State, slot: Whole, count: Whole, active: Whole, key: np.uint64) -> None:
    """Balancers that look at no pod: round robin, random, pinned."""
    clients = state.clients
    for n in range(count):
        word = mixed(key + np.uint64(n + 1) * GOLDEN)
        if state.model.balancer == ROUND_ROBIN:
            client = ((word & _LOW32) * np.uint64(clients.number)) >> _S32
            pointer = clients.pointer[client]
            # The number of pods may have shrunk since.
            pointer = 0 if pointer >= active - 1 else pointer + 1
            clients.pointer[client] = pointer
            position = np.uint64(pointer)
        elif state.model.balancer == PINNED:
            connections = np.uint64(len(clients.connection))
            row = clients.connection[((word & _LOW32) * connections) >> _S32]
            position = np.uint64(state.pods.place[row])
        else:
            position = ((word & _LOW32) * np.uint64(active)) >> _S32
        at = time_of(state.model.slot, slot, n, count)
        assign(state.places, state.pods.line, position, at)


@compiled
def _least_loaded(state: State, slot: Whole, count: Whole, active: Whole, key: np.uint64) -> None:
    outstanding = state.places.outstanding
    for n in range(count):
        word = mixed(key + np.uint64(n + 1) * GOLDEN)
        position = least_loaded(outstanding, active, word)
        # All arrivals go to the pod that has just finished some, hence early in its step.
        at = time_of(state.model.slot, slot, n, count)
        assign(state.places, state.pods.line, np.uint64(position), at)
        note_arrival(state, np.uint64(position), at)


@inlined
def least_loaded(outstanding: I64, active: Whole, word: np.uint64) -> Whole:
    """Of all pods; ties go to the first from a random start on."""
    start = np.int64(((word & _LOW32) * np.uint64(active)) >> _S32)
    best: Whole = IDLE
    for place in range(active):
        turn = place - start + (active if place < start else 0)
        load = (outstanding[place] >> COUNT_SHIFT << COUNT_SHIFT) | turn
        best = load if load < best else best
    return (start + (best & 0xFFFF)) % active


@inlined
def note_arrival(state: State, position: np.uint64, at: Whole) -> None:
    """Remember when a request came that has just been assigned, as a time after the boundary."""
    row = np.uint64(state.places.row[position])
    state.pods.arrival_sum[row] += at - state.pods.line[row * _ULINE + _UBEFORE]


@compiled
def _local_power_of_two(
    state: State, slot: Whole, count: Whole, active: Whole, key: np.uint64
) -> None:
    clients, places = state.clients, state.places
    rows = len(state.pods.key)
    senders = stream_key(state.model.seed, CLIENTS, np.uint64(slot))
    _draw_pairs(state.scratch.picks, active, count, key)
    for n in range(count):
        pair = state.scratch.picks[n]
        word = mixed(senders + np.uint64(n + 1) * GOLDEN)
        client = np.int64(((word & _LOW32) * np.uint64(clients.number)) >> _S32)
        first, second = np.int64(pair & _LOW32), np.int64(pair >> _S32)
        own = client * rows
        fewer = clients.tally[own + places.row[second]] < clients.tally[own + places.row[first]]
        position = second if fewer else first
        _enqueue(clients, rows, places.row[position], client)
        at = time_of(state.model.slot, slot, n, count)
        assign(places, state.pods.line, np.uint64(position), at)


@inlined
def _enqueue(clients: Clients, rows: Whole, row: Whole, client: Whole) -> None:
    """Remember who sent the request, behind those that wait in the pod."""
    clients.tally[client * rows + row] += 1
    node = clients.node_free[0]
    clients.node_free[0] = clients.node_next[node]
    clients.node_client[node] = client
    clients.node_next[node] = -1
    if clients.queue_head[row] < 0:
        clients.queue_head[row] = node
    else:
        clients.node_next[clients.queue_tail[row]] = node
    clients.queue_tail[row] = node


@compiled
def start_request(clients: Clients, row: Whole, finish_cell: Whole) -> None:
    """The oldest queued request of a pod is admitted and will finish at a cell of its ring."""
    node = clients.queue_head[row]
    clients.queue_head[row] = clients.node_next[node]
    clients.node_next[node] = clients.finish_head[finish_cell]
    clients.finish_head[finish_cell] = node


@compiled
def finish_requests(clients: Clients, rows: Whole, row: Whole, cell: Whole) -> None:
    """All requests listed at a cell are over: their clients count them no more."""
    node = clients.finish_head[cell]
    clients.finish_head[cell] = -1
    while node >= 0:
        node = _forget(clients, rows, row, node)


@compiled
def drop_requests(clients: Clients, rows: Whole, row: Whole, count: Whole) -> None:
    """The oldest queued requests leave; whose request was shed is not told apart."""
    for _ in range(count):
        clients.queue_head[row] = _forget(clients, rows, row, clients.queue_head[row])


@inlined
def _forget(clients: Clients, rows: Whole, row: Whole, node: Whole) -> Whole:
    """Free a node; the node that came after it."""
    clients.tally[clients.node_client[node] * rows + row] -= 1
    following = clients.node_next[node]
    clients.node_next[node] = clients.node_free[0]
    clients.node_free[0] = node
    return int(following)
