"""Contexts, decisions and models as JSON and back, exactly.

Knows that what is stored must come back equal, and that equal values give equal text (so that a
digest means something). The settings part of a context changes seldom and is stored once, by its
digest. What older versions stored is lifted to the present form when it is read.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import from_json

from forecaster.forecast import FittedModel
from policies.context import PolicySettings, ScalingContext
from policies.decision import Decision
from storage.lifts import CONTEXT_LIFTS, lifted

SCHEMA_VERSION = 2
"""Of the stored JSON; raised with a lift for the older form whenever a type changes."""

Notes = tuple[tuple[str, float], ...]

_CONTEXT: TypeAdapter[ScalingContext] = TypeAdapter(ScalingContext)
_SETTINGS: TypeAdapter[PolicySettings] = TypeAdapter(PolicySettings)
_DECISION: TypeAdapter[Decision] = TypeAdapter(Decision)
_MODEL: TypeAdapter[FittedModel] = TypeAdapter(FittedModel)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def encode_settings(settings: PolicySettings) -> str:
    return _canonical(_SETTINGS.dump_python(settings, mode="json"))


def encode_context(context: ScalingContext) -> str:
    """Without its settings, of which it carries the digest."""
    document = _CONTEXT.dump_python(context, mode="json")
    document["settings"] = digest(encode_settings(context.settings))
    document["schema"] = SCHEMA_VERSION
    return _canonical(document)


def decode_context(text: str, settings_text: str, past: bool = True) -> ScalingContext:
    """With the past decisions and changes that it holds, or without, which is twice as fast.

    Raises ValueError where the text is not a context of a schema version known here.
    """
    document = from_json(text)
    if not past:
        document |= {"recent": [], "changes": []}
    version = document.pop("schema", None)
    if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
        raise ValueError(
            f"schema version {version!r} is not one of 1 to {SCHEMA_VERSION}; a newer program "
            f"may have stored it"
        )
    if version == SCHEMA_VERSION:
        document["settings"] = _settings(settings_text)
    else:
        document["settings"] = json.loads(settings_text)
        document = lifted(document, version, SCHEMA_VERSION, CONTEXT_LIFTS)
    return _CONTEXT.validate_python(document)


def window_quantiles(text: str, settings_text: str, name: str) -> tuple[tuple[float, float], ...]:
    """Level and requests a second of a window's quantiles in a stored context; none where there is
    no such forecast. Five times as fast as reading the whole context.

    Raises ValueError where the text is not a context of a schema version known here.
    """
    document = from_json(text)
    if document.get("schema") != SCHEMA_VERSION:
        forecast = decode_context(text, settings_text, past=False).forecast
        window = None if forecast is None else forecast.window(name)
        return () if window is None else tuple((one.level, one.qps) for one in window.quantiles)
    windows = (document["forecast"] or {"windows": ()})["windows"]
    found = next((one["quantiles"] for one in windows if one["name"] == name), ())
    return tuple((point["level"], point["qps"]) for point in found)


def thinned_context(text: str) -> tuple[str, float, float]:
    """A stored context without the past decisions and changes that it holds; beside it the
    capacity of a replica (requests a second) and the median lead time (seconds).

    Raises ValueError, KeyError or TypeError where the text is not a stored context.
    """
    document = json.loads(text)
    thin = document | {"recent": [], "changes": []}
    return _canonical(thin), *_known_beside(document)


def figures_of_thinned(thin: str, whole: str) -> tuple[float, float] | None:
    """The same two figures where the first text is the second one thinned, else None; faster than
    thinning it again.

    Raises ValueError, KeyError or TypeError where a text is not a stored context.
    """
    document = from_json(whole)
    if from_json(thin) != document | {"recent": [], "changes": []}:
        return None
    return _known_beside(document)


def _known_beside(document: dict[str, Any]) -> tuple[float, float]:
    capacity, lead = document["capacity"], document["lead_time"]
    return float(capacity["qps_per_replica"]), float(lead["p50_seconds"])


@lru_cache(maxsize=256)
def _settings(text: str) -> PolicySettings:
    """Thousands of decisions share their settings."""
    return _SETTINGS.validate_json(text)


def encode_decision(decision: Decision) -> str:
    return _canonical(_DECISION.dump_python(decision, mode="json"))


def decode_decision(text: str) -> Decision:
    return _DECISION.validate_json(text)


def encode_notes(notes: Notes) -> str | None:
    return _canonical([list(note) for note in notes]) if notes else None


def decode_notes(text: str | None) -> Notes:
    return () if text is None else tuple((name, value) for name, value in json.loads(text))


def encode_model(fitted: FittedModel) -> str:
    return _canonical(_MODEL.dump_python(fitted, mode="json"))


def decode_model(text: str) -> FittedModel:
    return _MODEL.validate_json(text)


def pack(text: str) -> bytes:
    """Compressed: a context is repetitive, and there are millions of them."""
    return zlib.compress(text.encode(), level=3)


def unpack(data: bytes) -> str:
    """Raises ValueError where the data is not what was packed."""
    try:
        return zlib.decompress(data).decode()
    except zlib.error as error:
        raise ValueError(f"the stored form cannot be unpacked: {error}") from error


def _canonical(document: Any) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
