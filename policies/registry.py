"""Policies by the name that settings and reports use."""

from __future__ import annotations

from policies import guardrails, predictive
from policies.peers import asymmetric_concurrency, static
from policies.proposal import Policy

# Peers run under their own rules; only what protects the target itself is added to them.
_PEER_GUARDRAILS = (guardrails.hold_on_doubt, guardrails.bound)

POLICIES: dict[str, Policy] = {
    "predictive": Policy(predictive.propose, guardrails.ALL, forecasts=True),
    "asymmetric_concurrency": Policy(asymmetric_concurrency.propose, _PEER_GUARDRAILS),
    "static": Policy(static.propose, (guardrails.bound,)),
}
