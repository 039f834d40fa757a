"""`make bench`: run the loop's benchmarks, each in a process of its own, and write their part of
docs/benchmarks.md."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from bench.parts import set_part


def measure(benchmark: str) -> dict[str, float]:
    """A fresh process each, so that peak memory is the benchmark's own."""
    command = [sys.executable, "-m", "bench.loop", benchmark]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def machine() -> str:
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


def page(one: dict[str, float], thousand: dict[str, float]) -> str:
    return f"""# Benchmarks

Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {machine()}. Absolute times belong to that
machine.

## What a decision costs, without the network

One workload, {WEEKS_TEXT}: observe, forecast, decide, record in SQLite, act, record.

| | measured | target |
|---|---|---|
| fit of the forecast | {one["fit_seconds"]:.2f} s | under 1 s |
| fit and calibration by replay | {one["fit_and_calibrate_seconds"]:.1f} s | once a day |
| decision, median | {one["tick_ms_median"]:.1f} ms | |
| decision, P99 | {one["tick_ms_p99"]:.1f} ms | under 20 ms |

{thousand["workloads"]:,.0f} workloads in one process, each with a model and {WEEKS_TEXT}:

| | measured | target |
|---|---|---|
| one round of decisions, median | {thousand["round_seconds_median"]:.2f} s | under 5 s |
| one round of decisions, slowest | {thousand["round_seconds_max"]:.2f} s | |
| peak memory | {thousand["peak_memory_gib"]:.2f} GiB | under 2 GiB |
"""


WEEKS_TEXT = "four weeks of history at one minute"


def main() -> None:
    text = page(measure("one"), measure("thousand"))
    set_part("loop", text)
    print(text)


if __name__ == "__main__":
    main()
