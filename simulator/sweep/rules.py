"""The policies' own arithmetic, compiled for sweeps.

Every function that decides is the one that the policy itself calls; here stand only the windows
that the decision log gives a policy in the full loop.
"""

from __future__ import annotations

import numpy as np

from forecaster import forecast
from forecaster.compiled import compiled
from policies import capacity, predictive
from policies.peers import asymmetric_concurrency, hpa_rules, knative_kpa

with_margin = compiled(forecast.with_margin)
rate_per_replica = compiled(capacity.rate_per_replica)
replicas_at = compiled(capacity.replicas_at)
needed = compiled(capacity.needed)
desired = compiled(capacity.desired)
combine = compiled(asymmetric_concurrency.combine)
need = compiled(asymmetric_concurrency.needed)
average_value = compiled(hpa_rules.average_value)
stabilized = compiled(hpa_rules.stabilized)
up_limit = compiled(hpa_rules.up_limit)
knative_need = compiled(knative_kpa.needed)
knative_scale = compiled(knative_kpa.scale)

HPA_UP_PODS, HPA_PERCENT = hpa_rules.UP_PODS, hpa_rules.UP_PERCENT
HPA_PERIOD, TOLERANCE = hpa_rules.PERIOD_SECONDS, hpa_rules.TOLERANCE
KNATIVE_PANIC, CALM = knative_kpa.PANIC_SECONDS, knative_kpa.CALM
UNTRUSTED_STEP, MAX_UNTRUSTED = predictive.UNTRUSTED_STEP, predictive.MAX_UNTRUSTED_MARGIN
BY_MAX, BY_MIN, DISABLED = range(3)
"""How one direction chooses among its limits."""
UNLIMITED = 1 << 40


@compiled
def ours(order, hold, demand, waiting, current, limits, margin):  # type: ignore[no-untyped-def]
    """`order` and `hold`: median, scale, floor and the floor's scale of each window."""
    within_slo, saturation_ratio, backlog_seconds = limits[0], limits[1], limits[2]
    rate = rate_per_replica(within_slo, within_slo * saturation_ratio, margin)
    model = with_margin(order[0], margin, order[1])
    floor = with_margin(order[2], max(margin, 0.0), order[3])
    there = needed(demand, waiting, saturation_ratio, backlog_seconds)
    ordered = max(replicas_at(max(model, floor), rate), replicas_at(there, within_slo))
    expected = with_margin(hold[2], max(margin, 0.0), hold[3])
    kept = max(with_margin(hold[0], margin, hold[1]), expected)
    return desired(ordered, replicas_at(kept, rate), current)


@compiled
def ours_untrusted(order, hold, demand, waiting, limits, margin):  # type: ignore[no-untyped-def]
    """The floors of windows that are not trusted hold what is spared, and nothing else."""
    raised = demand * np.exp(UNTRUSTED_STEP * min(max(margin, 0.0), MAX_UNTRUSTED))
    rate = rate_per_replica(limits[0], limits[0] * limits[1], margin)
    spared = replicas_at(max(order[2], hold[2]), rate)
    return max(replicas_at(raised + waiting / limits[2], limits[0]), spared)


@compiled
def behaved(asked, specs, tick, tick_seconds, wanted, up, down):  # type: ignore[no-untyped-def]
    """An HPA `behavior` block as the guardrails `stabilize` and `limit_rate` apply it.

    `up` and `down`: seconds of stabilization, how limits are chosen among, and a row a limit:
    percent (else pods), value, period in seconds.
    """
    current = int(specs[tick])
    least, most = wanted, wanted
    if up[0]:
        least = min(wanted, int(lowest(asked, tick, ticks_within(up[0], tick_seconds))))
    if down[0]:
        most = max(wanted, int(highest(asked, tick, ticks_within(down[0], tick_seconds))))
    result = stabilized(current, least, most)
    if result > current:
        return min(result, _ceiling(specs, tick, tick_seconds, current, up[1], up[2]))
    if result < current:
        return max(result, _floor(specs, tick, tick_seconds, current, down[1], down[2]))
    return result


@compiled
def _ceiling(specs, tick, tick_seconds, current, select, limits):  # type: ignore[no-untyped-def]
    if select == DISABLED:
        return current
    allowed = UNLIMITED if len(limits) == 0 or select == BY_MIN else current
    for row in range(len(limits)):
        start, amount = begun(specs, tick, tick_seconds, limits[row, 2]), int(limits[row, 1])
        added = -(-start * amount // 100) if limits[row, 0] else amount
        ceiling = max(current, start + added)
        allowed = min(allowed, ceiling) if select == BY_MIN else max(allowed, ceiling)
    return allowed


@compiled
def _floor(specs, tick, tick_seconds, current, select, limits):  # type: ignore[no-untyped-def]
    if select == DISABLED:
        return current
    allowed = 0 if len(limits) == 0 or select == BY_MIN else current
    for row in range(len(limits)):
        start, amount = begun(specs, tick, tick_seconds, limits[row, 2]), int(limits[row, 1])
        kept = start * (100 - amount) // 100 if limits[row, 0] else start - amount
        floor = min(current, kept)
        allowed = max(allowed, floor) if select == BY_MIN else min(allowed, floor)
    return allowed


@compiled
def begun(specs, tick, tick_seconds, period_seconds):  # type: ignore[no-untyped-def]
    """What was asked for when the period began."""
    return int(specs[max(0, tick - ticks_within(period_seconds, tick_seconds))])


@compiled
def asymmetric(signal, tick, up_ticks, down_ticks, target, extremes, current):  # type: ignore[no-untyped-def]
    """Means over the look-backs, or the least of the short one and the most of the long one."""
    if extremes:
        up, down = lowest(signal, tick, up_ticks), highest(signal, tick, down_ticks)
    else:
        up, down = mean(signal, tick, up_ticks), mean(signal, tick, down_ticks)
    return combine(current, need(up, target), need(down, target))


@compiled
def hpa(signal, asked, specs, tick, tick_seconds, target, current, down_seconds):  # type: ignore[no-untyped-def]
    """Stabilized over its down window, and limited on the way up within its period."""
    wanted = average_value(signal[tick], target, current, TOLERANCE)
    asked[tick] = wanted
    most = highest(asked, tick, ticks_within(down_seconds, tick_seconds))
    result = stabilized(current, wanted, int(most))
    if result <= current:
        return result
    start = begun(specs, tick, tick_seconds, HPA_PERIOD)
    return min(result, up_limit(current, start, HPA_UP_PODS, HPA_PERCENT))


@compiled
def knative(signal, tick, tick_seconds, target, ready, now, memory, stable_seconds):  # type: ignore[no-untyped-def]
    """`memory`: when panic was last called for, and the most wanted in it. What is found running
    is taken for a panic."""
    if tick == 0:
        memory[0], memory[1] = (now, float(ready)) if ready > 1 else (CALM, 0.0)
    stable = mean(signal, tick, ticks_within(stable_seconds, tick_seconds))
    panic = mean(signal, tick, ticks_within(KNATIVE_PANIC, tick_seconds))
    wanted, memory[0], top = knative_scale(
        knative_need(stable, target),
        knative_need(panic, target),
        ready,
        now,
        memory[0],
        int(memory[1]),
        stable_seconds,
    )
    memory[1] = top
    return wanted


@compiled
def ticks_within(seconds, tick_seconds):  # type: ignore[no-untyped-def]
    """Decisions younger than so many seconds, this one among them."""
    return max(1, int(np.ceil(seconds / tick_seconds - 1e-9)))


@compiled
def mean(values, tick, ticks):  # type: ignore[no-untyped-def]
    return total(values, tick, ticks) / min(ticks, tick + 1)


@compiled
def total(values, tick, ticks):  # type: ignore[no-untyped-def]
    found = 0.0
    for i in range(max(0, tick - ticks + 1), tick + 1):
        found += values[i]
    return found


@compiled
def highest(values, tick, ticks):  # type: ignore[no-untyped-def]
    found = values[tick]
    for i in range(max(0, tick - ticks + 1), tick):
        found = max(found, values[i])
    return found


@compiled
def lowest(values, tick, ticks):  # type: ignore[no-untyped-def]
    found = values[tick]
    for i in range(max(0, tick - ticks + 1), tick):
        found = min(found, values[i])
    return found
