"""`daybreak calibrate`: what a pod carries, from a benchmark or from what Prometheus saw of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml
from pydantic import ValidationError
from rich.table import Table

from scaler.cli.output import (
    BadInputError,
    JsonOption,
    output_option,
    table_console,
    whole_file,
    write_json,
)
from scaler.settings_file import SettingsError, explained
from simulator.measured.benchmark import is_result, measured_runs
from simulator.measured.fit import GOOD, FitError, StepFit, closed_loop, fitted
from simulator.measured.histograms import is_range, measured_pods
from simulator.measured.measurement import Measured, Measurement, documents
from simulator.pod import MAX_INPUT, MAX_LENGTH, PodProfile
from simulator.pod_file import PodProfileSettings

DIGITS = 4
"""Of a time or a rate that was fitted: no more was measured."""
ROWS = 10
"""Of the table: with more measurements than that, each is the mean of some."""
Lengths = dict[str, Any]
"""Of requests in tokens, as a pod profile's file has them."""


def calibrate(
    sources: Annotated[
        list[Path],
        typer.Option(
            "--from",
            metavar="<path>",
            help="Results of vllm bench serve, or the JSON of a Prometheus range query of vLLM's "
            "metrics; a folder for all .json files in it. May be given more than once.",
        ),
    ],
    slo: Annotated[
        float, typer.Option(help="P99 objective in seconds.", min=0.001, max=86_400)
    ] = 1.0,
    max_num_seqs: Annotated[
        int | None,
        typer.Option(
            help="As the server has it; if not said, what ran at once while more waited, or the "
            "most that was measured.",
            min=1,
            max=MAX_LENGTH,
        ),
    ] = None,
    output_tokens: Annotated[
        float | None,
        typer.Option(
            help="Mean of your own requests, where it is not the measured ones'.",
            min=2,
            max=MAX_LENGTH,
        ),
    ] = None,
    output_sigma: Annotated[
        float | None,
        typer.Option(
            help="Their spread, in log tokens (standard deviation). P99 follows it; benchmarks "
            "usually make all outputs alike.",
            min=0,
            max=5,
        ),
    ] = None,
    input_tokens: Annotated[
        float | None, typer.Option(help="Their prompts' mean.", min=1, max=MAX_INPUT)
    ] = None,
    out: Annotated[
        Path | None,
        output_option("--out", help_text="Pod profile to write, for simulate --pod-profile."),
    ] = None,
    json_out: JsonOption = None,
) -> None:
    """Find what a pod carries within the objective, from benchmarks or from Prometheus.

    Fits the time of an engine step to what was measured, shows how well that explains it, and says
    what to write as capacity in the settings. Ends with status 1 where no load keeps the objective.

    Example: daybreak calibrate --from results/ --slo 1 --output-sigma 0.5 --out pod.yaml
    """
    measured = _measured(sources)
    try:
        fit = fitted(measured.measurements)
    except FitError as error:
        raise BadInputError(f"--from: {error}") from error
    found = Found(measured, fit, max_num_seqs)
    inputs = (input_tokens,) if input_tokens else measured.input_tokens
    keys = found.keys(_outputs(measured.output_tokens, output_tokens, output_sigma), inputs)
    profile = _profile(keys)
    carried = _carried(profile, slo)
    if out is not None:
        with whole_file(out) as file:
            file.write(f"# Made by daybreak calibrate: {found.how_well}.\n")
            yaml.safe_dump(keys, file, sort_keys=False, default_flow_style=None, width=100)
    if json_out is not None:
        rates = {"qps_per_replica": carried, "saturation_qps": profile.saturation_qps}
        head = {"fit": found.document(), "profile": keys, "slo_p99_seconds": slo}
        write_json({**head, "capacity": rates}, json_out)
    if json_out != "-":
        table_console().print(_table(found))
        for line in (*_doubts(found, profile), *_capacity(profile, slo, carried)):
            typer.echo(line)
    if carried is None:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured, what explains it, and what the user says of the server's batch."""

    measured: Measured
    fit: StepFit
    max_num_seqs: int | None

    @property
    def most_measured(self) -> int:
        """Sequences; nothing is known of what lies beyond."""
        return math.ceil(max(each.decoding for each in self.loads))

    @property
    def loads(self) -> tuple[Measurement, ...]:
        return self.measured.measurements

    @property
    def how_well(self) -> str:
        most = max(map(abs, self.fit.errors))
        if len(self.loads) <= ROWS:
            return f"explains {len(self.loads)} measurements to {most:.1%}"
        return (
            f"explains 19 of 20 of {len(self.loads):,} measurements to {self.fit.usual_error:.1%}"
        )

    def keys(self, outputs: Lengths, inputs: Sequence[float]) -> dict[str, Any]:
        """The profile for such requests, as its file has it."""
        return {
            "name": "calibrated",
            "t0Seconds": _rounded(self.fit.t0_seconds),
            "t1Seconds": _rounded(self.fit.t1_seconds),
            "tpSeconds": _rounded(self.fit.tp_seconds),
            "maxNumSeqs": self.max_num_seqs or self.measured.batch or self.most_measured,
            "frontEndSeconds": _rounded(self.fit.front_end_seconds),
            "outputTokens": outputs,
            "inputTokens": _lengths(inputs),
        }

    def as_measured(self) -> PodProfile:
        """The profile for the requests that were measured."""
        measured = self.measured
        return _profile(self.keys(_lengths(measured.output_tokens), measured.input_tokens))

    def document(self) -> dict[str, Any]:
        return {
            "measurements": len(self.loads),
            "usual_error": self.fit.usual_error,
            "good": self.fit.usual_error <= GOOD,
            "prompts_told_apart": self.fit.split,
            "batch_seen_full": self.measured.batch,
        }


def _measured(sources: Sequence[Path]) -> Measured:
    """What all files tell; they must be of one kind."""
    found = [(path, each) for path in _files(sources) for each in documents(path)]
    if all(is_result(document) for _, document in found):
        return measured_runs(found)
    if all(is_range(document) for _, document in found):
        return measured_pods(found)
    for path, document in found:
        if not is_result(document) and not is_range(document):
            raise SettingsError(
                f"{path}: is neither a result of vllm bench serve (it has mean_tpot_ms) nor the "
                f"answer of a Prometheus range query (it has status and data)"
            )
    raise BadInputError(
        "--from: expected benchmarks alone or answers of Prometheus alone, got both"
    )


def _files(sources: Sequence[Path]) -> Iterator[Path]:
    for source in sources:
        if not source.is_dir():
            yield source
            continue
        inside = sorted(source.glob("*.json"))
        if not inside:
            raise BadInputError(f"--from: {source} holds no .json file")
        yield from inside


def _lengths(known: Sequence[float]) -> Lengths:
    """As a profile's file has them."""
    return {"quantiles": list(known)} if len(known) > 1 else {"mean": known[0]}


def _outputs(known: Sequence[float], mean: float | None, sigma: float | None) -> Lengths:
    if mean is None and sigma is None:
        return _lengths(known)
    return {"mean": mean or round(float(np.mean(known)), 1), "sigma": sigma or 0.0}


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _profile(keys: dict[str, Any]) -> PodProfile:
    try:
        return PodProfileSettings.model_validate(keys).profile(Path("calibrated"))
    except ValidationError as error:
        raise SettingsError(explained(Path("the pod that was measured"), error)) from error


def _carried(profile: PodProfile, slo: float) -> float | None:
    try:
        return profile.capacity_within(slo)
    except ValueError:  # not even when idle
        return None


def _table(found: Found) -> Table:
    """Measured beside what the profile makes of the same load; many are shown by load."""
    table = Table(title="measured, and what the fit says of the same load")
    loops = any(each.in_flight is not None for each in found.loads)
    for name in ("decoding", "step ms", "fit", *(("requests/s", "fit", "P99 s", "fit") * loops)):
        table.add_column(name, justify="right")
    profile = found.as_measured()
    order = np.argsort([each.decoding for each in found.loads], kind="stable")
    for some in np.array_split(order, min(ROWS, len(order))):
        table.add_row(*_steps(some.tolist(), found), *_loop(some.tolist(), found, profile))
    return table


def _steps(some: Sequence[int], found: Found) -> Iterator[str]:
    chosen = [found.loads[number] for number in some]
    yield f"{np.mean([each.decoding for each in chosen]):,.1f}"
    yield f"{np.mean([each.step_seconds * 1e3 for each in chosen]):,.2f}"
    yield f"{np.mean([found.fit.errors[number] for number in some]):+.1%}"


def _loop(some: Sequence[int], found: Found, profile: PodProfile) -> Iterator[str]:
    """Of a single closed loop; nothing of others."""
    load = found.loads[some[0]]
    if len(some) > 1 or load.in_flight is None:
        return
    said = closed_loop(profile, load.in_flight)
    pairs = (load.requests_per_second, said.qps), (load.p99_seconds, said.p99_seconds)
    for value, fit in pairs:
        yield "" if value is None else f"{value:,.4g}"
        yield "" if value is None else f"{fit / value - 1:+.1%}"


def _lacking(found: Found) -> float:
    """What the heaviest closed loop served less than the fit says, as a share."""
    heaviest = max(found.loads, key=lambda each: each.in_flight or 0.0)
    if heaviest.in_flight is None or heaviest.requests_per_second is None:
        return 0.0
    said = closed_loop(found.as_measured(), heaviest.in_flight).qps
    return 1 - heaviest.requests_per_second / said


def _doubts(found: Found, profile: PodProfile) -> Iterator[str]:
    fit, lacking = found.fit, _lacking(found)
    if fit.usual_error > GOOD:
        yield (
            f"The fit is {fit.usual_error:.0%} off: steps of these pods are not as the model has "
            f"them. Measure near the load that you mean to run at, or trust the measured rates."
        )
    if lacking > GOOD:
        yield (
            f"Under the heaviest load the pod served {lacking:.0%} less than the fit says: prompts "
            f"take longer, or the client does. The rates below may be as much too high."
        )
    if not fit.split:
        yield (
            "Prompts are in what each sequence adds: all loads had as many prompt tokens for each "
            "output. For prompts of another length, measure one load with them too."
        )
    if found.max_num_seqs is None and found.measured.batch is None:
        yield (
            f"Nothing waited for a place in the batch: nothing is known of more sequences than "
            f"{found.most_measured}. Say --max-num-seqs as the server has it."
        )
    if profile.outputs.min() == profile.outputs.max():
        yield (
            "All outputs are taken to be alike, as in the benchmark. Real ones spread, and P99 "
            "with them: say --output-sigma (0.5 is usual for short texts)."
        )


def _capacity(profile: PodProfile, slo: float, carried: float | None) -> Iterator[str]:
    yield (
        f"A step takes {profile.t0_seconds * 1e3:.2f} ms and {profile.slope_seconds * 1e3:.4f} ms "
        f"for each of at most {profile.batch} requests."
    )
    if carried is None:
        idle = profile.p99_at(0.0)
        yield f"No load keeps P99 within {slo:g} s: it is {idle:.2f} s even when idle."
        return
    rates = f"{{qpsPerReplica: {carried:.4g}, saturationQps: {profile.saturation_qps:.4g}}}"
    yield f"P99 is within {slo:g} s up to {carried:,.4g} requests a second. In the settings:"
    yield f"  capacity: {rates}"
