"""`python -m bench.seeds --traces DIR`: the headline with other arrivals. Writes its part of
docs/policies.md.

The tables of bench.policies are of one seed. Here ours and the best peer, calibrated to the same
targets, meet the same traces with others: each second's requests drawn anew.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.parts import set_part
from bench.policies import LEVELS, PAGE, POOLED, Job, Points, least, pooled, run

COLD_SECONDS = 180
COMPARED = ("predictive", "asymmetric_concurrency")


def page(found: dict[int, list[Points]], names: Sequence[str]) -> str:
    head = " | ".join(f"{level:.0e}" for level in LEVELS)
    lines = [
        f"""## Other seeds

One target for all of {", ".join(names)}; cold start {COLD_SECONDS} s, every second's requests
drawn anew: mean excess at a mean bad ratio.

| seed | policy | {head} |
{"|---" * (len(LEVELS) + 2)}|
"""
    ]
    for seed, by_trace in found.items():
        for policy in COMPARED:
            points = pooled([points[policy] for points in by_trace])
            cells = [least(points, level) for level in LEVELS]
            shown = ["not reached" if cell is None else f"{cell:+.3f}" for cell in cells]
            lines.append(f"| {seed} | {policy} | " + " | ".join(shown) + " |\n")
    return "".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    traces = [options.traces / f"{name}.csv" for name in POOLED]
    jobs = [
        Job(trace, COLD_SECONDS, calibrated=True, policies=COMPARED, seed=seed)
        for seed in options.seeds
        for trace in traces
    ]
    found: dict[int, list[Points]] = {seed: [] for seed in options.seeds}
    with ThreadPoolExecutor(options.workers) as pool:
        for job, points in pool.map(run, jobs):
            found[job.seed].append(points)
    set_part("seeds", page(found, POOLED), options.out)


if __name__ == "__main__":
    main()
