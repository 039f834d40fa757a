"""Histograms: vLLM's own metrics, as the JSON of a Prometheus range query.

A step of the query is a measurement of a pod. The time between tokens, summed over a second, is
the number of sequences that decode; a token of Poisson arrivals finds one more in its batch than
there are on average, its own (PASTA).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from forecaster.history import Floats
from scaler.settings_file import SettingsError
from simulator.measured.measurement import Measured, Measurement

STEP = ("inter_token_latency_seconds", "time_per_output_token_seconds")
"""The newer name, and the one before it."""
FIRST, PROMPTS = "time_to_first_token_seconds", "prompt_tokens_total"
RUNNING, WAITING = "num_requests_running", "num_requests_waiting"
OUTPUT_LENGTHS, INPUT_LENGTHS = "request_generation_tokens", "request_prompt_tokens"
QUERY = (
    '{__name__=~"vllm[:_]('
    + "|".join(
        (
            *(f"{name}_(sum|count)" for name in (*STEP, FIRST)),
            PROMPTS,
            RUNNING,
            WAITING,
            *(f"{name}_bucket" for name in (OUTPUT_LENGTHS, INPUT_LENGTHS)),
        )
    )
    + ')",namespace="..."}'
)
"""What a range query asks for."""
LEAST_TOKENS = 1000
"""Tokens in a step of the query, from which on their mean time is one."""
QUANTILES = (np.arange(200) + 0.5) / 200

Pod = tuple[tuple[str, str], ...]
Samples = dict[float, float]
Series = dict[str, Samples]


def is_range(document: Any) -> bool:
    return isinstance(document, dict) and "status" in document and "data" in document


def measured_pods(found: Iterable[tuple[Path, Any]]) -> Measured:
    """What these answers tell of all pods in them; raises SettingsError."""
    pods: dict[Pod, Series] = {}
    lengths: dict[str, dict[float, float]] = {OUTPUT_LENGTHS: {}, INPUT_LENGTHS: {}}
    paths = []
    for path, document in found:
        paths.append(path)
        for labels, samples in _series(path, document):
            _take(labels, samples, pods, lengths)
    where = ", ".join(str(path) for path in dict.fromkeys(paths))
    measurements = tuple(each for pod in pods.values() for each in _measurements(pod))
    if not measurements:
        raise SettingsError(
            f"{where}: holds no two samples of {STEP[0]}_sum and _count of one pod, {PROMPTS} "
            f"beside them, with {LEAST_TOKENS:,} tokens between and nothing waiting. Query {QUERY}"
        )
    return Measured(
        measurements,
        _lengths(where, OUTPUT_LENGTHS, lengths[OUTPUT_LENGTHS]),
        _lengths(where, INPUT_LENGTHS, lengths[INPUT_LENGTHS]),
        _batch(pods.values()),
    )


def _series(path: Path, document: Any) -> Iterator[tuple[dict[str, str], Samples]]:
    data = document.get("data") if document.get("status") == "success" else None
    if not isinstance(data, dict) or data.get("resultType") != "matrix":
        raise SettingsError(f"{path}: expected the JSON of a successful Prometheus range query")
    try:
        for each in data["result"]:
            pairs = ((float(at), float(value)) for at, value in each["values"])
            # A sample that is no number tells nothing, as one that is not there.
            known = {at: value for at, value in pairs if math.isfinite(value)}
            float(each["metric"].get("le", 0))
            yield dict(each["metric"]), known
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SettingsError(
            f"{path}: expected series with a metric and values of time and number: {error!r}"
        ) from error


def _take(
    labels: dict[str, str],
    samples: Samples,
    pods: dict[Pod, Series],
    lengths: dict[str, dict[float, float]],
) -> None:
    """Put a series with its pod, and a bucket with its histogram."""
    name = labels.pop("__name__", "").removeprefix("vllm").lstrip(":_")
    if name.endswith("_bucket"):
        histogram, bound = lengths.get(name.removesuffix("_bucket")), float(labels.get("le", "nan"))
        if histogram is not None and bound == bound:  # noqa: PLR0124
            histogram[bound] = histogram.get(bound, 0.0) + _increase(samples)
        return
    for older in STEP[1:]:
        name = name.replace(older, STEP[0])
    pod = pods.setdefault(tuple(sorted(labels.items())), {})
    pod.setdefault(name, {}).update(samples)


def _increase(samples: Samples) -> float:
    """What a counter grew by, from nothing on where it began anew."""
    values = np.array([samples[at] for at in sorted(samples)])
    grown = np.diff(values)
    return float(np.where(grown >= 0, grown, values[1:]).sum())


def _measurements(pod: Series) -> Iterator[Measurement]:
    needed = [pod.get(name) for name in (f"{STEP[0]}_sum", f"{STEP[0]}_count", PROMPTS)]
    if any(samples is None for samples in needed):
        return
    spent, tokens, prompts = (samples or {} for samples in needed)
    first_spent, firsts = pod.get(f"{FIRST}_sum", {}), pod.get(f"{FIRST}_count", {})
    waiting = pod.get(WAITING, {})
    times = sorted(spent.keys() & tokens.keys() & prompts.keys())
    for before, now in pairwise(times):
        if waiting.get(before, 0.0) or waiting.get(now, 0.0):
            continue  # a full batch is no chance that a token finds itself in
        grown = tokens[now] - tokens[before]
        seconds = spent[now] - spent[before]
        entered = prompts[now] - prompts[before]
        if grown < LEAST_TOKENS or seconds <= 0 or entered < 0:
            continue
        step = seconds / grown
        requests = _grown(firsts, before, now)
        waited = _grown(first_spent, before, now)
        yield Measurement(
            step_seconds=step,
            decoding=seconds / (now - before) + 1.0,
            prompt_tokens=entered / (now - before) * step,
            prompt=entered / requests if requests > 0 else 0.0,
            first_token_seconds=waited / requests if requests > 0 and waited >= 0 else None,
        )


def _grown(counter: Samples, before: float, now: float) -> float:
    """NaN where it is not known at both."""
    return counter.get(now, math.nan) - counter.get(before, math.nan)


def _lengths(where: str, name: str, histogram: dict[float, float]) -> tuple[float, ...]:
    """Quantiles, evenly spread within a bucket; what lies beyond the last bound lies at it."""
    bounds = np.array(sorted(histogram))
    if not len(bounds) or histogram[bounds[-1]] <= 0:
        raise SettingsError(f"{where}: holds no request in {name}_bucket. Query {QUERY}")
    shares = np.array([histogram[bound] for bound in bounds.tolist()]) / histogram[bounds[-1]]
    finite = np.isfinite(bounds)
    edges: Floats = np.concatenate([[0.0], bounds[finite]])
    below: Floats = np.maximum.accumulate(np.concatenate([[0.0], shares[finite]]))
    return tuple(np.interp(QUANTILES, below, edges).round(1).tolist())


def _batch(pods: Iterable[Series]) -> int | None:
    """What ran in the middle of the moments at which requests waited, of the fullest pod."""
    found = []
    for pod in pods:
        running, waiting = pod.get(RUNNING, {}), pod.get(WAITING, {})
        full = [running[at] for at in running.keys() & waiting.keys() if waiting[at] > 0]
        found += [float(np.median(full))] if full else []
    return round(max(found)) if found else None
