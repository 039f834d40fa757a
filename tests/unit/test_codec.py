"""Stored documents: older forms are read, unknown ones refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policies.engine import decide
from storage import codec
from storage.lifts import CONTEXT_LIFTS, Document, lifted
from tests.situations import situation

STORED: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parents[1] / "golden" / "contexts_v1.json").read_text()
)
"""As version 1 wrote them: context, settings and decision, by what is special about the context."""


@pytest.mark.parametrize("name", STORED)
def test_contexts_of_version_1_are_read_and_decided_alike(name: str) -> None:
    row = STORED[name]
    decision = decide(codec.decode_context(row["context"], row["settings"]))
    stored = codec.decode_decision(row["decision"])
    assert [(s.rule, s.replicas, s.reason) for s in decision.steps] == [
        (s.rule, s.replicas, s.reason) for s in stored.steps
    ]


def test_a_forecast_of_version_1_keeps_its_figures() -> None:
    row = STORED["forecast"]
    context = codec.decode_context(row["context"], row["settings"])
    forecast = context.forecast
    assert forecast is not None
    order, hold = forecast.window("order"), forecast.window("hold")
    assert order is not None
    assert hold is not None
    # The path rises by 210 a minute from 9,000; the lead time ends in its fourth minute.
    assert (hold.median_qps, order.median_qps) == (9_630.0, 9_630.0)
    assert (order.ends_at - order.starts_at).total_seconds() == 15
    margin = context.settings.parameter("margin", 0.0)
    assert order.upper(margin) == pytest.approx(order.at_level(0.98))
    assert forecast.skill == 0.5


@pytest.mark.parametrize("version", [None, 0, "1", codec.SCHEMA_VERSION + 1])
def test_an_unknown_version_is_refused(version: object) -> None:
    context = situation()
    document = json.loads(codec.encode_context(context)) | {"schema": version}
    with pytest.raises(ValueError, match="schema version"):
        codec.decode_context(json.dumps(document), codec.encode_settings(context.settings))


@pytest.mark.parametrize("name", STORED)
def test_the_quantiles_of_a_window_are_read_alone_as_with_the_rest(name: str) -> None:
    row = STORED[name]
    old = codec.decode_context(row["context"], row["settings"])
    for text in (row["context"], codec.encode_context(old)):
        for window in ("order", "hold", "no such"):
            found = old.forecast.window(window) if old.forecast else None
            expected = () if found is None else tuple((q.level, q.qps) for q in found.quantiles)
            assert codec.window_quantiles(text, row["settings"], window) == expected


def test_every_older_version_has_a_lift() -> None:
    assert set(CONTEXT_LIFTS) == set(range(1, codec.SCHEMA_VERSION))


def test_lifts_follow_each_other() -> None:
    def adding(name: str) -> Callable[[Document], Document]:
        return lambda document: document | {name: list(document)}

    lifts = {1: adding("b"), 2: adding("c")}
    start: dict[str, Any] = {"a": 1}
    assert lifted(start, 1, 3, lifts) == {"a": 1, "b": ["a"], "c": ["a", "b"]}
    assert lifted(start, 3, 3, lifts) == start
    with pytest.raises(ValueError, match="schema version 1 cannot be read"):
        lifted(start, 1, 3, {1: adding("b")})
