"""The gateway's queue: requests wait in front of the pods, and go where there is room.

In each slot the requests that have waited longest go first, each to a pod with fewer than the limit
outstanding, which the balancer chooses among those; what finds no room is held with the time of
its arrival, and so is everything while there is no pod. A pod that comes later takes its part of
what is held at once. A place that a boundary has freed is given away after it, so that the pod
admits the next request one step later: that is the price of a queue outside.
"""

from __future__ import annotations

import numpy as np

from forecaster.compiled import compiled, inlined
from simulator.engines.layout import (
    COUNT_SHIFT,
    GATE_HEAD,
    GATE_TAIL,
    HELD,
    LEAST_LOADED,
    LOST,
    P2C,
    ROUND_ROBIN,
    TICK_SHIFT,
    TICKS_A_MINUTE,
    State,
    Whole,
)
from simulator.engines.random_streams import GOLDEN, ROUTES, mixed, stream_key
from simulator.engines.routing import assign, least_loaded, note_arrival, time_of

_LOW32 = np.uint64(0xFFFFFFFF)
_S32 = np.uint64(32)


@compiled
def dispatch(state: State, slot: Whole, count: Whole, active: Whole) -> None:
    """Send what is held and what arrives in a slot to pods that have room; hold the rest."""
    control, gate, length = state.control, state.gate, state.model.slot
    start, mask = slot * length, len(gate.requests) - 1
    key = stream_key(state.model.seed, ROUTES, np.uint64(slot))
    _drop_late(state, start)
    room = _list_room(state, active)
    sent = 0
    while room > 0 and control[HELD] > 0:
        cell = control[GATE_HEAD] & mask
        word = mixed(key + np.uint64(sent + 1) * GOLDEN)
        room = _send(state, word, active, room, gate.since[cell], start)
        sent += 1
        gate.requests[cell] -= 1
        control[HELD] -= 1
        control[GATE_HEAD] += gate.requests[cell] == 0
    fresh = 0
    while room > 0 and fresh < count:
        at = time_of(length, slot, fresh, count)
        word = mixed(key + np.uint64(sent + fresh + 1) * GOLDEN)
        room = _send(state, word, active, room, at, at)
        fresh += 1
    if fresh < count:
        _hold(state, count - fresh, start + (fresh + count) * length // (2 * count))


@compiled
def _drop_late(state: State, now: Whole) -> None:
    """Cohorts that have waited longer than the timeout leave."""
    control, gate = state.control, state.gate
    mask = len(gate.requests) - 1
    while control[HELD] > 0:
        cell = control[GATE_HEAD] & mask
        if now - gate.since[cell] <= state.model.timeout:
            return
        state.minutes.timed_out[_minute(gate.since[cell])] += gate.requests[cell]
        control[LOST] += gate.requests[cell]
        control[HELD] -= gate.requests[cell]
        control[GATE_HEAD] += 1


@inlined
def _list_room(state: State, active: Whole) -> Whole:
    """List the pods that can take a request; how many they are."""
    listed, outstanding = state.scratch.listed, state.places.outstanding
    found = 0
    for position in range(active):
        listed[found] = position
        found += (outstanding[position] >> COUNT_SHIFT) < state.model.pod_limit
    return found


@inlined
def _send(
    state: State, word: np.uint64, active: Whole, room: Whole, since: Whole, at: Whole
) -> Whole:
    """Give a request that came at `since` to a pod; how many can take another."""
    places, limit = state.places, state.model.pod_limit
    position = np.uint64(_choose(state, word, active, room))
    assign(places, state.pods.line, position, at)
    note_arrival(state, position, since)
    if (places.outstanding[position] >> COUNT_SHIFT) < limit:
        return room
    listed = state.scratch.listed
    for i in range(room):
        if listed[i] == np.int64(position):
            listed[i] = listed[room - 1]
            break
    return room - 1


@inlined
def _choose(state: State, word: np.uint64, active: Whole, room: Whole) -> Whole:
    """One of the pods that have room, of which there is at least one."""
    balancer, outstanding = state.model.balancer, state.places.outstanding
    if balancer == LEAST_LOADED:
        return least_loaded(outstanding, active, word)
    if balancer == ROUND_ROBIN:
        return _next_in_turn(state, word, active)
    listed = state.scratch.listed
    first = listed[((word & _LOW32) * np.uint64(room)) >> _S32]
    if balancer != P2C:
        return int(first)
    second = listed[((word >> _S32) * np.uint64(room)) >> _S32]
    fewer = (outstanding[second] >> COUNT_SHIFT) < (outstanding[first] >> COUNT_SHIFT)
    return int(second if fewer else first)


@inlined
def _next_in_turn(state: State, word: np.uint64, active: Whole) -> Whole:
    clients, outstanding = state.clients, state.places.outstanding
    client = ((word & _LOW32) * np.uint64(clients.number)) >> _S32
    pointer = clients.pointer[client]
    for _ in range(active):
        pointer = 0 if pointer >= active - 1 else pointer + 1
        if (outstanding[pointer] >> COUNT_SHIFT) < state.model.pod_limit:
            break
    clients.pointer[client] = pointer
    return int(pointer)


@compiled
def _hold(state: State, count: Whole, since: Whole) -> None:
    """Put requests at the end of the queue, and shed the newest beyond what it may hold."""
    control, gate = state.control, state.gate
    mask = len(gate.requests) - 1
    shed = min(count, max(0, control[HELD] + count - state.model.gateway_waiting))
    state.minutes.shed[_minute(since)] += shed
    control[LOST] += shed
    if shed == count:
        return
    cell = control[GATE_TAIL] & mask
    gate.requests[cell], gate.since[cell] = count - shed, since
    control[GATE_TAIL] += 1
    control[HELD] += count - shed


@inlined
def _minute(time: Whole) -> Whole:
    return (time >> TICK_SHIFT) // TICKS_A_MINUTE
