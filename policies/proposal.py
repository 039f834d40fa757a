"""Proposal: what a policy asks for, before guardrails; and what a policy is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from policies.context import ScalingContext
from policies.decision import Reason, Step

Propose = Callable[[ScalingContext], tuple[Step, ...]]
Guardrail = Callable[[ScalingContext, int], Step | None]


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy is a pure proposal and the guardrails that it runs under, in their order.

    `propose` returns at least one step; the last one is the recommendation. Each guardrail sees
    the number so far and returns a step where it changes it, else None. `forecaster` names the
    one that it reads; without one the loop neither reads history nor fits a model. `knobs` are
    the parameters of which one turns its cost against its quality. `memory_seconds` is how far
    back it looks at past decisions where no parameter says otherwise.
    """

    propose: Propose
    guardrails: tuple[Guardrail, ...]
    forecaster: str = ""
    knobs: tuple[str, ...] = ()
    memory_seconds: float = 0.0

    @property
    def forecasts(self) -> bool:
        return bool(self.forecaster)


def raised_to(steps: tuple[Step, ...], candidate: Step) -> tuple[Step, ...]:
    """The steps with a candidate added that may raise the number but never lower it."""
    if steps and candidate.replicas <= steps[-1].replicas:
        return steps
    return (*steps, candidate)


def held(context: ScalingContext, rule: str, why: str) -> Step:
    """Keep what is asked for now: the answer to having nothing trusted to go by."""
    return Step(rule, context.replicas.spec, Reason.NO_INPUT, why)
