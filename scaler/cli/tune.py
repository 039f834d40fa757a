"""`daybreak tune`: the cheapest settings that keep the SLO on one's own history, checked on days
that were not used to choose them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from forecaster.history import TrafficHistory
from policies.registry import POLICIES
from scaler.cli.output import (
    BadInputError,
    JsonOption,
    TimeZoneOption,
    configure_logs,
    output_option,
    progress_bar,
    seed_option,
    trace_from,
    write_json,
    write_text,
)
from scaler.cli.pods import chosen_profile
from scaler.cli.recorded import recorded_history
from scaler.cli.tuned_file import changed_settings, example_settings
from scaler.settings import History, Settings, Workload, load_settings
from simulator.fleet import FleetSettings
from simulator.forecasters import USUAL_POD, pod_of
from simulator.lifecycle import Lifecycle, constant_cold_start
from simulator.pace import pace_of
from simulator.pod import PodProfile, profile_like
from simulator.replay import Scenario, complete_parameters, policy_defaults
from simulator.sweep.knobs import turned
from simulator.sweep.plan import fluid_pod
from simulator.sweep.trials import Knobs, Played, Trial, candidates, play_all
from simulator.sweep.tune import Fold, Span, Tuned
from simulator.sweep.tune import tune as choose
from simulator.traces.grid import aligned, first_start, fitting_step
from simulator.whatif import Run, warmup

DEFAULT_TARGET = 1e-4
FEWEST_DAYS = 4
SPARE_DAYS = 1 / 24
"""By so much the history may be short of whole days: its newest minutes are not known yet."""
SHOWN = 24
ROOM = 1.2
"""Replicas that a run starts with, over what its first step needs."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is tuned: a workload, its traffic, its pods; `settings` where there is a file."""

    workload: Workload
    traffic: TrafficHistory
    profile: PodProfile
    interval_seconds: float
    settings: Settings | None = None

    @property
    def peak_replicas(self) -> int:
        """What the highest step takes."""
        highest = float(np.nanmax(self.traffic.values))
        return int(-(-highest // self.workload.capacity.qps_per_replica))


def tune(
    trace: Annotated[Path | None, typer.Option(help="Trace CSV: timestamp,qps.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings file: its first workload and its own history.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="Policy to tune; the settings' own, or predictive.")
    ] = None,
    target: Annotated[
        float | None, typer.Option(help="Bad ratio to keep; the settings' own, or 1e-4.")
    ] = None,
    pod_profile: Annotated[
        str, typer.Option(help="With --trace, pods: a name, or a YAML or JSON file.")
    ] = "h100-1200",
    cold_start: Annotated[
        float, typer.Option(help="With --trace: seconds.", min=0, max=86_400)
    ] = 180.0,
    time_zone: TimeZoneOption = None,
    seed: Annotated[int, seed_option("Of arrivals and of the bootstrap.")] = 0,
    workers: Annotated[int, typer.Option(help="Runs at once; 0 is one a core.", min=0)] = 0,
    out: Annotated[
        Path | None, output_option(help_text="Write a settings file here (YAML).")
    ] = None,
    json_out: JsonOption = None,
) -> None:
    """Find the cheapest settings of a policy that keep a bad ratio on your own history.

    Chosen on the first days, checked on later ones. Exit status 1 where no setting keeps it.

    Example: daybreak tune --trace month.csv --policy hpa --target 1e-3 --out tuned.yaml
    """
    configure_logs("warning")
    if (trace is None) == (config is None):
        raise BadInputError("give exactly one of --trace and --config")
    if trace is not None:
        subject = _bare(trace, chosen_profile(pod_profile, None, None), cold_start, time_zone)
    else:
        assert config is not None
        if time_zone is not None:
            raise BadInputError("--time-zone: is for a --trace; settings have history.timeZone")
        subject = _recorded(config)
    subject = _with_policy(subject, policy, target)
    trial = _trial(subject, seed)
    with progress_bar(f"{trial.policy}, {trial.days} days") as show:
        done = count(1)
        played = play_all(
            trial, workers or os.cpu_count() or 1, lambda: show(next(done) / trial.parts)
        )
    _check_moved(trial, played)
    found = choose(played, subject.workload.policy.target_bad_ratio, seed)
    if json_out is not None:
        write_json(_document(trial, played, found), json_out)
    if json_out != "-":
        _print(trial, played, found)
    if found.chosen is None:
        raise typer.Exit(1)
    if out is not None:
        write_text(out, _settings_file(config, subject, trial, found))


def _bare(path: Path, profile: PodProfile, cold_seconds: float, time_zone: str | None) -> Subject:
    """A trace and pods of a profile, as a workload that nobody runs yet."""
    traffic = _known_part(trace_from(path))
    step = fitting_step(traffic.step_seconds, History().step_seconds)
    traffic = aligned(traffic, step)
    workload = Workload.model_validate(
        {
            "name": "example",
            "target": {"name": "example", "mode": "shadow"},
            "demand": {"query": "sum(rate(gateway_requests_total[1m]))"},
            "capacity": _capacity(profile),
            "leadTime": {"p50Seconds": cold_seconds, "p95Seconds": cold_seconds},
            "maxReplicas": 1,
            "history": {"stepSeconds": step, "timeZone": time_zone or History().time_zone},
        }
    )
    subject = Subject(workload, traffic, profile, 15.0)
    room = workload.model_copy(update={"max_replicas": 2 * subject.peak_replicas + 2})
    return replace(subject, workload=room)


def _capacity(profile: PodProfile) -> dict[str, float]:
    try:
        within = profile.capacity_within(1.0)
    except ValueError as error:
        raise BadInputError(str(error)) from error
    return {"qpsPerReplica": within, "saturationQps": profile.saturation_qps}


def _recorded(config: Path) -> Subject:
    settings = load_settings(config)
    reading = recorded_history(config, settings)
    for problem in reading.problems:
        typer.echo(f"daybreak: {problem.message}", err=True)
    workload = settings.workloads[0]
    slo = workload.slo.p99_seconds
    profile = profile_like(USUAL_POD, workload.capacity.qps_per_replica, slo)
    traffic = _known_part(reading.value)
    return Subject(workload, traffic, profile, settings.interval_seconds, settings)


def _known_part(history: TrafficHistory) -> TrafficHistory:
    """From the first known step to the last, in whole minutes."""
    known = np.flatnonzero(np.isfinite(history.values))
    if not len(known) or not np.nanmax(history.values) > 0:
        raise BadInputError(f"{history.series}: holds no traffic")
    part = history.steps(int(known[0]), int(known[-1]) + 1)
    return part.between(part.start, part.end.replace(second=0, microsecond=0))


def _with_policy(subject: Subject, name: str | None, target: float | None) -> Subject:
    """The subject with the policy and the target that were asked for, and what they need to know
    of a pod."""
    workload = subject.workload
    own = workload.policy
    chosen = own.name if name is None else name
    if chosen not in POLICIES:
        known = ", ".join(sorted(POLICIES))
        raise BadInputError(f"--policy: {chosen!r} is not a policy; there are {known}")
    kept = own.target_bad_ratio if target is None else target
    if not 0 < kept <= 0.5:
        raise BadInputError(f"--target: expected a number above 0 and up to 0.5, got {kept:g}")
    capacity = workload.capacity.qps_per_replica
    defaults = policy_defaults(chosen, subject.profile, capacity, subject.peak_replicas)
    given = own.parameters if chosen == own.name else {}
    parameters = complete_parameters(chosen, given, defaults)
    changed = {"name": chosen, "target_bad_ratio": kept, "parameters": parameters}
    policy = own.model_copy(update=changed)
    return replace(subject, workload=workload.model_copy(update={"policy": policy}))


def _trial(subject: Subject, seed: int) -> Trial:
    """The newest whole days are played, cold starts as long as the settings' P95; the days before
    them are history."""
    traffic, workload = subject.traffic, subject.workload
    scored = traffic.days - warmup(traffic.days, None) / timedelta(days=1)
    newest = traffic.end - timedelta(days=int(scored + SPARE_DAYS))
    starts_at = first_start(traffic, newest, workload.history.step_seconds)
    if (traffic.end - starts_at).days < 2:
        raise BadInputError(
            f"{traffic.series}: {traffic.days:.1f} days of history are too few to choose on some "
            f"and check on others; expected at least {FEWEST_DAYS}"
        )
    first = float(np.nanmean(traffic.between(starts_at, starts_at + timedelta(hours=1)).values))
    capacity, cold = workload.capacity.qps_per_replica, workload.lead_time.p95_seconds
    replicas = max(1, int(-(-first * ROOM // capacity))) if np.isfinite(first) else 1
    scenario = Scenario(
        traffic=traffic,
        starts_at=starts_at,
        until=traffic.end,
        fleet=FleetSettings(Lifecycle(constant_cold_start(cold)), cold, replicas, seed=seed),
        profile=subject.profile,
        slo_seconds=workload.slo.p99_seconds,
    )
    pod = fluid_pod(subject.profile) if subject.settings is None else pod_of(workload, None)
    interval = pace_of(workload, subject.interval_seconds).interval_seconds
    trial = Trial(scenario, Run(workload, interval), pod)
    try:
        candidates(trial)
    except ValueError as error:
        raise BadInputError(f"--policy: {error}") from error
    return trial


def _check_moved(trial: Trial, played: list[Played]) -> None:
    """Where all settings cost the same there is nothing to choose: a fleet that never needs more
    than its least, or a policy that is not told what it needs and holds what it finds."""
    if len({float(each.pod_hours.sum()) for each in played}) == 1:
        raise BadInputError(
            f"{trial.policy}: its settings make no difference on this history; the traffic may fit "
            f"minReplicas, or the policy lack a parameter such as kvCacheTokens"
        )


def _document(trial: Trial, played: list[Played], found: Tuned) -> dict[str, Any]:
    newest = found.folds[-1]
    scenario = trial.scenario
    shown = found.chosen or found.nearest
    return {
        "trace": {
            "name": scenario.traffic.series,
            "start": scenario.traffic.start.isoformat(),
            "scored_from": scenario.starts_at.isoformat(),
            "end": scenario.until.isoformat(),
            "step_seconds": scenario.traffic.step_seconds,
        },
        "policy": trial.policy,
        "target_bad_ratio": found.target,
        "settings": {
            "qps_per_replica": trial.run.workload.capacity.qps_per_replica,
            "cold_start_seconds": trial.run.workload.lead_time.p95_seconds,
            "slo_p99_seconds": scenario.slo_seconds,
            "interval_seconds": trial.run.interval_seconds,
            "seed": scenario.fleet.seed,
            "loop": "compiled" if trial.compiled else "full",
        },
        "kept": found.chosen is not None,
        "checked": found.checked,
        "choice": None if found.chosen is None else _entry(found.chosen, newest),
        "nearest": _entry(found.nearest, newest),
        "bad_ratio_upper_95": found.upper_bad_ratio,
        "bad_ratio": Span(0, found.days).bad_ratio(shown),
        "days": found.days,
        "days_to_certify": found.days_to_certify,
        "certified": found.certified,
        "folds": [_fold_entry(scenario, fold) for fold in found.folds],
        "candidates": [_entry(each, newest) for each in played],
    }


def _entry(played: Played, fold: Fold) -> dict[str, Any]:
    return {
        "knobs": dict(played.knobs),
        "choosing": _figures(played, fold.choosing),
        "checking": _figures(played, fold.checking),
    }


def _figures(played: Played, span: Span) -> dict[str, float]:
    return {"pod_hours": span.pod_hours(played), "bad_ratio": span.bad_ratio(played)}


def _fold_entry(scenario: Scenario, fold: Fold) -> dict[str, Any]:
    chosen = fold.chosen
    return {
        "choosing": _dates(scenario, fold.choosing),
        "checking": _dates(scenario, fold.checking),
        "knobs": None if chosen is None else dict(chosen.knobs),
        "pod_hours": None if chosen is None else fold.checking.pod_hours(chosen),
        "bad_ratio": None if chosen is None else fold.checking.bad_ratio(chosen),
        "kept": fold.kept,
    }


def _dates(scenario: Scenario, span: Span) -> dict[str, str]:
    first, last = _bounds(scenario, span)
    return {"from": first.isoformat(), "until": last.isoformat()}


def _bounds(scenario: Scenario, span: Span) -> tuple[datetime, datetime]:
    start = scenario.starts_at
    return start + timedelta(days=span.first), start + timedelta(days=span.last)


def _print(trial: Trial, played: list[Played], found: Tuned) -> None:
    console = Console(highlight=False)
    series = trial.scenario.traffic.series
    fold = found.folds[-1]
    console.print(f"{series}: {trial.policy} for a bad ratio of {found.target:g}", markup=False)
    console.print(
        f"GPU-hours and bad ratios on the first {_days(fold.choosing)} and on the last "
        f"{_days(fold.checking)}"
    )
    shown = _nearby(played, found)
    console.print(_table(shown, found))
    if len(shown) < len(played):
        console.print(f"{len(played) - len(shown)} settings more stand in --json.")
    for sentence in _sentences(trial.scenario, found):
        console.print(sentence, markup=False)


def _nearby(played: list[Played], found: Tuned) -> list[Played]:
    """The settings around the chosen one in the order of cost, as many as a screen takes."""
    span = found.folds[-1].choosing
    ranked = sorted(played, key=span.pod_hours)
    place = ranked.index(found.chosen or found.nearest)
    first = max(0, min(place - SHOWN // 2, len(ranked) - SHOWN))
    return ranked[first : first + SHOWN]


def _table(shown: list[Played], found: Tuned) -> Table:
    """Narrow enough for eighty columns."""
    fold = found.folds[-1]
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("  setting", "first", "bad", "last", "bad"):
        table.add_column(heading, justify="right" if heading != "  setting" else "left")
    for each in shown:
        cells = [
            cell
            for span in (fold.choosing, fold.checking)
            for cell in (f"{span.pod_hours(each):,.0f}", _ratio(span.bad_ratio(each)))
        ]
        mark = "> " if each is found.chosen else "  "
        table.add_row(mark + _short(each.knobs), *cells)
    return table


def _sentences(scenario: Scenario, found: Tuned) -> Iterator[str]:
    """The answer, what it was checked on, and how sure it is."""
    fold, chosen = found.folds[-1], found.chosen
    whole = Span(0, found.days)
    if chosen is None:
        ratio = max(span.bad_ratio(found.nearest) for span in (fold.choosing, fold.checking))
        yield (
            f"No setting keeps {found.target:g} on both parts. {_named(found.nearest.knobs)} came "
            f"nearest with {_ratio(ratio)} and {whole.pod_hours(found.nearest):,.0f} GPU-hours."
        )
    else:
        yield f"Cheapest: {_named(chosen.knobs)}."
        yield _checked(scenario, found, chosen)
    kept = sum(each.kept for each in found.folds)
    yield (
        f"Walking forward, {kept} of {len(found.folds)} choices kept the target on days that they "
        f"had not seen."
    )
    yield (
        f"Over all {found.days} days played its bad ratio is "
        f"{_ratio(whole.bad_ratio(chosen or found.nearest))}, and with 95 % confidence at most "
        f"{_ratio(found.upper_bad_ratio)}."
    )
    if found.days < found.days_to_certify:
        yield (
            f"{found.days} days of history cannot certify {found.target:g}: it takes "
            f"{found.days_to_certify:,}."
        )


def _checked(scenario: Scenario, found: Tuned, chosen: Played) -> str:
    fold = found.folds[-1]
    first, last = _bounds(scenario, fold.checking)
    span = f"{first:%d %b %H:%M} to {last:%d %b %H:%M}"
    if found.checked:
        return (
            f"On {span}, which were not used to choose it, it took "
            f"{fold.checking.pod_hours(chosen):,.0f} GPU-hours at a bad ratio of "
            f"{_ratio(fold.checking.bad_ratio(chosen))}."
        )
    missed = "nothing kept the target on the days before"
    if fold.chosen is not None:
        ratio = _ratio(fold.checking.bad_ratio(fold.chosen))
        missed = f"the first choice, {_named(fold.chosen.knobs)}, missed the target then ({ratio})"
    return f"It was chosen with {span} in view, since {missed}; no days are left to check it on."


def _days(span: Span) -> str:
    days = span.last - span.first
    return f"{days} day{'s' if days > 1 else ''}"


def _named(knobs: Knobs) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in knobs)


def _short(knobs: Knobs) -> str:
    (name, value), *window = knobs
    return f"{name} {value:g}" + "".join(f", down {seconds:g} s" for _, seconds in window)


def _ratio(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}"


def _settings_file(config: Path | None, subject: Subject, trial: Trial, found: Tuned) -> str:
    assert found.chosen is not None
    workload = turned(subject.workload, dict(found.chosen.knobs))
    if config is not None and subject.settings is not None:
        return changed_settings(config, subject.settings, workload)
    return example_settings(workload, trial.scenario.traffic.series)
