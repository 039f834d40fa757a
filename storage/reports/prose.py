"""An explanation as plain text, for a terminal of any width and for a ticket.

Pure: knows how lines are laid out; every text from elsewhere is made printable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from forecaster.forecast import Calibration
from storage.reports.alternatives import Alternative, Threshold
from storage.reports.explanation import (
    Aftermath,
    Explanation,
    ForecastView,
    Input,
    StepView,
    WindowView,
)
from storage.reports.summary import count, share, signed_share
from storage.reports.words import (
    age_words,
    outcome_words,
    override_words,
    printable,
    problem_words,
    reason_words,
)

NOT_KNOWN = "not known"
_WINDOWS = {
    "order": "what a replica ordered now would begin to serve",
    "hold": "what comes before a replica given back now could be there again",
}


def explanation_text(found: Explanation) -> str:
    """Title, inputs, forecast, steps, what bound, what would have changed it, what came of it."""
    sections = (
        ("", _title(found)),
        ("Inputs", _table(_inputs(found))),
        ("Doubts", _doubts(found.problems)),
        ("Forecast", _forecast(found.forecast)),
        ("Steps", _table(_step(step) for step in found.steps)),
        ("What bound", [printable(found.binding)]),
        ("What would have changed it", _changes(found)),
        ("What happened then", _aftermath(found.aftermath)),
    )
    texts = [_section(heading, list(lines)) for heading, lines in sections]
    return "\n\n".join(text for text in texts if text)


def _section(heading: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    return "\n".join([heading, *(f"  {line}" for line in lines)] if heading else lines)


def explanation_document(found: Explanation) -> dict[str, Any]:
    """The same as JSON carries it; what is not known is null."""
    document = _plain(asdict(found))
    assert isinstance(document, dict)
    document["problems"] = [
        dict(zip(("source", "kind", "message"), problem, strict=True)) for problem in found.problems
    ]
    change = found.aftermath.next_change
    document["aftermath"]["next_change"] = (
        None if change is None else {"at": change[0].isoformat(), "desired": change[1]}
    )
    for view, window in zip(
        (document["forecast"] or {"windows": []})["windows"],
        found.forecast.windows if found.forecast else (),
        strict=True,
    ):
        view["quantiles"] = [{"level": level, "qps": qps} for level, qps in window.quantiles]
    return document


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value


def _title(found: Explanation) -> Iterator[str]:
    yield f"Decision {found.id} of {printable(found.workload)} at {_clock(found.at)}"
    verb = "kept" if found.desired == found.current else "asked for"
    instead = "" if found.desired == found.current else f" instead of {found.current}"
    yield f"{printable(found.policy)} {verb} {found.desired} replicas{instead}: {found.why}."
    outcome = found.outcome
    told = outcome_words(outcome.kind.value, printable(outcome.detail)) if outcome else NOT_KNOWN
    yield f"Outcome: {told}. Epoch {found.epoch}."


def _inputs(found: Explanation) -> Iterator[tuple[str, str, str]]:
    yield from (_input(row) for row in found.inputs)
    held = found.override
    if held is not None:
        who = f"asked for by {printable(held.owner)}: {printable(held.reason)}"
        what = override_words(held.kind.value, held.replicas)
        yield "override", what, f"{who}; until {_clock(held.expires_at)}"


def _input(row: Input) -> tuple[str, str, str]:
    value = NOT_KNOWN if row.value is None else f"{count(row.value)} {row.unit}".strip()
    age = "" if not row.age_seconds else f", {row.age_seconds:,.0f} s old"
    return row.name, value, f"{printable(row.source)}{age}"


def _doubts(problems: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    for source, kind, message in problems:
        yield f"{problem_words(source, kind)}: {printable(message)}"


def _forecast(view: ForecastView | None) -> Iterator[str]:
    if view is None:
        yield "none"
        return
    trust = "trusted" if view.trusted else "not trusted"
    skill = "not measured" if view.skill is None else signed_share(view.skill)
    yield (
        f"{printable(view.model)}, {trust}, fitted {age_words(view.fitted_age_seconds)} ago, on a "
        f"history that ended {age_words(view.history_age_seconds)} ago; skill {skill}"
    )
    yield from (f"passed over: {printable(failure)}" for failure in view.failures)
    if view.calibration is not None:
        yield _calibrated(view.calibration)
    for window in view.windows:
        yield from _window(window, view.trusted)


def _calibrated(found: Calibration) -> str:
    kept = "" if found.kept else ", the nearest to it that was found"
    spare = found.spare
    spared = f"; besides {spare.factor:g} times {spare.reason}" if spare.factor else ""
    steady = " of its mean" if found.steady else ""
    return (
        f"margin {found.margin:g}{steady} for a target of {found.target_bad_ratio:g}{kept}: a bad "
        f"ratio of {found.expected_bad_ratio:.1e} is estimated from "
        f"{count(found.requests)} requests replayed{spared}"
    )


def _window(window: WindowView, trusted: bool) -> Iterator[str]:
    told = "be ready for" if trusted else "not trusted, else be ready for"
    why = f" ({_WINDOWS[window.name]})" if window.name in _WINDOWS else ""
    yield (
        f"{window.name}{why}: the highest rate from {window.starts_in_seconds:,.0f} s to "
        f"{window.ends_in_seconds:,.0f} s from now"
    )
    yield (
        f"  median {count(window.median_qps)} requests/s, error scale {share(window.scale)}, "
        f"margin {window.margin:g}: {told} {count(window.ordered_qps)}"
    )
    if window.floor_qps:
        yield (
            f"  floor {count(window.floor_qps)} requests/s, error scale "
            f"{share(window.floor_scale)}: {printable(window.floor_reason)}"
        )
    points = [f"{share(level)}: {count(qps)}" for level, qps in window.quantiles]
    yield f"  quantiles {', '.join(points)}"


def _step(step: StepView) -> tuple[str, str, str]:
    before = "" if step.before is None else f"{step.before} "
    number = f"{before}\N{RIGHTWARDS ARROW} {step.after}"
    return step.rule, number, f"{step.reason}: {printable(step.message)}"


def _changes(found: Explanation) -> Iterator[str]:
    yield from (_alternative(one) for one in found.alternatives)
    yield from (_threshold(one) for one in found.thresholds)
    if not found.alternatives and not found.thresholds:
        yield "nothing that was looked at"


def _alternative(one: Alternative) -> str:
    if not one.difference:
        return f"{one.change}: {one.desired} as well ({reason_words(one.reason)})"
    return f"{one.change}: {one.desired}, {one.difference:+d} ({reason_words(one.reason)})"


def _threshold(one: Threshold) -> str:
    actual = f"it was {count(one.actual)} {one.unit}"
    if one.value is None:
        return f"{one.question}: none would have done it; {actual}"
    above = signed_share(one.value / one.actual - 1) if one.actual else "from nothing"
    return f"{one.question}: above {count(one.value)} {one.unit} ({above}); {actual}"


def _aftermath(found: Aftermath) -> Iterator[str]:
    if found.demand_qps is None:
        yield f"the log does not tell what came from {_clock(found.since)} on"
    else:
        yield (
            f"from {_clock(found.since)} to {found.until:%H:%M:%S} at most "
            f"{count(found.demand_qps)} requests/s came, which need {found.needed_replicas} "
            f"replicas"
        )
        yield _enough(found)
    if found.forecast_error_ratio is not None:
        yield f"the median forecast was {_off(found.forecast_error_ratio)}; {_ordered(found)}"
    if found.ready_replicas is not None:
        p99 = found.latency_p99_seconds
        slowest = "" if p99 is None else f"; the highest P99 was {p99:.3g} s"
        yield f"{count(found.ready_replicas)} replicas were ready then{slowest}"
    if found.next_change is not None:
        at, desired = found.next_change
        yield f"the next other number, {desired}, was asked for at {_clock(at)}"


def _ordered(found: Aftermath) -> str:
    if found.within_order is None:
        return "it was not trusted, so that nothing was ordered by it"
    within = "within" if found.within_order else "above"
    return f"what came was {within} what was ordered for"


def _off(error_ratio: float) -> str:
    """How far a forecast was from what came, in words."""
    if abs(error_ratio) < 0.0005:
        return "right"
    return f"{share(abs(error_ratio))} too {'high' if error_ratio > 0 else 'low'}"


def _enough(found: Aftermath) -> str:
    spare = found.spare_replicas or 0
    if spare < 0:
        return f"what this decision asked for was {-spare} short"
    return f"what this decision asked for was enough, with {spare} to spare"


def _table(rows: Iterator[tuple[str, str, str]]) -> Iterator[str]:
    """Three columns, the first two as wide as they need."""
    found = list(rows)
    first, second = (max((len(row[i]) for row in found), default=0) for i in (0, 1))
    for row in found:
        yield f"{row[0]:<{first}}  {row[1]:<{second}}  {row[2]}".rstrip()


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
