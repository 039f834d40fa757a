"""Options about pods and their clients: the profile, what goes wrong, and who comes again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from scaler.cli.output import BadInputError
from simulator.engines.engine import Retries
from simulator.engines.exact import ExactEngine, ExactSettings, most_pods, slot_within
from simulator.engines.exact_fleet import MAX_PODS
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


def check_exact(profile: PodProfile, life: Lifecycle, balancer: str, retries: Retries) -> None:
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


def check_room(profile: PodProfile, max_replicas: int) -> None:
    """Raises BadInputError where so many pods do not fit the exact engine."""
    room = min(MAX_PODS, most_pods(profile, slot_within(profile.t0_seconds)))
    if max_replicas > room:
        raise BadInputError(
            f"--engine exact: has room for {room} pods with outputs of up to "
            f"{profile.outputs.max()} tokens and a timeout of {profile.timeout_seconds:g} s, but "
            f"maxReplicas is {max_replicas}; use --engine fluid or a shorter --timeout"
        )
