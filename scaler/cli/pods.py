"""Options about pods and their clients: the profile, what goes wrong, and who comes again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from scaler.cli.output import BadInputError
from simulator.balancers import Balancer, Balancing, Gateway, balancer
from simulator.engines.engine import Retries
from simulator.engines.exact import ExactEngine, ExactSettings, most_pods, slot_within
from simulator.engines.exact_fleet import MAX_PODS
from simulator.engines.scaled import FEWEST_PODS
from simulator.lifecycle import COLD_STARTS, ColdStart, Lifecycle, constant_cold_start
from simulator.pod import PROFILES, PodProfile
from simulator.pod_file import load_pod_profile

PROFILE_FILES = (".yaml", ".yml", ".json")


def chosen_profile(text: str, timeout: float | None, max_waiting: int | None) -> PodProfile:
    """A profile by name or from a file, with the bounds on waiting that were asked for.

    Raises BadInputError, or SettingsError for a file that is no profile.
    """
    if Path(text).suffix in PROFILE_FILES:
        profile = load_pod_profile(Path(text))
    elif text in PROFILES:
        profile = PROFILES[text]
    else:
        raise BadInputError(
            f"--pod-profile: expected one of {', '.join(PROFILES)}, or a YAML or JSON file, "
            f"got {text!r}"
        )
    asked: dict[str, Any] = {"timeout_seconds": timeout, "max_waiting": max_waiting}
    return replace(profile, **{key: value for key, value in asked.items() if value is not None})


QUEUES = ("pod", "gateway")
BALANCERS = tuple(Balancing)


def chosen_balancer(
    name: str,
    clients: int | None,
    connections: int | None,
    churn: float | None,
    gateway: Gateway | None,
) -> Balancer:
    """A balancer by name, with its usual parameters where none are asked for.

    Raises BadInputError for a parameter that this one does not have.
    """
    if name not in BALANCERS:
        raise BadInputError(f"--balancer: expected one of {', '.join(BALANCERS)}, got {name!r}")
    asked: dict[str, Any] = {
        "clients": clients,
        "connections": connections,
        "churn_per_second": churn,
        "gateway": gateway,
    }
    given = {key: value for key, value in asked.items() if value is not None}
    for key, option, having in (
        ("clients", "--clients", (Balancing.ROUND_ROBIN, Balancing.P2C_LOCAL)),
        ("connections", "--connections", (Balancing.PINNED,)),
        ("churn_per_second", "--connection-churn", (Balancing.PINNED,)),
    ):
        if key in given and name not in having:
            raise BadInputError(
                f"{option}: expected with --balancer {' or '.join(having)}, got {name}"
            )
    try:
        return replace(balancer(name), **given)
    except ValueError as error:
        raise BadInputError(f"--queue gateway: {error}; got --balancer {name}") from error


def chosen_gateway(queue: str, cap: int | None, max_waiting: int | None) -> Gateway | None:
    """None where requests wait in their pods; raises BadInputError."""
    if queue not in QUEUES:
        raise BadInputError(f"--queue: expected one of {', '.join(QUEUES)}, got {queue!r}")
    if queue == "gateway":
        return Gateway(cap, max_waiting)
    if cap is not None:
        raise BadInputError(f"--gateway-cap: expected with --queue gateway, got {cap} without it")
    return None


def check_fluid(routed: Balancer) -> None:
    """Raises BadInputError where the fluid engine knows nothing of such a balancer."""
    option = "--queue" if routed.gateway is not None else "--balancer"
    if routed.gateway is not None or routed.balancing is not Balancing.P2C:
        raise BadInputError(f"{option}: the fluid engine knows no single pods; use --engine exact")


def chosen_cold_start(text: str, warm_nodes: int | None, missing_nodes: float | None) -> ColdStart:
    """Seconds or a profile, and what is known of the nodes; raises BadInputError."""
    cold = COLD_STARTS.get(text) or constant_cold_start(_cold_seconds(text))
    asked: dict[str, Any] = {"warm_nodes": warm_nodes, "node_missing_ratio": missing_nodes}
    given = {key: value for key, value in asked.items() if value is not None}
    if given and cold.node is None:
        option = "--missing-nodes" if warm_nodes is None else "--warm-nodes"
        waiting = ", ".join(name for name, known in COLD_STARTS.items() if known.node is not None)
        raise BadInputError(
            f"{option}: expected with a cold start that waits for nodes, one of {waiting}; "
            f"got --cold-start {text}"
        )
    return replace(cold, **given)


def _cold_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400:
        raise BadInputError(
            f"--cold-start: expected seconds or one of {', '.join(COLD_STARTS)}, got {text!r}"
        )
    return seconds


def check_exact(profile: PodProfile, life: Lifecycle, routed: Balancer, retries: Retries) -> None:
    """Raises BadInputError where the exact engine cannot simulate such pods."""
    try:
        slot = slot_within(profile.t0_seconds)
        settings = ExactSettings(
            slot_seconds=slot, max_waiting=profile.max_waiting, retry_ratio=retries.ratio
        )
        engine = ExactEngine(profile, routed, max_pods=1, settings=settings)
        slowest = life.slow_factor if life.slow_ratio else 1.0
        slowest *= life.slow_start_factor if life.slow_start_seconds else 1.0
        engine.activate(1, slowest)
    except ValueError as error:
        raise BadInputError(f"--engine exact: {error}; --engine fluid may do") from error


def check_room(profile: PodProfile, max_replicas: int, scale: int) -> None:
    """Raises BadInputError where so many pods do not fit the exact engine at that scale."""
    room = scale * min(MAX_PODS, most_pods(profile, slot_within(profile.t0_seconds)))
    if max_replicas > room:
        raise BadInputError(
            f"--engine exact: has room for {room} pods with outputs of up to "
            f"{profile.outputs.max()} tokens and a timeout of {profile.timeout_seconds:g} s, but "
            f"maxReplicas is {max_replicas}; use --engine fluid, a shorter --timeout or a larger "
            "--scale"
        )


def checked_scale(scale: int, engine: str) -> int:
    """Raises BadInputError where an engine cannot simulate one pod in so many."""
    if scale > 1 and engine != "exact":
        raise BadInputError(f"--scale: the {engine} engine needs no scale; got {scale}")
    return scale


def scale_warning(scale: int, fewest_ready: float, life: Lifecycle) -> str | None:
    """What to say where too few pods were simulated for the result to be relied on."""
    simulated = fewest_ready / scale
    if scale == 1:
        return None
    if simulated < FEWEST_PODS:
        return (
            f"--scale {scale}: the fleet fell to {fewest_ready:.0f} pods, of which "
            f"{simulated:.1f} were simulated; below {FEWEST_PODS} the result is too rough"
        )
    if 0 < life.slow_ratio * simulated < 1:
        return (
            f"--scale {scale}: {life.slow_ratio:g} of {simulated:.1f} simulated pods is less than "
            "one; slow pods are missing from the result at times"
        )
    return None
