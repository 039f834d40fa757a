"""Contexts, decisions and models as JSON and back, exactly.

Knows that what is stored must come back equal, and that equal values give equal text (so that a
digest means something). The settings part of a context changes seldom and is stored once, by its
digest.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import Any

from pydantic import TypeAdapter

from forecaster.forecast import FittedModel
from policies.context import PolicySettings, ScalingContext
from policies.decision import Decision

SCHEMA_VERSION = 1
"""Of the stored JSON; raised with a reader for the older form whenever a type changes."""

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


def decode_context(text: str, settings_text: str) -> ScalingContext:
    """Raises ValueError where the text is not a context of a known schema version."""
    document = json.loads(text)
    if document.pop("schema", None) != SCHEMA_VERSION:
        raise ValueError("the stored context has an unknown schema version")
    document["settings"] = json.loads(settings_text)
    return _CONTEXT.validate_python(document)


def encode_decision(decision: Decision) -> str:
    return _canonical(_DECISION.dump_python(decision, mode="json"))


def decode_decision(text: str) -> Decision:
    return _DECISION.validate_json(text)


def encode_model(fitted: FittedModel) -> str:
    return _canonical(_MODEL.dump_python(fitted, mode="json"))


def decode_model(text: str) -> FittedModel:
    return _MODEL.validate_json(text)


def pack(text: str) -> bytes:
    """Compressed: a context is repetitive, and there are millions of them."""
    return zlib.compress(text.encode(), level=3)


def unpack(data: bytes) -> str:
    return zlib.decompress(data).decode()


def _canonical(document: Any) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
