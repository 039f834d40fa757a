"""Policies by the name that settings and reports use."""

from __future__ import annotations

import math

from policies import guardrails, predictive
from policies.peers import (
    aibrix_apa,
    aibrix_kpa,
    asymmetric_concurrency,
    aws_predictive,
    azure_predictive,
    crane_dsp,
    cron,
    dynamo,
    gcp_predictive,
    hpa,
    hpa_rules,
    keda_prometheus,
    knative_kpa,
    phpa,
    ray_serve,
    seasonal_naive,
    static,
    wva_v1,
    wva_v2,
)
from policies.proposal import Guardrail, Policy, Propose


def _peer(
    propose: Propose,
    *own: Guardrail,
    forecaster: str = "",
    knobs: tuple[str, ...] = ("targetQps",),
    memory_seconds: float = 300.0,
) -> Policy:
    """Peers run under their own rules; only what protects the target itself is added to them."""
    rules = (guardrails.hold_on_doubt, *own, *guardrails.PEOPLE_FIRST)
    return Policy(propose, rules, forecaster, knobs, memory_seconds)


_HPA = (hpa_rules.stabilize, hpa_rules.limit_rate)
_LOAD = ("targetQps", "targetConcurrency")
_STATIC = Policy(static.propose, guardrails.PEOPLE_FIRST, knobs=("replicas",))

_OURS = (predictive.look_back, *guardrails.ALL)
DAY_SECONDS = 86_400.0
OUR_PARAMETERS = {
    "margin": (-10.0, 100.0),
    "lookBackSeconds": (0.0, DAY_SECONDS),
    "collapseRatio": (0.0, 1.0),
}
"""With the least and the most that makes sense."""

BY_THE_CLOCK = ("cron", "cron_floor")
"""Policies that need a schedule."""

POLICIES: dict[str, Policy] = {
    "predictive": Policy(predictive.propose, _OURS, forecaster="combined", knobs=("margin",)),
    # The same with the future known: what control loses, forecasting apart.
    "perfect_forecast": Policy(predictive.propose, _OURS, forecaster="perfect", knobs=("margin",)),
    "static": _STATIC,
    # The same with the replicas that the highest load took, which only hindsight knows.
    "peak_static": _STATIC,
    "cron": _peer(cron.propose, *_HPA, knobs=()),
    "cron_floor": _peer(cron.propose_above_floor, *_HPA, cron.floor),
    "hpa": _peer(hpa.propose, *_HPA, knobs=(*_LOAD, "targetWaiting")),
    "keda_prometheus": _peer(
        keda_prometheus.propose, keda_prometheus.stabilize, hpa_rules.limit_rate
    ),
    "knative_kpa": _peer(knative_kpa.propose, knobs=_LOAD),
    "asymmetric_concurrency": _peer(asymmetric_concurrency.propose, knobs=_LOAD),
    "aibrix_apa_intended": _peer(
        aibrix_apa.propose, hpa_rules.stabilize, knobs=(*_LOAD, "targetKvUsage")
    ),
    "aibrix_apa_as_shipped": _peer(
        aibrix_apa.propose, aibrix_apa.cool_down_as_shipped, knobs=(*_LOAD, "targetKvUsage")
    ),
    "aibrix_kpa": _peer(aibrix_kpa.propose, knobs=_LOAD),
    "wva_v1": _peer(wva_v1.propose, knobs=("kvUtilization",)),
    "wva_v2": _peer(wva_v2.propose, knobs=("scaleUpUtilization",)),
    "ray_serve": _peer(ray_serve.propose, knobs=_LOAD),
    "dynamo": _peer(dynamo.propose, forecaster="dynamo_kalman"),
    "aws_predictive": _peer(
        aws_predictive.propose,
        aws_predictive.stabilize,
        forecaster="hour_of_week",
        memory_seconds=aws_predictive.SCALE_IN_SECONDS,
    ),
    "gcp_predictive": _peer(
        gcp_predictive.propose,
        gcp_predictive.stabilize,
        forecaster="time_of_week",
        memory_seconds=gcp_predictive.STABILIZATION_SECONDS,
    ),
    "azure_predictive": _peer(azure_predictive.propose, forecaster="time_of_week"),
    "phpa": _peer(
        phpa.propose, hpa_rules.stabilize, phpa.limit_rate, forecaster="phpa_holt_winters"
    ),
    "crane_dsp": _peer(crane_dsp.propose, *_HPA, forecaster="crane_dsp"),
    "seasonal_naive": _peer(seasonal_naive.propose, forecaster="seasonal_naive_day", knobs=_LOAD),
}

PARAMETERS = frozenset(
    (
        "activationQps",
        "averageWindowSeconds",
        "betweenTokensSeconds",
        "betweenTokensSecondsPerToken",
        "betweenTokensSlaSeconds",
        "collapseRatio",
        "cooldownSeconds",
        "cooldownWindowSeconds",
        "decisionType",
        "downWindowSeconds",
        "downscaleDelaySeconds",
        "downscalingFactor",
        "failureThreshold",
        "fallbackBehavior",
        "fallbackReplicas",
        "firstTokenSeconds",
        "firstTokenSecondsPerToken",
        "firstTokenSlaSeconds",
        "floorQps",
        "idleReplicas",
        "ignoreNullValues",
        "inputTokens",
        "kvCacheTokens",
        "kvUtilization",
        "linearSamples",
        "loadScaling",
        "lookAheadSeconds",
        "lookBackSeconds",
        "margin",
        "maxBatchedTokens",
        "maxCapacityBufferPercent",
        "maxSequences",
        "minMax",
        "optimizationTarget",
        "outputTokens",
        "panicWindowSeconds",
        "periodSeconds",
        "replicas",
        "scaleDownPercent",
        "scaleDownWindowSeconds",
        "scaleInRatio",
        "scaleInWindowSeconds",
        "scaleUpPercent",
        "scaleUpPods",
        "scaleUpUtilization",
        "scaleUpWindowSeconds",
        "stableWindowSeconds",
        "stepPercent",
        "targetConcurrency",
        "targetKvUsage",
        "targetQps",
        "targetWaiting",
        "tolerance",
        "upWindowSeconds",
        "upscaleDelaySeconds",
        "upscalingFactor",
    )
)
"""All that some policy reads, in the words of where it comes from."""


def parameters_of(policy: str) -> frozenset[str]:
    """Those that may be given: ours are few, and each peer may read what peers share."""
    return frozenset(OUR_PARAMETERS) if is_ours(policy) else PARAMETERS


def is_ours(policy: str) -> bool:
    """Whether it goes by our rules throughout; peers keep their own."""
    return POLICIES[policy].propose is predictive.propose


def bounds_of(parameter: str) -> tuple[float, float]:
    """The least and the most that may be given for it."""
    seconds = (0.0, DAY_SECONDS) if parameter.endswith("Seconds") else (-math.inf, math.inf)
    return OUR_PARAMETERS.get(parameter, seconds)
