"""A pod that batches continuously, step by step and token by token, with vLLM's metrics of it.

Each step takes t0 + t1 for each sequence that decodes + tp for each prompt token that enters; a
request enters with the next step that has room, and its first token is that step's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

T0, T1, TP, BATCH, PROMPT = 0.005, 8e-5, 4e-6, 96, 40
BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Bounds of vLLM's histograms of lengths."""


@dataclass
class Counters:
    """What vLLM counts, as it stands at one moment; `buckets` are cumulative."""

    inter_token_latency_seconds_sum: float = 0.0
    inter_token_latency_seconds_count: int = 0
    time_to_first_token_seconds_sum: float = 0.0
    time_to_first_token_seconds_count: int = 0
    prompt_tokens_total: int = 0
    num_requests_running: int = 0
    num_requests_waiting: int = 0
    request_generation_tokens: list[int] = field(default_factory=lambda: [0] * len(BUCKETS))
    request_prompt_tokens: list[int] = field(default_factory=lambda: [0] * len(BUCKETS))

    def lines(self) -> Iterator[tuple[str, str, float]]:
        """Name, labels and value of each sample."""
        for name, value in vars(self).items():
            if not isinstance(value, list):
                yield name, "", float(value)
                continue
            for bound, count in zip((*BUCKETS, "+Inf"), (*value, value[-1]), strict=True):
                yield f"{name}_bucket", f'le="{bound}"', float(count)


def pod_minutes(
    rates: list[float], mean_output: float, seed: int, seconds_each: int = 60
) -> Iterator[tuple[int, Counters]]:
    """The counters every 15 s, requests coming at random at these rates, each for so long."""
    rng = np.random.default_rng(seed)
    times = iter(np.concatenate([_arrivals(rng, rate, number * seconds_each, seconds_each)
                                 for number, rate in enumerate(rates)]).tolist())  # fmt: skip
    end, now, scraped = len(rates) * seconds_each, 0.0, 0
    waiting: deque[tuple[float, int]] = deque()
    left = np.zeros(0, dtype=np.int64)
    coming = next(times, None)
    counters = Counters()
    while scraped <= end:
        while coming is not None and coming <= now:
            length = max(2, round(rng.lognormal(np.log(mean_output) - 0.125, 0.5)))
            waiting.append((coming, length))
            coming = next(times, None)
        entering = [waiting.popleft() for _ in range(min(len(waiting), BATCH - len(left)))]
        if not entering and not len(left):
            now = end + 1.0 if coming is None else coming
        else:
            step = T0 + T1 * len(left) + TP * PROMPT * len(entering)
            now += step
            counters.inter_token_latency_seconds_sum += step * len(left)
            counters.inter_token_latency_seconds_count += len(left)
            counters.time_to_first_token_seconds_sum += sum(now - at for at, _ in entering)
            counters.time_to_first_token_seconds_count += len(entering)
            counters.prompt_tokens_total += PROMPT * len(entering)
            for _, length in entering:
                for number, bound in enumerate(BUCKETS):
                    counters.request_generation_tokens[number] += length <= bound
                    counters.request_prompt_tokens[number] += bound >= PROMPT
            left = np.concatenate([left - 1, [length - 1 for _, length in entering]]).astype(int)
            left = left[left > 0]
        counters.num_requests_running, counters.num_requests_waiting = len(left), len(waiting)
        while scraped <= min(now, end):
            yield scraped, counters
            scraped += 15


def _arrivals(rng: np.random.Generator, rate: float, first: float, seconds: int) -> np.ndarray:
    return np.sort(first + seconds * rng.random(rng.poisson(rate * seconds)))
