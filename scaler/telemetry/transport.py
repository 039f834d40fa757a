"""One HTTP exchange with a Prometheus, bounded in time, size and trust.

Knows deadlines, sizes, credentials and the envelope around an answer. Knows no query and no
number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth
from urllib3 import Retry
from urllib3.exceptions import HTTPError

from policies.context import ProblemKind
from scaler.clock import SystemClock
from scaler.settings import Prometheus
from scaler.settings_file import SettingsError, read_secret
from scaler.watchdog import WATCHED_POOLS, Watchdog

CHUNK_BYTES = 65_536
NOT_PROMETHEUS = "which is not Prometheus's API; is the URL right?"


class QueryError(Exception):
    """An exchange gave no usable answer: of which kind, why, and whether to ask again."""

    def __init__(
        self,
        kind: ProblemKind,
        cause: str,
        *,
        retryable: bool = False,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(cause)
        self.kind = kind
        self.cause = one_line(cause)
        self.retryable = retryable
        self.retry_after_seconds = retry_after_seconds


class Credentials(AuthBase):
    """The Authorization header, its secret read anew for each request as tokens rotate.

    Always set, also without a secret: else requests would look into ~/.netrc.
    """

    def __init__(self, settings: Prometheus) -> None:
        self._settings = settings

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Raises QueryError where the secret cannot be read."""
        settings = self._settings
        try:
            if settings.bearer_token_file:
                token = read_secret(settings.bearer_token_file, None)
                request.headers["Authorization"] = f"Bearer {token}"
            if settings.basic_auth:
                user, password = settings.basic_auth.username, settings.basic_auth.password()
                request = HTTPBasicAuth(user.encode(), password.encode())(request)
        except (SettingsError, UnicodeError) as error:
            raise QueryError(ProblemKind.UNREACHABLE, str(error)) from error
        return request


class BoundedAdapter(HTTPAdapter):
    """Sends a request and returns only a whole, successful, well-formed answer of Prometheus.

    `deadline` is on the monotonic clock and is set before each request. Afterwards `doubts` holds
    what the server said against its own answer, and `result_type` what the answer holds; both
    would be lost in prometheus-api-client. For one thread.
    """

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_retries=Retry(total=0, redirect=False))
        self._max_bytes = max_bytes
        self.deadline = 0.0
        self.doubts: tuple[str, ...] = ()
        self.result_type = ""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = WATCHED_POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = WATCHED_POOLS
        return manager

    def send(
        self, request: requests.PreparedRequest, *_args: Any, **kwargs: Any
    ) -> requests.Response:
        """Raises QueryError, and nothing else."""
        seconds = self.deadline - SystemClock().monotonic()
        late = QueryError(ProblemKind.UNREACHABLE, "no complete answer in the time allowed")
        if seconds <= 0:
            raise late
        with Watchdog(seconds) as watchdog:
            try:
                response = super().send(request, **{**kwargs, "timeout": seconds})
                body = self._bounded_body(response)
            except (requests.RequestException, HTTPError, OSError, ValueError) as error:
                raise late if watchdog.barked or _timed_out(error) else _fault(error) from error
            # A connection that was cut can look like an answer that ended.
            if watchdog.barked:
                raise late
        response._content = body  # requests has no public way to set it
        self._open_envelope(response, body)
        return response

    def _bounded_body(self, response: requests.Response) -> bytes:
        """The body after decompression, so that a small packet cannot become a large answer."""
        body = bytearray()
        try:
            for chunk in response.iter_content(CHUNK_BYTES):
                body += chunk
                if len(body) > self._max_bytes:
                    limit = f"the answer is larger than maxResponseBytes ({self._max_bytes})"
                    raise QueryError(ProblemKind.UNREACHABLE, limit)
        finally:
            response.close()
        return bytes(body)

    def _open_envelope(self, response: requests.Response, body: bytes) -> None:
        document = _parsed(body)
        if response.status_code != requests.codes.ok:
            raise _refusal(response, document)
        if document is None:
            page = "an HTML page" if body.lstrip()[:1] == b"<" else "no JSON object"
            raise QueryError(ProblemKind.UNREACHABLE, f"answered with {page}, {NOT_PROMETHEUS}")
        if document.get("status") == "error":
            raise _refused_query(str(document.get("error")))
        data = document.get("data")
        if not isinstance(data, dict) or not isinstance(data.get("result"), list):
            raise QueryError(
                ProblemKind.UNREACHABLE, f"answered with JSON without a result, {NOT_PROMETHEUS}"
            )
        self.result_type = str(data.get("resultType"))
        self.doubts = tuple(_doubts(document))


def one_line(text: str, limit: int = 300) -> str:
    """The text on one line, cut where it runs on."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[:limit]}..."


def _parsed(body: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _doubts(document: Mapping[str, Any]) -> Iterator[str]:
    warnings = document.get("warnings") or []
    for warning in warnings if isinstance(warnings, list) else [warnings]:
        # Advice on how the query is written, which older Prometheus and Thanos put here.
        if not str(warning).startswith("PromQL info:"):
            yield one_line(str(warning))
    if document.get("isPartial"):
        yield "the server marks the answer as partial"


def _refused_query(text: str) -> QueryError:
    return QueryError(ProblemKind.NO_DATA, f"the query was refused: {text}")


def _refusal(response: requests.Response, document: Mapping[str, Any] | None) -> QueryError:
    status = response.status_code
    said = str((document or {}).get("error") or response.reason)
    if status in (400, 422) and document is not None:
        return _refused_query(said)
    if status in (401, 403):
        cause = f"HTTP {status}: the credentials were refused"
    elif 300 <= status < 400:
        host = urlsplit(urljoin(response.url, response.headers.get("Location", ""))).hostname
        cause = f"HTTP {status}: redirects to {host} are not followed; give the final URL"
    elif status == 404:
        cause = f"HTTP 404, {NOT_PROMETHEUS}"
    else:
        cause = f"HTTP {status}: {said}"
    return QueryError(
        ProblemKind.UNREACHABLE,
        cause,
        retryable=status == 429 or status >= 500,
        retry_after_seconds=_seconds(response.headers.get("Retry-After", "")),
    )


def _seconds(text: str) -> float | None:
    # Only the form in seconds: a date would be measured against a clock that is not the server's.
    return float(text) if text.isascii() and text.isdigit() else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and all that stand behind it; requests and urllib3 wrap each other's."""
    seen: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        found = waiting.pop()
        if isinstance(found, BaseException) and found not in seen:
            seen.append(found)
            yield found
            waiting += [found.__cause__, found.__context__, getattr(found, "reason", None)]
            waiting += found.args


def _timed_out(error: BaseException) -> bool:
    return any(isinstance(found, TimeoutError) for found in _chain(error))


def _fault(error: Exception) -> QueryError:
    """The failure in the system's own words; those of requests quote URLs and headers."""
    words = [found.strerror for found in _chain(error) if isinstance(found, OSError)]
    if type(error) is OSError and error.strerror is None:
        words.append(one_line(str(error)))  # A certificate file that is not there, with its path.
    cause = next((text for text in reversed(words) if text), type(error).__name__)
    broken = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)
    return QueryError(ProblemKind.UNREACHABLE, cause, retryable=isinstance(error, broken))
