"""`make bench-policies`: every policy on every trace, pooled and one by one.

Writes its part of docs/policies.md. Each trace is scaled to a peak of 200,000 requests a second and
scored on its second half; ours keeps a target, and the peers are run twice: each over one fixed
setting, as people run them, and calibrated each day for the same targets by the same replay as
ours.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.parts import set_part
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


@dataclass(frozen=True, slots=True)
class Job:
    trace: Path
    cold_seconds: int
    calibrated: bool


Points = dict[str, list[tuple[float, float, float]]]
"""By policy: knob, excess and bad ratio of each setting, in the order of the knob's grid."""


def run(job: Job) -> tuple[Job, Points]:
    warmup = int(read_trace(job.trace).days / 2)
    policies = POLICIES if job.calibrated else POLICIES[1:]
    command = [
        sys.executable, "-c", "from scaler.cli import main; main()", "simulate",
        "--trace", str(job.trace), "--peak-qps", "200000", "--engine", "fluid",
        "--policy", ",".join(policies), "--sweep", "--cold-start", str(job.cold_seconds),
        "--warmup-days", str(warmup), "--workers", "1", "--json", "-",
        *(["--calibrate-peers"] if job.calibrated else []),
    ]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    document: dict[str, Any] = json.loads(done.stdout)
    points: Points = {}
    for entry in document["policies"]:
        row = (entry["knob"]["value"], entry["excess"], entry["bad_ratio"])
        points.setdefault(entry["policy"], []).append(row)
    return job, points


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
    for policy in POLICIES:
        rows[f"{policy}, one target"] = pooled([found[name, True][policy] for name in names])
    for policy in POLICIES[1:]:
        fixed = [found[name, False][policy] for name in names]
        rows[f"{policy}, one fixed setting"] = pooled(fixed)
    return table(f"Pooled over {', '.join(names)}: mean excess at a mean bad ratio.", rows)


def page(results: list[tuple[Job, Points]], cold_seconds: int) -> str:
    found = {
        (job.trace.stem, job.calibrated): points
        for job, points in results
        if job.cold_seconds == cold_seconds
    }
    names = [name for name in POOLED if (name, True) in found]
    text = [f"\n## Cold start {cold_seconds} s\n"]
    text.append(together(found, names))
    calm = [name for name in names if name != BURSTS]
    if calm != names:
        text.append(together(found, calm))
    for name in names:
        own = {policy: [row[1:] for row in found[name, True][policy]] for policy in POLICIES} | {
            f"{policy}, setting of hindsight": [row[1:] for row in found[name, False][policy]]
            for policy in POLICIES[1:]
        }
        text.append(table(f"{name}", own))
    targets = "\n\nTarget asked and bad ratio found, ours:\n\n| trace | "
    asked = [row[0] for row in found[names[0], True]["predictive"]]
    targets += " | ".join(f"{target:.0e}" for target in asked) + " |\n"
    targets += "|---" * (len(asked) + 1) + "|\n"
    for name in names:
        kept = [f"{row[2]:.1e}" for row in found[name, True]["predictive"]]
        targets += f"| {name} | " + " | ".join(kept) + " |\n"
    return "".join([*text, targets])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=Path, required=True)
    parser.add_argument("--cold-starts", default="180,30,480")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    colds = [int(text) for text in options.cold_starts.split(",")]
    jobs = [
        Job(options.traces / f"{name}.csv", cold, calibrated)
        for cold in colds
        for name in POOLED
        for calibrated in (True, False)
        if (options.traces / f"{name}.csv").exists()
    ]
    with ThreadPoolExecutor(options.workers) as pool:
        results = list(pool.map(run, jobs))
    set_part("comparison", HEAD + "".join(page(results, cold) for cold in colds), options.out)
    print(options.out.read_text())


HEAD = """# Policies compared

Written by `make bench-policies`. Excess is GPU-hours over the clairvoyant optimum; the bad ratio
is the share of requests that failed or were late beyond what a P99 objective allows. Fluid engine.
"""


if __name__ == "__main__":
    main()
