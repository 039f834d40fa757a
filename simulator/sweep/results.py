"""What a sweep comes to: entries as the contract lays them down, and each policy's frontier."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.replay import Scenario
from simulator.scorecard import CLAIRVOYANT_SLOT_SECONDS, Scorecard, clairvoyant_pod_hours
from simulator.sweep import loop
from simulator.sweep.frontier import Setting, World

LEVELS = {"1e-3": 1e-3, "1e-4": 1e-4, "1e-5": 1e-5}


@dataclass(frozen=True, slots=True)
class Point:
    """One setting of a policy's knob: what it cost over the optimum and what it missed."""

    policy: str
    knob: str
    value: float
    pod_hours: float
    excess: float
    bad_ratio: float
    minutes_over: int


def clairvoyant_hours(world: World, qps_per_replica: float) -> float:
    slot = CLAIRVOYANT_SLOT_SECONDS
    whole = len(world.arrivals) // 60 * 60
    demand = world.arrivals[:whole].reshape(-1, slot).mean(axis=1)
    cold = world.scenario.fleet.lifecycle.cold_start.quantile(0.5)
    return clairvoyant_pod_hours(demand, cold, qps_per_replica)


def point(setting: Setting, world: World, optimum_hours: float) -> Point:
    hours = float(setting.tally[loop.POD_SECONDS]) / 3600
    requests = float(world.arrivals.sum())
    return Point(
        setting.policy,
        setting.knob,
        setting.value,
        hours,
        hours / optimum_hours - 1,
        float(setting.tally[loop.BAD]) / requests,
        int(setting.tally[loop.OVER]),
    )


def point_of(card: Scorecard, knob: str, value: float) -> Point:
    """The same from a run of the full loop."""
    return Point(
        policy=card.policy,
        knob=knob,
        value=value,
        pod_hours=card.pod_hours,
        excess=card.excess,
        bad_ratio=card.bad_ratio,
        minutes_over=card.minutes_p99_over_slo,
    )


def frontier(points: Iterable[Point]) -> list[dict[str, Any]]:
    """For each policy the least excess among the settings that kept a bad ratio, null for none."""
    return [
        {
            "policy": policy,
            "excess_at_bad_ratio": {
                name: least_excess(settings, level) for name, level in LEVELS.items()
            },
            "points": len(settings),
        }
        for policy, settings in by_policy(points).items()
    ]


def by_policy(points: Iterable[Point]) -> dict[str, list[Point]]:
    """Each policy's settings, policies in the order in which they come."""
    found: dict[str, list[Point]] = {}
    for each in points:
        found.setdefault(each.policy, []).append(each)
    return found


def least_excess(settings: Sequence[Point], level: float) -> float | None:
    kept = [each.excess for each in settings if each.bad_ratio <= level]
    return min(kept, default=None)


def entry(setting: Setting, world: World, optimum_hours: float, seconds: float) -> dict[str, Any]:
    """A setting that the compiled loop played; it counts requests, not their latency quantiles."""
    found = point(setting, world, optimum_hours)
    tally, requests = setting.tally, float(world.arrivals.sum())
    unknown = dict.fromkeys(("p50", "p95", "p99", "p999"))
    return {
        "policy": setting.policy,
        "knob": {"name": setting.knob, "value": setting.value},
        "pod_hours": found.pod_hours,
        "excess": found.excess,
        "requests": round(requests),
        "bad_requests": float(tally[loop.BAD]),
        "bad_ratio": found.bad_ratio,
        "late_ratio": float(tally[loop.LATE]) / requests,
        "failed_ratio": float(tally[loop.FAILED]) / requests,
        "latency_seconds": unknown,
        "minutes": len(world.arrivals) // 60,
        "minutes_p99_over_slo": found.minutes_over,
        "worst_minute_p99": None,
        "scale_ups": int(tally[loop.UPS]),
        "scale_downs": int(tally[loop.DOWNS]),
        "max_replicas": int(tally[loop.MOST]),
        "seconds": seconds,
        "requests_per_wall_second": requests / max(seconds, 1e-9),
        "decisions": int(tally[loop.DECISIONS]),
    }


def optimum_hours(scenario: Scenario, qps_per_replica: float) -> float:
    world = World.of(scenario, scenario.traffic.step_seconds)
    return clairvoyant_hours(world, qps_per_replica)
