"""Control: who may pause and override from the live page, and what they must say.

Knows two ways to be somebody: the token of the settings, or the name that a reverse proxy vouches
for. Without either nobody may, and the page only shows. Whoever is refused is written to the log.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import structlog

from policies.context import OverrideKind
from storage.overrides import RELEASE, OverrideRequest
from storage.reports.words import printable

LEAST_TOKEN = 16
MOST_BODY_BYTES = 16 * 1024
TEXTS, NUMBERS = ("kind", "owner", "reason", "token"), ("replicas", "minutes")
_log = structlog.get_logger("daybreak")


class RefusedError(Exception):
    """Somebody may not do this, or does not say it rightly; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Control:
    """`token` must come with a request, or `user_header` with a name; raises ValueError where
    there is neither, or a token that could be guessed."""

    token: str | None = None
    user_header: str | None = None

    def __post_init__(self) -> None:
        if self.token is None and self.user_header is None:
            raise ValueError("control needs a token or a header that names the user")
        if self.token is not None and len(self.token) < LEAST_TOKEN:
            raise ValueError(f"the server's token must have {LEAST_TOKEN} characters at least")

    def source(self, headers: Mapping[str, str], token: str | None) -> str:
        """By which way somebody may; raises RefusedError where nobody proved to be one.

        A token is given beside the request's other fields or as a bearer token.
        """
        user = self.user(headers)
        if user is not None:
            return f"header {self.user_header}"
        given = token or _bearer_token(headers.get("authorization", ""))
        if self.token is None or not given:
            raise RefusedError(401, "this needs to be authorised: give the server's token")
        # JSON can carry half a character, which is nobody's token but must be compared.
        if not hmac.compare_digest(given.encode("utf-8", "surrogatepass"), self.token.encode()):
            raise RefusedError(403, "the token is not the server's")
        return "token"

    def user(self, headers: Mapping[str, str]) -> str | None:
        """Whom the proxy names; None where it names nobody or is not trusted to."""
        return (headers.get(self.user_header) or None) if self.user_header else None


def _bearer_token(header: str) -> str:
    """What the header gives; its scheme may be written in any case."""
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else header


def check_origin(headers: Mapping[str, str], allowed_hosts: frozenset[str]) -> None:
    """A browser says which page a request comes from: only our own may send one that changes
    something. Raises RefusedError."""
    origin = headers.get("origin")
    if origin is None:
        if headers.get("sec-fetch-site", "same-origin") != "same-origin":
            raise RefusedError(403, "the request comes from another site")
        return
    try:
        page = urlsplit(origin)
    except ValueError as error:
        raise RefusedError(403, "the request comes from another site") from error
    if page.netloc != headers.get("host") and (page.hostname or "") not in allowed_hosts:
        raise RefusedError(403, "the request comes from another site")


def log_refusal(workload: str, why: str, client: str) -> None:
    _log.warning("override refused", workload=printable(workload), why=why, client=client)


async def read_body(chunks: AsyncIterable[bytes]) -> bytes:
    """What was sent; raises RefusedError where it is too long for what it should say."""
    body = b""
    async for chunk in chunks:
        body += chunk
        if len(body) > MOST_BODY_BYTES:
            raise RefusedError(413, "the request is too long")
    return body


def fields_of(body: bytes, content_type: str) -> dict[str, str]:
    """The fields of a form or of a JSON object, as texts; raises RefusedError."""
    kind = content_type.split(";", maxsplit=1)[0].strip()
    try:
        if kind == "application/x-www-form-urlencoded":
            document: Any = dict(parse_qsl(body.decode(), max_num_fields=20))
        else:
            document = json.loads(body) if kind == "application/json" else None
    except ValueError as error:
        raise RefusedError(400, f"the request cannot be read: {error}") from error
    except RecursionError as error:
        raise RefusedError(400, "the request cannot be read: it is nested too deeply") from error
    if not isinstance(document, dict):
        raise RefusedError(415, "expected a form, or a JSON object as application/json")
    return {key: _field(key, value) for key, value in document.items() if value is not None}


def _field(name: str, value: object) -> str:
    """A field as text; what stands in the log for ever is what somebody wrote, not what Python
    makes of an object."""
    if name not in (*TEXTS, *NUMBERS):
        known = ", ".join((*TEXTS, *NUMBERS))
        raise RefusedError(400, f"expected no fields but {known}, got {name[:40]!r}")
    if isinstance(value, str):
        return value
    if name in NUMBERS and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    expected = "a whole number" if name in NUMBERS else "a text"
    raise RefusedError(400, f"{name}: expected {expected}, got {type(value).__name__}")


def override_request(fields: Mapping[str, str], source: str) -> OverrideRequest:
    """Raises RefusedError where a field is missing or is not what it should be."""
    kind = fields.get("kind", "")
    # A form sends every field that it has: a number beside a pause means nothing.
    numbered = kind in (OverrideKind.REPLICAS, OverrideKind.MINIMUM)
    try:
        return OverrideRequest(
            kind=kind,
            owner=fields.get("owner", ""),
            reason=fields.get("reason", ""),
            source=source,
            replicas=_whole("replicas", fields) if numbered else None,
            duration=None if kind == RELEASE else timedelta(minutes=_whole("minutes", fields)),
        )
    except ValueError as error:
        raise RefusedError(400, str(error)) from error


def _whole(name: str, fields: Mapping[str, str]) -> int:
    text = fields.get(name, "")
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise ValueError(f"{name}: expected a whole number, got {text[:40]!r}")
    return int(text)
