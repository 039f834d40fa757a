"""Grid: the steps in which a replay tells its past, and the moment at which it begins.

The loop asks for history in steps that begin at whole multiples of their length since 1970, as
Prometheus is asked; a trace has steps of its own.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from forecaster.history import TrafficHistory

LONGEST_STEP = 3600


def fitting_step(trace_seconds: int, usual_seconds: int) -> int:
    """The step of a history that a trace can tell, near to the usual one: it divides the trace's
    or is a multiple of it."""
    if trace_seconds <= usual_seconds:
        return -(-usual_seconds // trace_seconds) * trace_seconds
    divisor = max(one for one in range(1, usual_seconds + 1) if trace_seconds % one == 0)
    far = 3 * divisor < usual_seconds and trace_seconds <= LONGEST_STEP
    return trace_seconds if far else divisor


def fits(trace_seconds: int, step_seconds: int) -> bool:
    """Whether a trace can tell a history of this step."""
    return trace_seconds % step_seconds == 0 or step_seconds % trace_seconds == 0


def aligned(trace: TrafficHistory, step_seconds: int) -> TrafficHistory:
    """The trace with steps that begin where those of a fitting history do: some seconds earlier,
    less than either step, where they begin at odd ones."""
    odd = round(trace.start.timestamp()) % min(trace.step_seconds, step_seconds)
    return replace(trace, start=trace.start - timedelta(seconds=odd)) if odd else trace


def first_start(trace: TrafficHistory, at: datetime, step_seconds: int) -> datetime:
    """The first moment from `at` on where a step of the trace and one of the history begin; the
    trace is on the history's grid."""
    if step_seconds <= trace.step_seconds:
        passed = (at - trace.start) / trace.step
        return trace.start + math.ceil(passed - 1e-9) * trace.step
    steps = math.ceil(at.timestamp() / step_seconds)
    return datetime.fromtimestamp(steps * step_seconds, UTC)
