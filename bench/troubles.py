"""`python -m bench.troubles`: made-up fortnights with one kind of trouble each, and what policies
make of them with one target for all. Writes its part of docs/policies.md.

The second week is scored, with a cold start of 180 s; peers are calibrated to the same targets as
ours, and ours is also scraped and decided on as often as they are. Each kind is drawn with several
seeds.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from bench.parts import set_part
from bench.policies import PAGE, Job, Points, calibrated_jobs, pooled, run, table
from forecaster.history import TrafficHistory
from simulator.traces.generate import Diurnal, generate
from simulator.traces.trace_file import write_trace

DAYS, MINUTES = 14, 1440
COLD_SECONDS = 180
MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
USUAL = Diurnal(noise=0.03)
Span = tuple[int, int, float]
"""First minute, minutes, and what demand is multiplied by in them."""


def edges(rng: np.random.Generator) -> Iterator[Span]:
    """Jobs by the clock: on working days at nine and two, each night half past ten."""
    for day in range(DAYS):
        working = (day % 7 < 5, day % 7 < 5, True)
        starts = ((9 * 60, 10, 0.6), (14 * 60, 20, 0.4), (22 * 60 + 30, 30, 0.8))
        for (minute, long, more), runs in zip(starts, working, strict=True):
            late = int(rng.integers(-1, 2))
            if runs:
                yield day * MINUTES + minute + late, long, 1 + more * rng.uniform(0.9, 1.1)


def jobs(rng: np.random.Generator) -> Iterator[Span]:
    """Jobs that start at one minute of the hour, in one hour of four by chance, for ten minutes."""
    minute = int(rng.integers(0, 60))
    for hour in np.flatnonzero(rng.random(DAYS * 24) < 0.25):
        yield int(hour) * 60 + minute, 10, rng.uniform(2.0, 3.0)


def outages(rng: np.random.Generator) -> Iterator[Span]:
    """Almost all traffic gone for a quarter of an hour to an hour and a half, and back at once."""
    for day in (2, 5, 8, 10, 12):
        yield _by_day(rng, day), int(rng.integers(15, 90)), 0.02


def silences(rng: np.random.Generator) -> Iterator[Span]:
    """As outages, with nothing left, and none of them in the first week."""
    for day in (8, 10, 12, 13):
        yield _by_day(rng, day), int(rng.integers(15, 90)), 0.0


def dips(rng: np.random.Generator) -> Iterator[Span]:
    """A third to two thirds of the traffic gone for minutes, three times a day."""
    for day in np.repeat(range(DAYS), 3):
        yield _by_day(rng, int(day)), int(rng.integers(4, 16)), rng.uniform(0.4, 0.7)


def blips(rng: np.random.Generator) -> Iterator[Span]:
    """A minute or two of nothing, a tenth or a half, six times a day."""
    for minute in rng.integers(0, DAYS * MINUTES, 6 * DAYS):
        yield int(minute), int(rng.integers(1, 3)), float(rng.choice([0.0, 0.1, 0.5]))


def shifts(rng: np.random.Generator) -> Iterator[Span]:
    """A new level for good within five minutes, four times."""
    for day, factor in ((4, 1.3), (8, 1.4), (10, 0.65), (12, 1.5)):
        first = _by_day(rng, day)
        for minute in range(5):
            yield first + minute, 1, float(np.linspace(1, factor, 5)[minute])
        yield first + 5, DAYS * MINUTES, factor


def spikes(rng: np.random.Generator) -> Iterator[Span]:
    """A third more to twice as much for two to five minutes, twice a day."""
    for day in np.repeat(range(DAYS), 2):
        yield _by_day(rng, int(day)), int(rng.integers(2, 6)), rng.uniform(1.3, 2.2)


def office(rng: np.random.Generator) -> Iterator[Span]:
    """A tenth but from nine to five on working days, a quarter of an hour early or late at most."""
    closed = 0
    for day in (day for day in range(DAYS) if day % 7 < 5):
        opens, closes = (day * MINUTES + 60 * hour for hour in (9, 17))
        opens += int(rng.integers(-15, 16))
        yield closed, opens - closed, 0.1
        closed = closes + int(rng.integers(-15, 16))
    yield closed, DAYS * MINUTES, 0.1


TROUBLES: dict[str, Callable[[np.random.Generator], Iterator[Span]]] = {
    each.__name__: each
    for each in (edges, jobs, office, outages, silences, dips, blips, shifts, spikes)
}


def _by_day(rng: np.random.Generator, day: int) -> int:
    return day * MINUTES + int(rng.integers(8 * 60, 19 * 60))


def fortnight(trouble: str, seed: int) -> TrafficHistory:
    usual = generate(USUAL, MONDAY, DAYS, seed)
    values = usual.values.copy()
    for first, minutes, factor in TROUBLES[trouble](np.random.default_rng(seed)):
        values[first : first + minutes] *= factor
    return replace(usual, series=trouble, values=values)


def page(found: dict[str, list[Points]]) -> str:
    """Pooled over everything, then each trouble pooled over its seeds."""
    every = [points for several in found.values() for points in several]
    text = [HEAD, _table("All of them", every)]
    text += [
        _table(f"{name}: {TROUBLES[name].__doc__}", several) for name, several in found.items()
    ]
    return "".join(text)


def _table(title: str, several: list[Points]) -> str:
    rows = {policy: pooled([points[policy] for points in several]) for policy in several[0]}
    return table(title, rows)


HEAD = """## Made-up troubles

Generated fortnights (`python -m bench.troubles`), each with one kind of trouble, the second week
scored; cold start 180 s, one target for all, peers calibrated to the same targets. Mean excess at a
mean bad ratio, as above.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=tuple(TROUBLES), default=tuple(TROUBLES))
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    drawn = [(name, seed) for name in options.only for seed in range(1, options.seeds + 1)]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.workers) as pool:
        jobs: list[Job] = []
        for name, seed in drawn:
            path = Path(folder) / f"{name}-{seed}.csv"
            write_trace(fortnight(name, seed), path)
            jobs += calibrated_jobs(path, COLD_SECONDS)
        results = list(pool.map(run, jobs))
    by_path: dict[Path, Points] = {}
    for job, points in results:
        by_path.setdefault(job.trace, {}).update(job.named(points))
    found: dict[str, list[Points]] = {name: [] for name in options.only}
    for (name, _), points in zip(drawn, by_path.values(), strict=True):
        found[name].append(points)
    set_part("troubles", page(found), options.out)


if __name__ == "__main__":
    main()
