"""The pod model: continuous batching by a linear step time, and the lengths of its requests.

One engine step takes T = t0 + t1 * decoding sequences + tp * prefill tokens; a request takes as
many steps as it has output tokens; at most `max_num_seqs` run at once. The parameters are fits to
published figures, not measurements of a real vLLM.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from forecaster.history import Floats

Lengths = npt.NDArray[np.int64]

TABLE = 4096
"""Equally likely lengths that stand for a distribution."""
QUANTILES = (np.arange(TABLE) + 0.5) / TABLE
MAX_LENGTH = (1 << 16) - 1
MAX_INPUT = 1 << 20


@dataclass(frozen=True)
class PodProfile:
    """Times in seconds, lengths in tokens.

    Outputs are lognormal, cut at `max_output_tokens`, and inputs all alike, unless
    `output_lengths` or `input_lengths` are given: TABLE equally likely lengths, which then say the
    mean too. Outputs of more than 255 tokens make the exact engine slower. A request that waits
    longer than `timeout_seconds` for its first step fails, and so do those beyond `max_waiting` of
    them in a pod (None: any number may wait). A batch is bounded by
    `kv_tokens` where each request reserves the mean of input and output. Raises ValueError for
    lengths that are not TABLE whole numbers from 1 to MAX_LENGTH (inputs: of any length).
    """

    name: str
    t0_seconds: float
    t1_seconds: float
    tp_seconds: float
    max_num_seqs: int = 512
    input_tokens: float = 50.0
    output_tokens: float = 50.0
    output_sigma: float = 0.5
    max_output_tokens: int = 255
    front_end_seconds: float = 0.010
    timeout_seconds: float = 10.0
    max_waiting: int | None = None
    token_budget: int = 8192
    kv_tokens: int | None = None
    output_lengths: tuple[int, ...] | None = None
    input_lengths: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.output_lengths is not None:
            _check("output", self.output_lengths, MAX_LENGTH)
            object.__setattr__(self, "output_tokens", float(np.mean(self.output_lengths)))
        if self.input_lengths is not None:
            _check("input", self.input_lengths, MAX_INPUT)
            object.__setattr__(self, "input_tokens", float(np.mean(self.input_lengths)))

    @cached_property
    def outputs(self) -> Lengths:
        """TABLE equally likely output lengths, rising."""
        if self.output_lengths is None:
            return lognormal_lengths(self.output_tokens, self.output_sigma, self.max_output_tokens)
        return np.sort(np.array(self.output_lengths, dtype=np.int64))

    @cached_property
    def inputs(self) -> Lengths:
        """TABLE equally likely input lengths, rising."""
        if self.input_lengths is None:
            return np.full(TABLE, max(1, round(self.input_tokens)), dtype=np.int64)
        return np.sort(np.array(self.input_lengths, dtype=np.int64))

    @cached_property
    def batch(self) -> int:
        """Requests that run at once, at most."""
        if self.kv_tokens is None:
            return self.max_num_seqs
        reserved = self.input_tokens + self.output_tokens
        return min(self.max_num_seqs, int(self.kv_tokens / reserved))

    @cached_property
    def slope_seconds(self) -> float:
        """Step time that each request in the batch adds."""
        decoding = self.t1_seconds * (self.output_tokens - 1) / self.output_tokens
        return decoding + self.tp_seconds * self.input_tokens / self.output_tokens

    @cached_property
    def full_step_seconds(self) -> float:
        return self.t0_seconds + self.slope_seconds * self.batch

    @cached_property
    def saturation_qps(self) -> float:
        return self.batch / (self.output_tokens * self.full_step_seconds)

    @cached_property
    def length_cdf(self) -> Floats:
        """P(output length <= l) for l = 0 .. the longest."""
        return np.asarray(np.cumsum(np.bincount(self.outputs)) / TABLE, dtype=np.float64)

    def step_seconds(self, qps: float) -> float:
        """Steady step time at a rate per pod (Little: batch = rate * output * step)."""
        return self.t0_seconds / (1 - self.slope_seconds * qps * self.output_tokens)

    def concurrency_at(self, qps: float) -> float:
        """Requests in the batch of one pod at a rate below saturation."""
        return qps * self.output_tokens * self.step_seconds(qps)

    def length_at(self, level: float) -> int:
        """The output length that a share of so much does not exceed."""
        return int(np.searchsorted(self.length_cdf, level))

    def p99_at(self, qps: float) -> float:
        return (self.length_at(0.99) + 0.5) * self.step_seconds(qps) + self.front_end_seconds

    def capacity_within(self, slo_seconds: float) -> float:
        """The highest rate per pod whose P99 meets the SLO; raises ValueError where none does."""
        low, high = 0.0, self.saturation_qps * (1 - 1e-9)
        idle = self.p99_at(low)
        if idle > slo_seconds:
            raise ValueError(
                f"profile {self.name} is above {slo_seconds:g} s even when idle: "
                f"its P99 is {idle:.2f} s"
            )
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.p99_at(middle) <= slo_seconds else (low, middle)
        return low


def profile_like(profile: PodProfile, qps_per_replica: float, slo_seconds: float) -> PodProfile:
    """Pods of which only the rate within the SLO is known, with another profile's shape: its times
    stretched to the objective, its batch to the rate."""
    wide = qps_per_replica * slo_seconds / profile.capacity_within(1.0)
    return replace(
        profile,
        name=f"like {profile.name}",
        t0_seconds=profile.t0_seconds * slo_seconds,
        t1_seconds=profile.t1_seconds * slo_seconds / wide,
        tp_seconds=profile.tp_seconds * slo_seconds / wide,
        max_num_seqs=max(1, round(profile.max_num_seqs * wide)),
        front_end_seconds=profile.front_end_seconds * slo_seconds,
        timeout_seconds=profile.timeout_seconds * slo_seconds,
    )


def lognormal_lengths(mean: float, sigma: float, longest: int) -> Lengths:
    """TABLE equally likely lengths, lognormal, rounded and cut to 1 .. longest.

    The location is found by bisection, so that the mean after rounding and cutting is right.
    """
    spread = np.exp(sigma * np.asarray(ndtri(QUANTILES), dtype=np.float64))
    low, high = 0.0, 2.0 * mean
    for _ in range(60):
        location = (low + high) / 2
        lengths = np.clip(np.rint(location * spread), 1, longest)
        low, high = (location, high) if lengths.mean() < mean else (low, location)
    return np.asarray(lengths, dtype=np.int64)


def _check(what: str, lengths: tuple[int, ...], longest: int) -> None:
    if len(lengths) != TABLE or min(lengths) < 1 or max(lengths) > longest:
        raise ValueError(f"{what} lengths must be {TABLE} whole numbers from 1 to {longest}")


PROFILES: dict[str, PodProfile] = {
    "h100-1200": PodProfile("h100-1200", 2.5e-3, 7.0e-6, 5.0e-6),
    "h100-750": PodProfile("h100-750", 3.4e-3, 12.0e-6, 8.0e-6),
    "l40s": PodProfile("l40s", 4.5e-3, 17.0e-6, 14.0e-6, max_num_seqs=128),
}
