"""Where a replay of a trace begins, and the steps in which its history is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecaster.history import TrafficHistory
from simulator.traces.arrivals import on_step
from simulator.traces.grid import aligned, first_start, fits, fitting_step

STEPS = st.sampled_from([1, 2, 5, 7, 10, 13, 15, 17, 30, 60, 100, 300, 1800, 3600, 86_400])


@given(STEPS, STEPS, st.integers(0, 100_000), st.floats(0, 5))
def test_a_replay_begins_where_a_step_of_both_begins(
    trace_step: int, usual: int, odd: int, warmup: float
) -> None:
    step = fitting_step(trace_step, usual)
    assert fits(trace_step, step)
    start = datetime(2026, 3, 2, tzinfo=UTC) + timedelta(seconds=odd)
    given_trace = TrafficHistory("trace", start, trace_step, np.ones(20))
    trace = aligned(given_trace, step)
    assert timedelta() <= start - trace.start < timedelta(seconds=min(trace_step, step))

    wanted = trace.start + warmup * trace.step
    begins = first_start(trace, wanted, step)
    assert wanted - timedelta(milliseconds=1) <= begins
    assert begins - wanted < timedelta(seconds=max(trace_step, step))
    assert (begins - trace.start) % trace.step == timedelta()
    assert begins.timestamp() % step == 0
    on_step(trace, step)  # can be told


@pytest.mark.parametrize(
    ("trace_step", "expected"), [(15, 15), (60, 15), (5, 15), (7, 21), (100, 10), (17, 17)]
)
def test_the_step_is_near_to_the_usual_one(trace_step: int, expected: int) -> None:
    assert fitting_step(trace_step, 15) == expected
