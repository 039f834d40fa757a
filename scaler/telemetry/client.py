"""A Prometheus that is asked queries: retries inside one deadline, one session per thread.

Knows how to ask and how the answer is laid out. Knows neither what a query means nor which of its
numbers to trust. Raises MetricsError, whose message names host, purpose and cause.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakSet

import requests
from prometheus_api_client import PrometheusConnect
from tenacity import RetryCallState, Retrying, retry_if_exception
from urllib3 import Retry

from policies.context import ProblemKind
from scaler.clock import SystemClock
from scaler.ports import MetricsError
from scaler.settings import Prometheus
from scaler.telemetry.transport import BoundedAdapter, Credentials, QueryError

FIRST_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer: its labels, and its samples as the server wrote them."""

    labels: tuple[tuple[str, str], ...]
    samples: Sequence[Any]

    def __str__(self) -> str:
        return "{" + ", ".join(f"{name}={value!r}" for name, value in self.labels) + "}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query gave; `doubts` is what the server itself said against it."""

    series: tuple[Series, ...]
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """A query, what it is for, and how long and how often it may be asked.

    `deadline` is on the monotonic clock and covers all attempts together.
    """

    query: str
    purpose: str
    deadline: float
    attempts: int = 3


class PrometheusClient:
    """Asks one server; may be used by several threads at once."""

    def __init__(self, settings: Prometheus) -> None:
        self._settings = settings
        self._url = settings.url.rstrip("/")
        self._own = threading.local()
        self._connections: WeakSet[_Connection] = WeakSet()

    @property
    def host(self) -> str:
        """Host and port as messages name them: without user, password or path."""
        return urlsplit(self._url).netloc.rpartition("@")[2]

    def instant(self, question: Question, at: datetime) -> Answer:
        """The query's value at one moment. Raises MetricsError."""
        moment = {"time": round(at.timestamp(), 3)}
        return self._ask(
            question, lambda connect: connect.custom_query(question.query, params=moment)
        )

    def over(self, question: Question, start: datetime, end: datetime, step_seconds: int) -> Answer:
        """The query's values from start to end, both included. Raises MetricsError."""
        return self._ask(
            question,
            lambda connect: connect.custom_query_range(
                question.query, start, end, str(step_seconds)
            ),
        )

    def close(self) -> None:
        """Close every thread's connections; a later query opens new ones."""
        for connection in list(self._connections):
            connection.session.close()

    def _ask(self, question: Question, call: Callable[[PrometheusConnect], Any]) -> Answer:
        connection = self._connection()
        connection.adapter.deadline = question.deadline
        retrying = Retrying(
            retry=retry_if_exception(lambda e: isinstance(e, QueryError) and e.retryable),
            wait=_pause,
            stop=lambda state: _spent(state, question),
            reraise=True,
        )
        try:
            result = retrying(lambda: call(connection.connect))
            return Answer(
                _series(connection.adapter.result_type, result), connection.adapter.doubts
            )
        except QueryError as failure:
            message = f"{self.host}: {question.purpose}: {failure.cause}"
            raise MetricsError(failure.kind, message) from failure

    def _connection(self) -> _Connection:
        if not hasattr(self._own, "connection"):
            self._own.connection = _Connection(self._url, self._settings)
            self._connections.add(self._own.connection)
        found: _Connection = self._own.connection
        return found


class _Connection:
    """One thread's session, and the library that speaks through it."""

    def __init__(self, url: str, settings: Prometheus) -> None:
        self.session = requests.Session()
        self.session.auth = Credentials(settings)
        self.session.headers.update(settings.headers)
        if settings.tenant is not None:
            self.session.headers[settings.tenant_header] = settings.tenant
        tls = settings.tls
        self.session.verify = str(tls.ca_file) if tls.ca_file else True
        if tls.cert_file and tls.key_file:
            self.session.cert = (str(tls.cert_file), str(tls.key_file))
        self.connect = PrometheusConnect(
            url=url, session=self.session, retry=Retry(total=0, redirect=False)
        )
        self.adapter = BoundedAdapter(settings.max_response_bytes)
        # Last, as PrometheusConnect mounts an adapter of its own for this URL.
        self.session.mount(url, self.adapter)


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_seconds if isinstance(error, QueryError) else None
    pause: float = FIRST_PAUSE_SECONDS * 2 ** (state.attempt_number - 1)
    return pause if asked is None else asked


def _spent(state: RetryCallState, question: Question) -> bool:
    next_attempt = SystemClock().monotonic() + state.upcoming_sleep
    return state.attempt_number >= question.attempts or next_attempt >= question.deadline


def _series(result_type: str, result: list[Any]) -> tuple[Series, ...]:
    try:
        if result_type == "scalar":
            return (Series((), [result]),)
        if result_type == "vector":
            return tuple(_labelled(item, [item["value"]]) for item in result)
        if result_type == "matrix":
            return tuple(_labelled(item, list(item["values"])) for item in result)
    except (KeyError, TypeError, AttributeError):
        result_type += " without plain numbers"
    cause = f"expected series of numbers, got a {result_type}"
    raise QueryError(ProblemKind.IMPLAUSIBLE, cause)


def _labelled(item: dict[str, Any], samples: list[Any]) -> Series:
    return Series(tuple(sorted(item["metric"].items())), samples)
