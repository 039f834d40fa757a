"""Traffic that tests forecast: generated weeks, and the real traces where they are at hand."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from forecaster.history import TrafficHistory
from simulator.traces.generate import Diurnal, generate
from simulator.traces.trace_file import read_trace

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
TRACES = Path(__file__).parents[1] / ".." / "shared" / "traces"


@cache
def weeks(count: int = 3, seed: int = 7) -> TrafficHistory:
    return generate(Diurnal(), MONDAY, 7 * count, seed)


def real_trace(name: str) -> TrafficHistory:
    """A measured trace; without the folder the test is skipped at home and fails in CI."""
    path = TRACES / f"{name}.csv"
    if not path.exists():
        message = f"the measured traces are not at {TRACES}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return read_trace(path)


def office_hours(days: int, off_minutes: int, seed: int = 1) -> TrafficHistory:
    """By the minute: a twentieth at night and on weekends, all of it from nine to five, where each
    day begins and ends by up to so many minutes early or late."""
    rng = np.random.default_rng(seed)
    rates = np.full((days, 1440), 5_000.0)
    for day in range(days):
        first, last = (
            60 * hour + int(rng.integers(-off_minutes, off_minutes + 1)) for hour in (9, 17)
        )
        if day % 7 < 5:
            rates[day, first:last] = 100_000.0
    noise = np.exp(rng.normal(0, 0.03, days * 1440))
    return TrafficHistory("office", MONDAY, 60, rates.ravel() * noise)


def jobs_by_the_hour(days: int, seed: int = 1) -> TrafficHistory:
    """Calm traffic by the minute, and in every fourth half hour, which nobody can foresee, a job
    that adds three to four times as much from two minutes past it on, for five minutes."""
    rng = np.random.default_rng(seed)
    minutes = np.arange(days * 1440)
    sizes = np.where(rng.random(days * 48) < 0.25, rng.uniform(90_000, 120_000, days * 48), 0.0)
    works = (minutes % 30 >= 2) & (minutes % 30 < 7)
    calm = 30_000 * np.exp(rng.normal(0, 0.01, len(minutes)))
    return TrafficHistory("jobs", MONDAY, 60, calm + np.repeat(sizes, 30) * works)
