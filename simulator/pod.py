"""The pod model: continuous batching by a linear step time, and the lengths of its requests.

One engine step takes T = t0 + t1 * decoding sequences + tp * prefill tokens; a request takes as
many steps as it has output tokens; at most `max_num_seqs` run at once. The parameters are fits to
published figures, not measurements of a real vLLM.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import ndtri

from forecaster.history import Floats

MAX_LENGTH = 255


@dataclass(frozen=True)
class PodProfile:
    """Times in seconds, lengths in tokens."""

    name: str
    t0_seconds: float
    t1_seconds: float
    tp_seconds: float
    max_num_seqs: int = 512
    input_tokens: float = 50.0
    output_tokens: float = 50.0
    output_sigma: float = 0.5
    front_end_seconds: float = 0.010
    timeout_seconds: float = 10.0
    token_budget: int = 8192
    kv_tokens: int | None = None

    @cached_property
    def slope_seconds(self) -> float:
        """Step time that each request in the batch adds."""
        decoding = self.t1_seconds * (self.output_tokens - 1) / self.output_tokens
        return decoding + self.tp_seconds * self.input_tokens / self.output_tokens

    @cached_property
    def full_step_seconds(self) -> float:
        return self.t0_seconds + self.slope_seconds * self.max_num_seqs

    @cached_property
    def saturation_qps(self) -> float:
        return self.max_num_seqs / (self.output_tokens * self.full_step_seconds)

    @cached_property
    def length_cdf(self) -> Floats:
        """P(output length <= l) for l = 0 .. 255: lognormal, rounded, cut, mean as asked."""
        return _lognormal_cdf(self.output_tokens, self.output_sigma)

    def step_seconds(self, qps: float) -> float:
        """Steady step time at a rate per pod (Little: batch = rate * output * step)."""
        return self.t0_seconds / (1 - self.slope_seconds * qps * self.output_tokens)

    def concurrency_at(self, qps: float) -> float:
        """Requests in the batch of one pod at a rate below saturation."""
        return qps * self.output_tokens * self.step_seconds(qps)

    def p99_at(self, qps: float) -> float:
        length = int(np.searchsorted(self.length_cdf, 0.99))
        return (length + 0.5) * self.step_seconds(qps) + self.front_end_seconds

    def capacity_within(self, slo_seconds: float) -> float:
        """The highest rate per pod whose P99 meets the SLO; raises ValueError where none does."""
        low, high = 0.0, self.saturation_qps * (1 - 1e-9)
        if self.p99_at(low) > slo_seconds:
            raise ValueError(f"profile {self.name} is above {slo_seconds:g} s even when idle")
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.p99_at(middle) <= slo_seconds else (low, middle)
        return low


def _lognormal_cdf(mean: float, sigma: float) -> Floats:
    """The location is found by bisection, so that the mean after rounding and cutting is right."""
    quantiles = (np.arange(4096) + 0.5) / 4096
    spread = np.exp(sigma * np.asarray(ndtri(quantiles), dtype=np.float64))
    low, high = 0.0, 2.0 * mean
    for _ in range(60):
        location = (low + high) / 2
        lengths = np.clip(np.rint(location * spread), 1, MAX_LENGTH)
        low, high = (location, high) if lengths.mean() < mean else (low, location)
    counts = np.bincount(lengths.astype(np.int64), minlength=MAX_LENGTH + 1)
    return np.asarray(np.cumsum(counts) / len(lengths), dtype=np.float64)


PROFILES: dict[str, PodProfile] = {
    "h100-1200": PodProfile("h100-1200", 2.5e-3, 7.0e-6, 5.0e-6),
    "h100-750": PodProfile("h100-750", 3.4e-3, 12.0e-6, 8.0e-6),
    "l40s": PodProfile("l40s", 4.5e-3, 17.0e-6, 14.0e-6, max_num_seqs=128),
}
