"""A pod profile from a user's file: step times, bounds, and the lengths of requests.

Knows the file's keys, and how quantiles, a histogram or a table of another file become the
equally likely lengths that the engines draw from.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, ValidationError, model_validator

from scaler.setting_values import NotNegative
from scaler.settings import Section
from scaler.settings_file import SettingsError, explained, read_mapping
from simulator.pod import MAX_INPUT, MAX_LENGTH, QUANTILES, Lengths, PodProfile, lognormal_lengths

Length = Annotated[float, Field(ge=0, le=MAX_INPUT)]
USUAL_TOKEN_BUDGET = 8192


class LengthsSettings(Section):
    """Tokens a request, in one of four ways.

    `mean` with `sigma` is lognormal (sigma 0: all alike); `quantiles` are equally likely lengths;
    `histogram` gives each length its weight; `file` with `field` takes one of the two from a JSON
    file beside this one.
    """

    mean: Annotated[float, Field(ge=1, le=MAX_LENGTH)] | None = None
    sigma: Annotated[float, Field(ge=0, le=5)] = 0.0
    quantiles: Annotated[tuple[Length, ...], Field(min_length=1)] | None = None
    histogram: (
        Annotated[dict[Annotated[int, Field(ge=0, le=MAX_INPUT)], NotNegative], Field(min_length=1)]
        | None
    ) = None
    file: Path | None = None
    field: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> LengthsSettings:
        ways = (self.mean, self.quantiles, self.histogram, self.file)
        if sum(way is not None for way in ways) != 1:
            raise ValueError("give exactly one of mean, quantiles, histogram and file")
        if self.field is not None and self.file is None:
            raise ValueError("field goes with file")
        if self.histogram is not None and sum(self.histogram.values()) <= 0:
            raise ValueError("histogram: the weights must not all be 0")
        return self

    def lengths(self, folder: Path, longest: int) -> Lengths:
        """Equally likely lengths from 1 to `longest`; a file is looked for in the folder.

        Raises SettingsError where that file cannot be used.
        """
        if self.mean is not None:
            return lognormal_lengths(self.mean, self.sigma, longest)
        if self.file is not None:
            return self._from_file(folder / self.file, longest)
        if self.quantiles is not None:
            return _of_quantiles(np.array(self.quantiles), longest)
        return _of_histogram(self.histogram or {}, longest)

    def _from_file(self, path: Path, longest: int) -> Lengths:
        found = _read_json(path)
        if self.field is not None:
            if not isinstance(found, dict) or self.field not in found:
                known = ", ".join(map(str, found)) if isinstance(found, dict) else "no fields"
                raise SettingsError(f"{path}: has no field {self.field!r}; there are {known}")
            found = found[self.field]
        way = "quantiles" if isinstance(found, list) else "histogram"
        try:
            return LengthsSettings.model_validate({way: found}).lengths(path.parent, longest)
        except ValidationError as error:
            raise SettingsError(explained(path, error)) from error


class PodProfileSettings(Section):
    """A step takes t0 + t1 * decoding sequences + tp * prompt tokens.

    Without `tokenBudget` a step takes 8,192 tokens, or a full batch and the longest prompt where
    those are more, since a prompt is never split.
    """

    name: str | None = None
    t0_seconds: Annotated[float, Field(ge=2.5e-4, le=10)]
    t1_seconds: NotNegative
    tp_seconds: NotNegative
    max_num_seqs: Annotated[int, Field(ge=1, lt=1 << 16)] = 256
    token_budget: Annotated[int, Field(ge=1)] | None = None
    kv_tokens: Annotated[int, Field(ge=1)] | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    max_waiting: Annotated[int, Field(ge=0)] | None = None
    front_end_seconds: NotNegative = 0.010
    max_output_tokens: Annotated[int, Field(ge=1, le=MAX_LENGTH)] = MAX_LENGTH
    output_tokens: LengthsSettings
    input_tokens: LengthsSettings

    def profile(self, path: Path) -> PodProfile:
        """Raises SettingsError where the lengths do not fit the bounds."""
        outputs = self.output_tokens.lengths(path.parent, self.max_output_tokens)
        inputs = self.input_tokens.lengths(path.parent, MAX_INPUT)
        needed = self.max_num_seqs + int(inputs.max())
        budget = self.token_budget or max(USUAL_TOKEN_BUDGET, needed)
        if budget < needed:
            raise SettingsError(
                f"{path}: tokenBudget: must hold a full batch and the longest prompt, "
                f"{needed} tokens (got {budget})"
            )
        profile = PodProfile(
            self.name or path.stem,
            self.t0_seconds,
            self.t1_seconds,
            self.tp_seconds,
            max_num_seqs=self.max_num_seqs,
            max_output_tokens=self.max_output_tokens,
            front_end_seconds=self.front_end_seconds,
            timeout_seconds=self.timeout_seconds,
            max_waiting=self.max_waiting,
            token_budget=budget,
            kv_tokens=self.kv_tokens,
            output_lengths=tuple(outputs.tolist()),
            input_lengths=tuple(inputs.tolist()),
        )
        if profile.batch < 1:
            raise SettingsError(f"{path}: kvTokens: cannot hold a single request of mean length")
        return profile


def load_pod_profile(path: Path) -> PodProfile:
    """Read and check a profile file, YAML or JSON; raises SettingsError with every problem."""
    document = read_mapping(path, "t0Seconds, outputTokens and the other keys of a pod profile")
    try:
        return PodProfileSettings.model_validate(document).profile(path)
    except ValidationError as error:
        raise SettingsError(explained(path, error)) from error


def _of_quantiles(quantiles: Any, longest: int) -> Lengths:
    """Between two of the given quantiles lengths are taken as evenly spread."""
    rising = np.sort(quantiles)
    given = (np.arange(len(rising)) + 0.5) / len(rising)
    return _whole(np.interp(QUANTILES, given, rising), longest)


def _of_histogram(weights: dict[int, float], longest: int) -> Lengths:
    lengths = np.array(sorted(weights))
    shares = np.cumsum([weights[length] for length in lengths.tolist()])
    return _whole(lengths[np.searchsorted(shares / shares[-1], QUANTILES)], longest)


def _whole(lengths: Any, longest: int) -> Lengths:
    return np.asarray(np.clip(np.rint(lengths), 1, longest), dtype=np.int64)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{path}: is not valid JSON: {error}") from error
