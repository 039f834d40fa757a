"""`make bench-policies`: every policy on every trace, pooled and one by one.

Writes its part of docs/policies.md. Each trace is scaled to a peak of 200,000 requests a second and
scored on its second half; ours keeps a target, and the peers are run twice: each over one fixed
setting, as people run them, and calibrated each day for the same targets by the same replay as
ours. Ours goes through Prometheus at its usual 15 s; once more it is scraped and decided on every
5 s, as peers are that ask the pods themselves.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.parts import set_part
from bench.runs import PEAK_QPS, run_of, scenario_of
from simulator.traces.trace_file import read_trace

PAGE = Path(__file__).parents[1] / "docs" / "policies.md"
POOLED = (
    "isp_uk_5min",
    "wc98_1min",
    "servegen_msmall_10min",
    "servegen_mlarge_10min",
    "twitter_1pct_2021_1min",
)
BURSTS = "twitter_1pct_2021_1min"
"""Rectangular bursts out of calm, eleven a day: it decides any mean that it is part of."""
POLICIES = ("predictive", "asymmetric_concurrency", "hpa", "knative_kpa")
LEVELS = (1e-2, 1e-3, 1e-4)
FAST_SECONDS = 5
FAST = f"predictive every {FAST_SECONDS} s"


Points = dict[str, list[tuple[float, float, float]]]
"""By policy: knob, excess and bad ratio of each setting, in the order of the knob's grid."""


@dataclass(frozen=True, slots=True)
class Job:
    trace: Path
    cold_seconds: int
    calibrated: bool
    policies: tuple[str, ...]
    fast: bool = False
    seed: int = 0

    def named(self, points: Points) -> Points:
        """As the tables call them."""
        return {FAST: points["predictive"]} if self.fast else points


def calibrated_jobs(trace: Path, cold_seconds: int) -> list[Job]:
    """Every policy asked for the same targets, and ours once more at the pace of the peers."""
    return [
        Job(trace, cold_seconds, calibrated=True, policies=POLICIES),
        Job(trace, cold_seconds, calibrated=True, policies=POLICIES[:1], fast=True),
    ]


def run(job: Job) -> tuple[Job, Points]:
    warmup = int(read_trace(job.trace).days / 2)
    command = [
        sys.executable, "-c", "from scaler.cli import main; main()", "simulate",
        "--trace", str(job.trace), "--peak-qps", str(PEAK_QPS), "--engine", "fluid",
        "--policy", ",".join(job.policies), "--sweep", "--cold-start", str(job.cold_seconds),
        "--warmup-days", str(warmup), "--seed", str(job.seed), "--workers", "1", "--json", "-",
        *(["--calibrate-peers"] if job.calibrated else []),
    ]  # fmt: skip
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        if job.fast:
            json.dump(fast_settings(job), file)
            file.flush()
            command += ["--config", file.name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    document: dict[str, Any] = json.loads(done.stdout)
    points: Points = {}
    for entry in document["policies"]:
        row = (entry["knob"]["value"], entry["excess"], entry["bad_ratio"])
        points.setdefault(entry["policy"], []).append(row)
    return job, points


def fast_settings(job: Job) -> dict[str, Any]:
    """Settings of a daemon that scrapes and decides more often; all else as without a file."""
    scenario = scenario_of(job.trace, job.cold_seconds)
    run = run_of(scenario, "predictive", every_seconds=FAST_SECONDS)
    return {
        "intervalSeconds": FAST_SECONDS,
        "prometheus": {"url": "http://localhost:9090"},
        "workloads": [run.workload.model_dump(mode="json", by_alias=True, exclude_unset=True)],
    }


def least(points: list[tuple[float, float]], level: float) -> float | None:
    return min((excess for excess, bad in points if bad <= level), default=None)


def pooled(by_trace: list[list[tuple[float, float, float]]]) -> list[tuple[float, float]]:
    """Mean excess and mean bad ratio over the traces, setting by setting."""
    return [
        (sum(row[1] for row in rows) / len(rows), sum(row[2] for row in rows) / len(rows))
        for rows in zip(*by_trace, strict=True)
    ]


def table(title: str, rows: dict[str, list[tuple[float, float]]]) -> str:
    head = "| policy | " + " | ".join(f"{level:.0e}" for level in LEVELS) + " |\n"
    lines = [f"\n{title}\n\n", head, "|---" * (len(LEVELS) + 1) + "|\n"]
    for name, points in rows.items():
        cells = [least(points, level) for level in LEVELS]
        shown = ["not reached" if cell is None else f"{cell:+.3f}" for cell in cells]
        lines.append(f"| {name} | " + " | ".join(shown) + " |\n")
    return "".join(lines)


def together(found: dict[tuple[str, bool], Points], names: list[str]) -> str:
    """One setting for all traces: a target for everybody, and for peers also one fixed knob."""
    rows: dict[str, list[tuple[float, float]]] = {}
    for policy in found[names[0], True]:
        rows[f"{policy}, one target"] = pooled([found[name, True][policy] for name in names])
    for policy in POLICIES[1:]:
        fixed = [found[name, False][policy] for name in names]
        rows[f"{policy}, one fixed setting"] = pooled(fixed)
    return table(f"Pooled over {', '.join(names)}: mean excess at a mean bad ratio.", rows)


def page(results: list[tuple[Job, Points]], cold_seconds: int) -> str:
    found: dict[tuple[str, bool], Points] = {}
    for job, points in results:
        if job.cold_seconds == cold_seconds:
            found.setdefault((job.trace.stem, job.calibrated), {}).update(job.named(points))
    names = [name for name in POOLED if (name, True) in found]
    text = [f"\n## Cold start {cold_seconds} s\n"]
    text.append(together(found, names))
    calm = [name for name in names if name != BURSTS]
    if calm != names:
        text.append(together(found, calm))
    for name in names:
        own = {policy: [row[1:] for row in rows] for policy, rows in found[name, True].items()} | {
            f"{policy}, setting of hindsight": [row[1:] for row in found[name, False][policy]]
            for policy in POLICIES[1:]
        }
        text.append(table(f"{name}", own))
    return "".join([*text, _targets_kept(found, names)])


def _targets_kept(found: dict[tuple[str, bool], Points], names: list[str]) -> str:
    """One, two and five in each power of ten."""
    shown = [
        number
        for number, row in enumerate(found[names[0], True]["predictive"])
        if f"{row[0]:e}"[0:3] in ("1.0", "2.0", "5.0")
    ]
    asked = [found[names[0], True]["predictive"][number][0] for number in shown]
    lines = ["\n\nTarget asked and bad ratio found, ours:\n\n"]
    lines.append("| trace | " + " | ".join(f"{target:.0e}" for target in asked) + " |\n")
    lines.append("|---" * (len(asked) + 1) + "|\n")
    for name in names:
        kept = [f"{found[name, True]['predictive'][number][2]:.1e}" for number in shown]
        lines.append(f"| {name} | " + " | ".join(kept) + " |\n")
    return "".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=Path, required=True)
    parser.add_argument("--cold-starts", default="180,30,480", help="each a part of the page")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    colds = [int(text) for text in options.cold_starts.split(",")]
    jobs = [
        job
        for cold in colds
        for trace in (options.traces / f"{name}.csv" for name in POOLED)
        if trace.exists()
        for job in (*calibrated_jobs(trace, cold), Job(trace, cold, False, POLICIES[1:]))
    ]
    with ThreadPoolExecutor(options.workers) as pool:
        results = list(pool.map(run, jobs))
    set_part("comparison", HEAD, options.out)
    for cold in colds:
        set_part(f"cold-{cold}", page(results, cold), options.out)
    print(options.out.read_text())


HEAD = """# Policies compared

Written by `make bench-policies`. Excess is GPU-hours over the clairvoyant optimum; the bad ratio
is the share of requests that failed or were late beyond what a P99 objective allows. Fluid engine.
Ours is scraped and decides every 15 s, and once more every 5 s (`intervalSeconds` and
`leadTime.metricLagSeconds`), as peers that ask the pods themselves do.
"""


if __name__ == "__main__":
    main()
