"""Benchmark: the results of `vllm bench serve --save-result`, a run a document.

A closed loop (`--max-concurrency` without a request rate) keeps its number of requests in flight,
so that what decodes is known from the latencies alone: the start and the end of a short run, when
fewer are in flight, do not count. Elsewhere it follows from the throughput (Little's law).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scaler.settings_file import SettingsError, explained
from simulator.measured.measurement import Measured, Measurement

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Counts = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
LENGTHS = 200
"""Quantiles of the lengths that a detailed result holds."""
QUEUED = 1.25
"""Times as many in flight with no more in the batch: the rest waits for a place in it."""
AS_MANY = 0.05


class Result(BaseModel):
    """What is read of a result; its other keys do not matter."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    completed: Annotated[int, Field(ge=1)]
    total_input_tokens: Annotated[int, Field(ge=0)]
    total_output_tokens: Annotated[int, Field(ge=1)]
    request_throughput: Positive
    mean_ttft_ms: NotNegative
    mean_tpot_ms: Positive
    p99_e2el_ms: Positive | None = None
    max_concurrency: Annotated[int, Field(ge=1)] | None = None
    request_rate: float | None = None
    input_lens: Counts | None = None
    output_lens: Counts | None = None

    @property
    def inputs(self) -> float:
        return self.total_input_tokens / self.completed

    @property
    def outputs(self) -> float:
        return self.total_output_tokens / self.completed

    @property
    def step_seconds(self) -> float:
        return self.mean_tpot_ms / 1e3

    @property
    def latency_seconds(self) -> float:
        """From the request to the last token."""
        return self.mean_ttft_ms / 1e3 + (self.outputs - 1) * self.step_seconds

    @property
    def kept_in_flight(self) -> int | None:
        """How many requests a closed loop kept in flight."""
        open_loop = self.request_rate is not None and math.isfinite(self.request_rate)
        return None if open_loop else self.max_concurrency

    @property
    def steady_qps(self) -> float:
        kept = self.kept_in_flight
        return self.request_throughput if kept is None else kept / self.latency_seconds

    @property
    def in_batch(self) -> float:
        return self.steady_qps * self.outputs * self.step_seconds


def measured_runs(found: Iterable[tuple[Path, Any]]) -> Measured:
    """What these documents of these files tell; raises SettingsError."""
    results = [_result(path, each) for path, document in found for each in _listed(document)]
    return Measured(
        tuple(_measurement(each) for each in results),
        _lengths([each.output_lens for each in results], [each.outputs for each in results]),
        _lengths([each.input_lens for each in results], [each.inputs for each in results]),
        _batch(results),
    )


def is_result(document: Any) -> bool:
    """Whether it is a benchmark's result, or a list of them."""
    first = next(iter(_listed(document)), None)
    return isinstance(first, dict) and "mean_tpot_ms" in first


def _listed(document: Any) -> Sequence[Any]:
    return document if isinstance(document, list) else [document]


def _result(path: Path, document: Any) -> Result:
    try:
        result = Result.model_validate(document)
    except ValidationError as error:
        raise SettingsError(explained(path, error)) from error
    if result.outputs < 2:
        raise SettingsError(
            f"{path}: total_output_tokens: expected two tokens a request or more, since the time "
            f"of a step is the time between them (got {result.outputs:.1f})"
        )
    return result


def _measurement(result: Result) -> Measurement:
    kept, step = result.kept_in_flight, result.step_seconds
    return Measurement(
        step_seconds=step,
        decoding=result.steady_qps * (result.outputs - 1) * step,
        prompt_tokens=result.steady_qps * result.inputs * step,
        prompt=result.inputs,
        first_token_seconds=result.mean_ttft_ms / 1e3,
        requests_per_second=result.request_throughput,
        in_flight=None if kept is None else float(kept),
        p99_seconds=None if result.p99_e2el_ms is None else result.p99_e2el_ms / 1e3,
    )


def _lengths(detailed: Sequence[Counts | None], means: Sequence[float]) -> tuple[float, ...]:
    """As they were, where every run tells each request's; else all like their mean."""
    if all(each is not None for each in detailed):
        levels = (np.arange(LENGTHS) + 0.5) / LENGTHS
        every = np.concatenate([np.array(each) for each in detailed])
        return tuple(np.quantile(every, levels).round(1).tolist())
    return (max(1.0, round(float(np.mean(means)), 1)),)


def _batch(results: Sequence[Result]) -> int | None:
    """What ran at once in the two runs with the most in flight, where the one kept more in flight
    than the other and no more of them ran."""
    closed = sorted(
        (each.kept_in_flight, each.in_batch) for each in results if each.kept_in_flight is not None
    )
    if len(closed) < 2:
        return None
    (fewer, one), (more, other) = closed[-2:]
    queued = more >= QUEUED * fewer and abs(other / one - 1) <= AS_MANY
    return round(max(one, other)) if queued else None
