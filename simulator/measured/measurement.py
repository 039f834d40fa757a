"""Measurement: engine steps under one load, and the files that tell of them.

Knows what a fit of the pod model reads. Knows no format but JSON, and no model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaler.settings_file import SettingsError
from simulator.traces.log_file import blocks, ignored

MAX_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Measurement:
    """One load: seconds a step, and on average how many sequences decode in it and how many prompt
    tokens enter with it.

    `first_token_seconds` is the mean time to the first token of prompts of `prompt` tokens. Of a
    benchmark's run also requests a second, how many were in flight all the time, and its 99th
    percentile in seconds; None where it is not known.
    """

    step_seconds: float
    decoding: float
    prompt_tokens: float
    prompt: float = 0.0
    first_token_seconds: float | None = None
    requests_per_second: float | None = None
    in_flight: float | None = None
    p99_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """Every load that was measured, and the lengths of its requests in tokens: equally likely ones,
    or one that all are like. `batch` is what ran while more waited, None where nothing waited."""

    measurements: tuple[Measurement, ...]
    output_tokens: tuple[float, ...]
    input_tokens: tuple[float, ...]
    batch: int | None


def documents(path: Path) -> Iterator[Any]:
    """The JSON documents of a file, plain or gzipped, one after the other.

    Raises SettingsError or TraceError where it is none, or more than 256 MiB.
    """
    data = next(blocks(path, MAX_BYTES + 1, ignored), b"")
    if len(data) > MAX_BYTES:
        raise SettingsError(f"{path}: expected at most {MAX_BYTES >> 20} MiB of JSON")
    try:
        text = data.decode()
        at = _next(text, 0)
        if at == len(text):
            raise SettingsError(f"{path}: is empty")
        while at < len(text):
            document, end = json.JSONDecoder().raw_decode(text, at)
            yield document
            at = _next(text, end)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path}: is not JSON: {error}") from error


def _next(text: str, at: int) -> int:
    """Where the next document begins."""
    while at < len(text) and text[at].isspace():
        at += 1
    return at
