"""Traffic that tests forecast: generated weeks, and the real traces where they are at hand."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

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
