"""The compiled closed loop: one setting of a policy through a run, scored by the minute."""

from __future__ import annotations

import numpy as np

from forecaster.compiled import allocating, compiled
from simulator.sweep import fleet, rules

PREDICTIVE, ASYMMETRIC, HPA, KNATIVE, FIXED = range(5)
LATE_ALLOWANCE = 0.01
DRAIN_SECONDS = 30
POD_SECONDS, BAD, LATE, FAILED, UPS, DOWNS, MOST, OVER, DECISIONS = range(9)
"""Places in what a run comes to."""
TALLY_WIDTH = 9


@allocating
def play(  # type: ignore[no-untyped-def]
    arrivals, kind, options, order, hold, trusted, begins, shape, limits, up, down, pod,
    length_cdf, knobs, specs,
):  # fmt: skip
    """What a setting comes to: see the places above; pod-seconds, requests and counts.

    `arrivals` are requests in each slice; `order` and `hold` have a row a decision, as have
    `trusted` and `knobs`; `specs` takes the replicas that each decision found. `begins`: the first
    replicas, and the rate before. `shape`: seconds of a slice, a decision, the cold start, a
    scrape, the metrics' lag, the rate's window, the look-back, and the latency objective.
    `limits`: rate of a replica within the SLO, saturation over it, backlog seconds, fewest and
    most replicas, and the share of the recent peak below which demand is doubted. `up` and `down`:
    see `rules.behaved`. `options`, of a peer: concurrency (else rate), extremes (else means), up
    and down seconds.
    """
    slice_seconds, tick_seconds, cold, slo = shape[0], shape[1], shape[2], shape[7]
    slices = int(tick_seconds // slice_seconds)
    ticks = len(arrivals) // slices
    state = np.zeros(fleet.STATE_WIDTH)
    state[fleet.READY] = begins[0]
    orders, signal, asked = np.zeros(ticks), np.zeros(ticks), np.zeros(ticks)
    drains = np.zeros(ticks)
    running, waiting, overdue = np.zeros((3, ticks * slices))
    memory, seen = np.zeros(2), np.zeros(2)
    tally = np.zeros(TALLY_WIDTH)
    tally[MOST] = begins[0]
    drained = rules.ticks_within(DRAIN_SECONDS, tick_seconds)
    minute = np.zeros(3)
    unseen = 0
    for tick in range(ticks):
        at = tick * slices
        second = at * slice_seconds
        fleet.start(state, orders, tick_seconds, cold, second)
        current = int(state[fleet.READY] + state[fleet.STARTING])
        specs[tick] = current
        demand, queue, flight = _scraped(arrivals, running, waiting, second, begins[1], shape)
        blind = flight < 0.0
        unseen += blind
        signal[tick] = flight if options[0] else demand
        if kind == PREDICTIVE:
            wanted = _ours(
                order[tick], hold[tick], trusted[tick], signal, asked, specs, tick, queue, shape,
                limits, up, down, knobs[tick],
            )  # fmt: skip
        elif kind == FIXED or (options[0] and blind):
            wanted = int(knobs[tick]) if kind == FIXED else current
        else:
            first = unseen if options[0] else 0
            wanted = _peers(
                kind, options, signal[first:], asked, specs, tick, tick - first, tick_seconds,
                int(state[fleet.READY]), memory, knobs[tick],
            )  # fmt: skip
        wanted = int(min(max(wanted, limits[3]), limits[4]))
        tally[UPS] += wanted > current
        tally[DOWNS] += wanted < current
        drains[tick] = fleet.order(state, orders, tick, wanted)
        draining = rules.total(drains, tick, drained)
        tally[MOST] = max(tally[MOST], wanted + draining)
        billed = min(DRAIN_SECONDS, ticks * tick_seconds - second)
        tally[POD_SECONDS] += billed * drains[tick]
        for i in range(at, at + slices):
            fleet.start(state, orders, tick_seconds, cold, i * slice_seconds)
            late, failed = fleet.serve(
                state, arrivals, overdue, i, slice_seconds, pod, length_cdf, slo, seen
            )
            running[i], waiting[i] = seen[0], seen[1]
            _count(minute, tally, late, failed, arrivals[i], (i + 1) * slice_seconds)
    tally[DECISIONS] = ticks
    tally[POD_SECONDS] += state[fleet.POD_SECONDS]
    return tally


@compiled
def _scraped(arrivals, running, waiting, second, before, shape):  # type: ignore[no-untyped-def]
    """Demand, requests waiting and in flight as the newest scrape that has arrived saw them; until
    it has seen a whole window, the rate before and -1 in flight: not known."""
    slice_seconds, scrape, lag, window = shape[0], shape[3], shape[4], shape[5]
    scraped = np.floor((second - lag) / scrape) * scrape
    if scraped < window:
        return before, 0.0, -1.0
    last = int(scraped // slice_seconds)
    total = 0.0
    for i in range(last - int(window // slice_seconds), last):
        total += arrivals[i]
    return total / window, waiting[last - 1], running[last - 1] + waiting[last - 1]


@compiled
def _ours(  # type: ignore[no-untyped-def]
    order, hold, trusted, signal, asked, specs, tick, queue, shape, limits, up, down, knob
):
    """As asked for, under the guardrails that the policy runs under."""
    tick_seconds = shape[1]
    look_back = rules.ticks_within(shape[6], tick_seconds)
    current, demand = int(specs[tick]), signal[tick]
    if trusted:
        wanted = rules.ours(order, hold, demand, queue, current, limits, knob)
    else:
        wanted = rules.ours_untrusted(order, hold, demand, queue, limits, knob)
    asked[tick] = wanted
    if not trusted:
        wanted = max(wanted, int(min(current, rules.highest(asked, tick, look_back))))
    if wanted < current and demand < limits[5] * rules.highest(signal, tick, look_back):
        wanted = current
    return rules.behaved(asked, specs, tick, tick_seconds, int(wanted), up, down)


@compiled
def _peers(  # type: ignore[no-untyped-def]
    kind, options, signal, asked, specs, tick, newest, tick_seconds, ready, memory, knob
):
    """`signal` from where it was first seen, with its place `newest`."""
    current = int(specs[tick])
    if kind == ASYMMETRIC:
        up = rules.ticks_within(options[2], tick_seconds)
        down = rules.ticks_within(options[3], tick_seconds)
        return rules.asymmetric(signal, newest, up, down, knob, options[1], current)
    if kind == HPA:
        return rules.hpa(signal, asked, specs, tick, tick_seconds, knob, current, options[3])
    now = tick * tick_seconds
    return rules.knative(signal, newest, tick_seconds, knob, ready, now, memory, options[3])


@compiled
def _count(minute, tally, late, failed, arrivals, ends_at):  # type: ignore[no-untyped-def]
    """bad(minute) = failed + max(0, late - 1 % of the minute's requests)."""
    minute[0] += late
    minute[1] += failed
    minute[2] += arrivals
    if ends_at % 60 == 0:
        tally[OVER] += minute[0] + minute[1] > LATE_ALLOWANCE * minute[2]
        tally[BAD] += minute[1] + max(0.0, minute[0] - LATE_ALLOWANCE * minute[2])
        tally[LATE] += minute[0]
        tally[FAILED] += minute[1]
        minute[:] = 0.0
