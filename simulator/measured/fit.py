"""Fit: the pod profile that explains what was measured.

One step takes T = t0 + t1 * decoding sequences + tp * prompt tokens, as the pod model has it: a
regression without negative times, where each measurement counts by its relative error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, nnls

from forecaster.history import Floats
from simulator.measured.measurement import Measurement
from simulator.pod import PodProfile

LEAST_RISE = 1.5
"""Times as many sequences under the heaviest load as under the lightest, from which on the time
that each adds can be told."""
LEAST_SPREAD = 1.25
"""The same of prompt tokens for each sequence, to tell the two apart."""
SHARES, FEW = (0.05, 0.95), 20
"""Between these quantiles of the measurements, where there are more than a few."""
LEAST_T0_SECONDS = 2.5e-4
GOOD = 0.05
"""Relative error up to which the model explains what was measured."""


class FitError(Exception):
    """What was measured does not tell how a pod works."""


@dataclass(frozen=True, slots=True)
class StepFit:
    """Seconds of a step, for each sequence that decodes, for each prompt token, and from a request
    to its first step. `split` is False where the two could not be told apart: then prompts are in
    what each sequence takes. `errors` are of each measurement, relative."""

    t0_seconds: float
    t1_seconds: float
    tp_seconds: float
    front_end_seconds: float
    split: bool
    errors: tuple[float, ...]

    @property
    def usual_error(self) -> float:
        """What nineteen of twenty measurements lie within."""
        return float(np.quantile(np.abs(self.errors), 0.95))


def fitted(measurements: Sequence[Measurement]) -> StepFit:
    """Raises FitError where loads are too much alike, or steps are not as the model has them."""
    steps = np.array([each.step_seconds for each in measurements])
    decoding = np.array([each.decoding for each in measurements])
    prompts = np.array([each.prompt_tokens for each in measurements])
    lightest, heaviest = _most(decoding)
    if heaviest < LEAST_RISE * lightest:
        raise FitError(
            f"from {lightest:.3g} to {heaviest:.3g} sequences decode in all that was measured: too "
            f"little difference to tell what each adds. Measure a light load and a heavy one"
        )
    fewest, most = _most(prompts / decoding)
    split = most >= LEAST_SPREAD * fewest
    columns = np.column_stack([np.ones_like(steps), decoding, prompts * split])
    (t0, t1, tp), _ = nnls(columns / steps[:, None], np.ones_like(steps))
    if t0 < LEAST_T0_SECONDS:
        raise FitError(
            f"a step would take {t0 * 1e3:.3g} ms with nothing in it: what was measured is no step "
            f"time that rises with the batch. Measure a lighter load beside the heavy ones"
        )
    errors = columns @ (t0, t1, tp) / steps - 1
    front_end = _front_end(measurements, float(t0), float(tp))
    return StepFit(float(t0), float(t1), float(tp), front_end, split, tuple(errors.tolist()))


def _most(values: Floats) -> tuple[float, float]:
    """Between what most of them lie, or all where they are few."""
    low, high = np.quantile(values, SHARES) if len(values) > FEW else (values.min(), values.max())
    return float(low), float(high)


def _front_end(measurements: Sequence[Measurement], t0: float, tp: float) -> float:
    """What a first token takes longer than the step of its own prompt, under the lightest load."""
    known = [each for each in measurements if each.first_token_seconds is not None]
    if not known:
        return 0.0
    lightest = min(known, key=lambda each: each.decoding)
    return max(0.0, (lightest.first_token_seconds or 0.0) - t0 - tp * lightest.prompt)


@dataclass(frozen=True, slots=True)
class Loop:
    """A closed loop: requests a second, and the 99th percentile in seconds."""

    qps: float
    p99_seconds: float


def closed_loop(profile: PodProfile, in_flight: float) -> Loop:
    """What a pod does with so many requests in flight all the time."""
    front_end = profile.front_end_seconds

    def step(batch: float) -> float:
        return profile.t0_seconds + profile.slope_seconds * batch

    def rate(batch: float) -> float:
        return batch / (profile.output_tokens * step(batch))

    inside = brentq(lambda batch: batch + rate(batch) * front_end - in_flight, 0.0, in_flight)
    batch = min(float(inside), float(profile.batch))
    waits = max(0.0, in_flight / rate(batch) - front_end - profile.output_tokens * step(batch))
    longest = (profile.length_at(0.99) + 0.5) * step(batch)
    return Loop(rate(batch), longest + front_end + waits)
