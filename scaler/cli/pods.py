"""Options about pods and their clients: the profile, what goes wrong, and who comes again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from scaler.cli.output import BadInputError
from simulator.balancers import Balancer
from simulator.engines.engine import Retries
from simulator.engines.exact import ExactEngine, ExactSettings, most_pods, slot_within
from simulator.engines.exact_fleet import MAX_PODS
from simulator.engines.scaled import FEWEST_PODS
from simulator.lifecycle import Lifecycle
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


def check_exact(profile: PodProfile, life: Lifecycle, balancer: Balancer, retries: Retries) -> None:
    """Raises BadInputError where the exact engine cannot simulate such pods."""
    try:
        slot = slot_within(profile.t0_seconds)
        settings = ExactSettings(
            slot_seconds=slot, max_waiting=profile.max_waiting, retry_ratio=retries.ratio
        )
        engine = ExactEngine(profile, balancer, max_pods=1, settings=settings)
        slowest = max(1.0, life.slow_factor if life.slow_ratio else 1.0)
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
