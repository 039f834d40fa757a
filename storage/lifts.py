"""Older forms of stored documents, lifted to the next version one step at a time.

Knows what each version looked like. A lift takes a JSON document of its version, with the settings
in place, and returns the document that the next version would have stored; documents that it is
given are not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from math import log
from types import MappingProxyType
from typing import Any

Document = dict[str, Any]
Lift = Callable[[Document], Document]

QUANTILE_OF_VERSION_1 = 0.99
"""What version 1 ordered for where the settings did not say."""
MARGIN_FOR_VERSION_1 = 4.0


def lifted(document: Document, version: int, wanted: int, lifts: Mapping[int, Lift]) -> Document:
    """Raises ValueError where no lift leads from this version to the wanted one."""
    for step in range(version, wanted):
        if step not in lifts:
            raise ValueError(f"schema version {version} cannot be read by this program")
        document = lifts[step](document)
    return document


def context_from_1(document: Document) -> Document:
    """Version 1 stored a forecast as paths of quantiles; the windows are cut out of them.

    Capacity was ordered for one quantile. The scale of a window is chosen so that a fixed margin
    asks for the same rate, and the margin becomes part of the settings.
    """
    path, settings = document["forecast"], document["settings"]
    if path is None:
        return document
    now, lead = _time(document["now"]), document["lead_time"]["p95_seconds"]
    ready_at = now + timedelta(seconds=lead)
    until = ready_at + timedelta(seconds=document["interval_seconds"])
    level = dict(settings["parameters"]).get("quantile", QUANTILE_OF_VERSION_1)
    windows = [
        _window_from_1(path, "order", ready_at, until, level),
        _window_from_1(path, "hold", now, until, level),
    ]
    kept = ("issued_at", "model", "fitted_at", "history_end", "skill", "trusted", "failures")
    forecast = {name: path[name] for name in kept}
    forecast["windows"] = [window for window in windows if window is not None]
    parameters = [*settings["parameters"], ["margin", MARGIN_FOR_VERSION_1]]
    return document | {"forecast": forecast, "settings": settings | {"parameters": parameters}}


def _window_from_1(
    path: Document, name: str, start: datetime, end: datetime, level: float
) -> Document | None:
    """The highest value of each quantile over [start, end]; None where the path ends before."""
    begins, step = _time(path["starts_at"]), path["step_seconds"]
    first, last = (int((at - begins).total_seconds() // step) for at in (start, end))
    if first < 0 or last >= len(path["quantiles"][0]["values"]):
        return None
    points = [
        {"level": quantile["level"], "qps": max(quantile["values"][first : last + 1])}
        for quantile in path["quantiles"]
    ]
    ordered = _at_level(points, level)
    median = _at_level(points, 0.5) or ordered
    return {
        "name": name,
        "starts_at": start.isoformat(),
        "ends_at": end.isoformat(),
        "median_qps": median,
        "scale": max(0.0, log(ordered / median)) / MARGIN_FOR_VERSION_1 if median else 0.0,
        "quantiles": points,
    }


def _at_level(points: list[Document], level: float) -> float:
    """The lowest quantile at or above the level, else the highest there is."""
    found: float = next((p["qps"] for p in points if p["level"] >= level), points[-1]["qps"])
    return found


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


CONTEXT_LIFTS: Mapping[int, Lift] = MappingProxyType({1: context_from_1})
