"""decide(): one context in, one decision out, through the policy and its guardrails."""

from __future__ import annotations

from policies.context import ScalingContext
from policies.decision import Decision
from policies.registry import POLICIES


def decide(context: ScalingContext) -> Decision:
    """A pure function: equal contexts give equal decisions, on any machine, at any time.

    Raises KeyError where the settings name a policy that is not registered.
    """
    policy = POLICIES[context.settings.policy]
    steps = policy.propose(context)
    recommended = steps[-1].replicas
    for guardrail in policy.guardrails:
        step = guardrail(context, steps[-1].replicas)
        if step is not None:
            steps = (*steps, step)
    return Decision(
        current=context.replicas.spec,
        recommended=recommended,
        desired=steps[-1].replicas,
        reason=steps[-1].reason,
        steps=steps,
        epoch=context.epoch,
    )
