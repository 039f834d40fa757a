"""Reasons, outcomes and problems in words, for people who did not build this.

Knows the vocabulary of the log. Knows no database and no layout.
"""

from __future__ import annotations

import re

from policies.context import ProblemKind, ProblemSource

FORECAST, OBSERVED, LIMIT, DOUBT, BOUND = "forecast", "observed demand", "limit", "doubt", "bound"
PEOPLE = "people"
FAMILIES = (FORECAST, OBSERVED, LIMIT, DOUBT, BOUND, PEOPLE)
"""What kind of rule had the last word, in the order that legends use."""

_REASONS = {
    "ForecastPeak": (FORECAST, "ordered for the peak forecast one lead time ahead"),
    "RecurrentEdge": (FORECAST, "ordered for a rise that recurs, an event, or spare for bursts"),
    "UnannouncedRise": (OBSERVED, "ordered for a steep rise that no forecast announced"),
    "ForecastHold": (FORECAST, "kept for the peak forecast before a replica could be back"),
    "ObservedDemand": (OBSERVED, "sized to the demand that was there"),
    "Backlog": (OBSERVED, "sized to demand plus the requests that waited"),
    "Fixed": (BOUND, "a fixed number"),
    "Scheduled": (BOUND, "wanted by a schedule"),
    "Panic": (OBSERVED, "sized to a burst"),
    "NotDue": (LIMIT, "kept until the policy's next decision is due"),
    "NoTrustedInput": (DOUBT, "nothing trusted to go by: kept as it was"),
    "MetricsUnavailable": (DOUBT, "metrics missing or doubtful: no scale-down"),
    "LogUnavailable": (DOUBT, "decision log unavailable: no scale-down"),
    "DemandCollapse": (DOUBT, "demand fell suspiciously fast: no scale-down"),
    "ScaleUpStabilized": (LIMIT, "growth waited for the stabilization window"),
    "ScaleDownStabilized": (LIMIT, "shrinking waited for the stabilization window"),
    "ScaleUpLimit": (LIMIT, "growth held to the scaleUp rate limit"),
    "ScaleDownLimit": (LIMIT, "shrinking held to the scaleDown rate limit"),
    "TooFewReplicas": (BOUND, "raised to minReplicas"),
    "TooManyReplicas": (BOUND, "cut to maxReplicas"),
    "Overridden": (PEOPLE, "a number that a person asked for"),
    "Paused": (PEOPLE, "paused by a person: no change"),
}
_OUTCOMES = {
    "Applied": "applied",
    "Unchanged": "nothing to change",
    "Shadow": "not applied (shadow mode)",
    "Conflict": "not applied: the target had changed meanwhile",
    "Refused": "refused",
    "Failed": "failed",
    "Unknown": "unknown whether it was applied",
}
_PROBLEMS = {
    "NoData": "no data",
    "Stale": "data too old",
    "Partial": "data incomplete",
    "Implausible": "data implausible",
    "Unreachable": "source unreachable",
    "LogUnavailable": "log unavailable",
    "ForecastUnavailable": "no forecast",
    "ForecastUntrusted": "forecast not trusted",
}
_POLICIES = {
    "predictive": "daybreak's own policy, sized to the forecast one cold start ahead",
    "asymmetric_concurrency": "sized to the load that is seen, up on the last 20 s and down on the "
    "last 5 minutes",
    "hpa": "Kubernetes' HorizontalPodAutoscaler at its usual target",
    "static": "all the time as many replicas as the highest minute needs",
}
_ONE_PROBLEM = re.compile(
    rf"(?:^|; )({'|'.join(ProblemSource)}) ({'|'.join(ProblemKind)}): ", re.DOTALL
)


def family(reason: str) -> str:
    """Which kind of rule a reason stands for; an unknown one counts as a bound."""
    return _REASONS.get(reason, (BOUND, ""))[0]


def reason_words(reason: str) -> str:
    """A reason as a clause; an unknown one as it is."""
    return _REASONS.get(reason, (BOUND, reason))[1]


def policy_words(policy: str) -> str:
    """What a policy of the comparison does, as a clause; empty for one that is not known here."""
    return _POLICIES.get(policy, "")


def outcome_words(kind: str, detail: str = "") -> str:
    """What became of a decision, with the detail that the target gave."""
    words = _OUTCOMES.get(kind, kind)
    return f"{words} ({detail})" if detail else words


def override_words(kind: str, replicas: int | None) -> str:
    """What a person decided, such as "at least 40 replicas"."""
    return {
        "Pause": "paused: no change",
        "Replicas": f"{replicas} replicas",
        "Minimum": f"at least {replicas} replicas",
        "Release": "released to the policy",
    }.get(kind, kind)


def age_words(seconds: float) -> str:
    """How long ago, in the largest unit of which it is two at least."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:,.0f} s"


def problem_words(source: str, kind: str) -> str:
    """What was wrong, such as "demand: data too old"."""
    words = _PROBLEMS.get(kind, kind)
    return words if source in words else f"{source}: {words}"


def printable(text: str, longest: int = 300) -> str:
    """A text from elsewhere for a terminal, a log or a cell: one line, nothing in it that steers.

    Control characters and the marks that turn the direction of writing become escapes; what is
    longer than `longest` is cut.
    """
    cut = text if len(text) <= longest else text[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def split_problems(text: str) -> tuple[tuple[str, str, str], ...]:
    """The problems of a logged decision as (source, kind, message).

    Messages may hold the separator themselves, so the text is cut only before a known source and
    kind.
    """
    parts = _ONE_PROBLEM.split(text)[1:]
    return tuple(zip(parts[0::3], parts[1::3], parts[2::3], strict=True))
