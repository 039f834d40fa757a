"""`daybreak simulate`: what would have been, under one policy or many."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from scaler.cli.cluster import connected, pool_on, run_on
from scaler.cli.output import (
    BadInputError,
    JsonOption,
    TimeZoneOption,
    configure_logs,
    listed,
    output_option,
    seed_option,
    table_console,
    write_json,
    write_text,
)
from scaler.cli.pods import (
    BALANCERS,
    checked_scale,
    chosen_balancer,
    chosen_cold_start,
    chosen_gateway,
    chosen_profile,
    scale_warning,
)
from scaler.cli.scenario import (
    Setting,
    run_of,
    scenario_of,
    shown_settings,
    traffic_of,
    workload_document,
)
from scaler.cli.sweep import Swept, frontier_table, keeps_slo, processes, sweep_all
from scaler.settings import load_settings
from simulator.balancers import MOST_OUTSTANDING
from simulator.engines.engine import Retries
from simulator.engines.registry import ENGINES
from simulator.lifecycle import Lifecycle
from simulator.replay import ReplayError, Scenario
from simulator.results import document_head, results_document
from simulator.sweep.results import frontier, optimum_hours
from simulator.whatif import Finished, Moment, Run, run_all


@dataclass(frozen=True, slots=True)
class Place:
    """Where runs are made: in so many processes here, or on the cluster at an address."""

    workers: int
    cluster: str | None


def _place(workers: int, cluster: str | None) -> Place:
    if cluster is not None and workers:
        raise BadInputError("--workers: is for this machine; --cluster has workers of its own")
    return Place(workers or os.cpu_count() or 1, cluster)


def simulate(
    trace: Annotated[Path, typer.Option(help="Trace CSV: timestamp,qps.")],
    policy: Annotated[str, typer.Option(help="Policies, separated by commas.")] = "predictive",
    peak_qps: Annotated[
        float | None, typer.Option(help="Scale the trace to this peak.", min=0.001)
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file: its first workload.")] = None,
    engine: Annotated[str, typer.Option(help="exact or fluid.")] = "exact",
    scale: Annotated[
        int,
        typer.Option(
            help="Simulate one pod in so many, with its share of the traffic; policies see the "
            "whole fleet. For sweeps and CI, never for the final verdict on an "
            "under-provisioned ramp, and never with fewer than about "
            "10 pods simulated.",
            min=1,
        ),
    ] = 1,
    slo: Annotated[
        float | None, typer.Option(help="P99 objective in seconds, instead of the settings'.")
    ] = None,
    pod_profile: Annotated[
        str, typer.Option(help="Pod profile: a name, or a YAML or JSON file.")
    ] = "h100-1200",
    timeout: Annotated[
        float | None, typer.Option(help="Seconds that a request waits for its first token.")
    ] = None,
    max_waiting: Annotated[
        int | None,
        typer.Option(
            help="Requests that may wait in a pod, or at the gateway where they wait there; more "
            "are shed.",
            min=0,
        ),
    ] = None,
    queue: Annotated[
        str,
        typer.Option(
            help="Where requests wait: pod, each in the pod that was chosen for it, or gateway, in "
            "one line for all pods, also those that come later."
        ),
    ] = "pod",
    gateway_cap: Annotated[
        int | None,
        typer.Option(
            help="With --queue gateway: requests that a pod is given at once; a full batch if not "
            "said.",
            min=1,
            max=MOST_OUTSTANDING,
        ),
    ] = None,
    cold_start: Annotated[str, typer.Option(help="Seconds, or a profile.")] = "180",
    warm_nodes: Annotated[
        int | None,
        typer.Option(
            help="Pods that find a node, where the cold start waits for nodes; the profile's own "
            "number, 0, if not said.",
            min=0,
        ),
    ] = None,
    missing_nodes: Annotated[
        float | None, typer.Option(help="Share of the other nodes that never come.", min=0, max=1)
    ] = None,
    slow_start: Annotated[
        float, typer.Option(help="Seconds for which a new pod is slower.", min=0, max=86_400)
    ] = 0.0,
    slow_start_factor: Annotated[
        float, typer.Option(help="How many times as long its steps then take.", min=1, max=10)
    ] = 1.5,
    drain: Annotated[
        int, typer.Option(help="Seconds in which a deleted pod may finish.", min=0)
    ] = 30,
    slow_pods: Annotated[
        float, typer.Option(help="Share of pods that are slower for good.", min=0, max=1)
    ] = 0.0,
    slow_factor: Annotated[
        float, typer.Option(help="How many times as long their steps take.", min=1, max=10)
    ] = 1.5,
    crashes_per_pod_hour: Annotated[
        float, typer.Option(help="Crashes of a ready pod in an hour.", min=0)
    ] = 0.0,
    balancer: Annotated[
        str, typer.Option(help=f"How requests find pods: {', '.join(BALANCERS)}.")
    ] = "p2c",
    clients: Annotated[
        int | None,
        typer.Option(
            help="Senders that each count for themselves: 1 for round_robin, 50 for p2c_local if "
            "not said.",
            min=1,
            max=10_000,
        ),
    ] = None,
    connections: Annotated[
        int | None,
        typer.Option(help="Connections of pinned, 20000 if not said.", min=1, max=1_000_000),
    ] = None,
    connection_churn: Annotated[
        float | None,
        typer.Option(help="Share of them that is opened anew each second.", min=0, max=1),
    ] = None,
    dispersion: Annotated[
        float, typer.Option(help="Variance over mean of requests in a second.", min=1)
    ] = 1.0,
    retry_ratio: Annotated[
        float, typer.Option(help="Share of lost requests that are sent again.", min=0, max=1)
    ] = 0.0,
    retry_delay: Annotated[int, typer.Option(help="Seconds until they are.", min=1)] = 1,
    start: Annotated[str | None, typer.Option(help="First moment of the trace to use.")] = None,
    end: Annotated[str | None, typer.Option(help="End of the part to use.")] = None,
    warmup_days: Annotated[float | None, typer.Option(help="History before scoring.")] = None,
    time_zone: TimeZoneOption = None,
    seed: Annotated[int, seed_option("Of arrivals, lengths and cold starts.")] = 0,
    workers: Annotated[int, typer.Option(help="Runs at once; 0 is one a core.", min=0)] = 0,
    cluster: Annotated[
        str | None, typer.Option(help="Run on the Dask cluster at this address.")
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Run each policy over its one knob.")
    ] = False,
    calibrate_peers: Annotated[
        bool,
        typer.Option(help="With --sweep: peers get our targets, calibrated by the same replay."),
    ] = False,
    json_out: JsonOption = None,
    html: Annotated[Path | None, output_option(help_text="Write a report here.")] = None,
    fail_on_slo: Annotated[
        bool,
        typer.Option(
            "--fail-on-slo",
            help="Exit 1 where a minute missed the SLO; with --sweep, where a policy has no "
            "setting without one.",
        ),
    ] = False,
) -> None:
    """Replay a trace under one or many policies and compare what they cost and gave.

    Example: daybreak simulate --trace week.csv --peak-qps 200000 --policy predictive,static
    """
    configure_logs("critical")  # what ends a replay is told by its error
    _check_finite({"crashes-per-pod-hour": crashes_per_pod_hour, "dispersion": dispersion})
    gateway = chosen_gateway(queue, gateway_cap, max_waiting)
    in_pod = max_waiting if gateway is None else None
    setting = Setting(
        profile=chosen_profile(pod_profile, _positive("timeout", timeout), in_pod),
        lifecycle=Lifecycle(
            chosen_cold_start(cold_start, warm_nodes, missing_nodes),
            slow_start_seconds=slow_start,
            slow_start_factor=slow_start_factor if slow_start else 1.0,
            slow_ratio=slow_pods,
            slow_factor=slow_factor,
            drain_seconds=drain,
            crashes_per_pod_hour=crashes_per_pod_hour,
        ),
        engine=_one_of("engine", engine, ENGINES),
        scale=checked_scale(scale, engine),
        balancer=chosen_balancer(balancer, clients, connections, connection_churn, gateway),
        dispersion=dispersion,
        retries=Retries(retry_ratio, retry_delay),
        seed=seed,
        workload=workload_document(config, _positive("slo", slo), time_zone),
        interval_seconds=load_settings(config).interval_seconds if config else 15.0,
    )
    if calibrate_peers and not sweep:
        raise BadInputError("--calibrate-peers: expected with --sweep, which it is for")
    names = listed("policy", policy)
    traffic = traffic_of(trace, peak_qps, start, end)
    scenario = scenario_of(traffic, setting, warmup_days)
    runs = [run_of(name, scenario, setting) for name in names]
    place = _place(workers, cluster)
    if sweep:
        swept = _swept(scenario, runs, calibrate_peers, place)
        _warn(setting, min(each.fewest_ready for each in swept))
        _show_sweep(swept, scenario, setting, json_out, html)
        if fail_on_slo and not all(keeps_slo(each.points) for each in swept):
            raise typer.Exit(1)
        return
    finished = _finished(scenario, runs, place)
    _warn(setting, min(float(run.card.ready_by_minute.min()) for run in finished))
    document = results_document(scenario, finished, shown_settings(setting))
    if json_out is not None:
        write_json(document, json_out)
    if html is not None:
        from simulator.report import render_comparison  # noqa: PLC0415  # brings the charts

        write_text(html, render_comparison(scenario, finished, setting.slo_seconds))
    if json_out != "-":
        table_console().print(_table(finished))
    if fail_on_slo and any(run.card.minutes_p99_over_slo for run in finished):
        raise typer.Exit(1)


def _warn(setting: Setting, fewest_ready: float) -> None:
    warning = scale_warning(setting.scale, fewest_ready, setting.lifecycle)
    if warning is not None:
        typer.echo(f"daybreak: {warning}", err=True)


def _finished(scenario: Scenario, runs: list[Run], place: Place) -> list[Finished]:
    with _refused_replays():
        if place.cluster is None:
            with _progress(scenario, runs) as on_moment:
                return run_all(scenario, runs, place.workers, on_moment)
        with connected(place.cluster) as client, _progress(scenario, runs) as on_moment:
            return run_on(client, scenario, runs, on_moment)


def _swept(scenario: Scenario, runs: list[Run], calibrated: bool, place: Place) -> list[Swept]:
    with _refused_replays():
        if place.cluster is None:
            with processes(place.workers) as pool:
                return sweep_all(scenario, runs, calibrated, pool)
        with connected(place.cluster) as client:
            return sweep_all(scenario, runs, calibrated, pool_on(client))


@contextmanager
def _refused_replays() -> Iterator[None]:
    try:
        yield
    except ReplayError as error:
        raise BadInputError(str(error)) from error


def _show_sweep(
    swept: list[Swept],
    scenario: Scenario,
    setting: Setting,
    json_out: str | None,
    html: Path | None,
) -> None:
    points = [point for each in swept for point in each.points]
    capacity = setting.profile.capacity_within(setting.slo_seconds)
    optimum = optimum_hours(scenario, capacity)
    head = document_head(scenario, shown_settings(setting), capacity, optimum)
    entries = [entry for each in swept for entry in each.entries]
    document = {**head, "policies": entries, "frontier": frontier(points)}
    if json_out is not None:
        write_json(document, json_out)
    if html is not None:
        from simulator.report import render_frontier  # noqa: PLC0415  # brings the charts

        peak = head["static_peak"]["pod_hours"]
        write_text(html, render_frontier(scenario, points, optimum, peak))
    if json_out != "-":
        table_console().print(frontier_table(points))


def _positive(option: str, seconds: float | None) -> float | None:
    if seconds is not None and not 0 < seconds <= 3600:
        raise BadInputError(f"--{option}: expected seconds from above 0 to 3600, got {seconds:g}")
    return seconds


def _check_finite(options: dict[str, float]) -> None:
    """For options without an upper bound, which would refuse infinity."""
    for option, value in options.items():
        if not math.isfinite(value):
            raise BadInputError(f"--{option}: expected a finite number, got {value:g}")


def _one_of(option: str, name: str, known: Any) -> str:
    if name not in known:
        raise BadInputError(f"--{option}: expected one of {', '.join(known)}, got {name!r}")
    return name


@contextmanager
def _progress(scenario: Scenario, runs: list[Run]) -> Iterator[Any]:
    """A bar for each run with its virtual clock and rate; nothing in a pipe."""
    console = Console(stderr=True)
    span = (scenario.until - scenario.starts_at).total_seconds()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[clock]}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        tasks = [
            progress.add_task(run.workload.policy.name, total=span, clock="", rate="")
            for run in runs
        ]
        served = [0.0] * len(runs)

        def on_moment(moment: Moment) -> None:
            served[moment.run] += moment.requests
            elapsed = progress.tasks[moment.run].elapsed or 1.0
            progress.update(
                tasks[moment.run],
                completed=(moment.at - scenario.starts_at).total_seconds(),
                clock=f"{moment.at:%a %d %b %H:%M}",
                rate=f"{served[moment.run] / elapsed / 1e6:,.1f} M requests/s",
            )

        yield on_moment


def _table(finished: list[Finished]) -> Table:
    table = Table(title="excess: over the clairvoyant optimum; bad: share of all requests")
    for heading in ("policy", "GPU-h", "excess", "bad", "P99", "min > SLO", "up/down"):
        table.add_column(heading, justify="left" if heading == "policy" else "right", no_wrap=True)
    for run in finished:
        card = run.card
        table.add_row(
            card.policy,
            f"{card.pod_hours:,.0f}",
            f"{card.excess:+.1%}",
            f"{card.bad_ratio:.1e}",
            f"{card.p99_seconds * 1000:,.0f} ms",
            str(card.minutes_p99_over_slo),
            f"{card.scale_ups}/{card.scale_downs}",
        )
    return table
