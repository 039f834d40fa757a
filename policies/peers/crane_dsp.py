"""Crane's EffectiveHPA: the HPA on the live metric and on the highest predicted one.

Source: gocrane/crane 2b0ddae (2024-12-19). The prediction (DSP) is its forecaster, which serves
the highest value of its own prediction window; where the traffic has no daily or weekly period
there is none, and the live metric stands alone.
"""

from __future__ import annotations

from policies.context import ScalingContext
from policies.decision import Reason, Step
from policies.peers import hpa_rules
from policies.peers.readings import forecast_qps, target_qps
from policies.proposal import raised_to


def propose(context: ScalingContext) -> tuple[Step, ...]:
    """The larger proposal of two external metrics, each with the HPA's tolerance.

    The knob is `targetQps` (utilization times the rate within the SLO). Others: those of
    `hpa_rules`.
    """
    steps = (hpa_rules.rate_step(context),)
    load = forecast_qps(context, "order")
    if load is None:
        return steps
    replicas = hpa_rules.average_value(
        load, target_qps(context), context.replicas.spec, hpa_rules.tolerance_of(context)
    )
    text = f"predicted to reach {load:,.0f} requests/s within the prediction window"
    return raised_to(steps, Step("dsp", replicas, Reason.FORECAST_PEAK, text))
