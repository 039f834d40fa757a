"""The status server: health, metrics, and a live page on the decision log.

Knows routes and what a browser may do with them: read, and where the settings say who may, add an
override to the log. Knows no loop and no cluster. The page asks for nothing but this server's own
files, and only a host name that we answer to gets an answer, so that a foreign page cannot read
ours through a rebound name.
"""

from __future__ import annotations

import asyncio
import ipaddress
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from importlib import resources
from typing import Any
from urllib.parse import quote

import uvicorn
from jinja2 import Environment, PackageLoader, StrictUndefined
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.exposition import choose_encoder
from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from policies.context import OverrideKind, ScalingContext
from scaler.control import (
    Control,
    RefusedError,
    check_origin,
    fields_of,
    log_refusal,
    override_request,
    read_body,
)
from scaler.listening import listen
from scaler.obstacles import Unapplied
from scaler.ports import StoreError
from scaler.rounds import OVERDUE_INTERVALS
from storage.database import reading
from storage.overrides import (
    LONGEST,
    LONGEST_OWNER,
    LONGEST_REASON,
    MOST_REPLICAS,
    RELEASE,
    OverrideRow,
    newest_override,
    overrides,
    record_override,
)
from storage.reports import charts, summary, timeline, words
from storage.reports.report import stylesheet
from storage.reports.timeline import LoggedDecision, Timeline

LISTED_DECISIONS = 20
MOST_DECISIONS = 1000
WINDOWS = {"1h": 1, "6h": 6, "24h": 24}
CACHED_CHARTS = 64
ASSETS = {"live.css": "text/css", "live.js": "text/javascript", "icon.svg": "image/svg+xml"}
STOP_SECONDS = 2.0
MOST_CONNECTIONS = 64
REQUEST_SECONDS = 10.0
"""How long a client may take over the headers of a request, and as long again over its body."""
LISTED_OVERRIDES = timedelta(days=7)
KINDS = {
    OverrideKind.PAUSE: "Pause: change nothing",
    OverrideKind.REPLICAS: "Ask for this number",
    OverrideKind.MINIMUM: "Ask for at least this number",
    RELEASE: "Release what holds now",
}

CHART_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
SECURITY_HEADERS = (
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cache-control", "no-store"),
)

_pages = Environment(
    loader=PackageLoader("scaler"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_pages.filters.update(
    count=summary.count,
    seconds=summary.seconds,
    age=words.age_words,
    path=lambda name: quote(name, safe=""),
    reason_words=words.reason_words,
    outcome_words=words.outcome_words,
    problem_words=words.problem_words,
    override_words=words.override_words,
)


@dataclass(frozen=True, slots=True)
class Served:
    """What the daemon behind the page knows beside the log: the workloads that its settings name,
    whose decisions are not applied, which of them only a restart would help, and which other
    daemon leads while this one stands by."""

    names: frozenset[str]
    unapplied: Callable[[], Mapping[str, Unapplied]]
    stuck: Callable[[], list[str]] = list
    led_by: Callable[[], str | None] = lambda: None


def build_app(
    engine: Engine,
    registry: CollectorRegistry,
    readiness: Callable[[], list[str]],
    allowed_hosts: Iterable[str] = (),
    control: Control | None = None,
    now: Callable[[], datetime] | None = None,
    *,
    served: Served | None = None,
) -> Starlette:
    """The application; `readiness` says why the daemon is not ready, or nothing where it is, each
    reason with the name of its workload before a colon. With `now` the ages of what is shown are
    counted from that, else they are those at the last decision. With `served` the workloads are
    those of a daemon's settings, and what else the log holds is shown as past.

    Addresses and loopback names may always be asked for; `allowed_hosts` names what else may,
    such as the name of a Service. Without `control` it only shows; with it, `now` is also the
    time that overrides begin at, and must be given. Raises ValueError where it does not.
    """
    if control is not None and now is None:
        raise ValueError("overrides need a clock")
    hosts = frozenset(map(str.lower, allowed_hosts))
    site = _Site(engine, registry, readiness, _Desk(control, now, hosts), served)
    return Starlette(
        routes=[
            Route("/", site.overview),
            Route("/healthz", site.healthz),
            Route("/readyz", site.readyz),
            Route("/metrics", site.metrics),
            Route("/assets/{name}", site.asset),
            Route("/api/workloads", site.api_workloads),
            Route("/api/workloads/{name:path}/decisions", site.api_decisions),
            Route("/api/workloads/{name:path}/override", site.override, methods=["POST"]),
            Route("/workloads/{name:path}/override", site.override, methods=["POST"]),
            Route("/workloads/{name:path}/{chart}.svg", site.chart),
            Route("/workloads/{name:path}", site.workload),
        ],
        middleware=[Middleware(_Guard, allowed_hosts=hosts)],
        exception_handlers={
            HTTPException: _http_error,
            RefusedError: _refused,
            StoreError: _store_error,
        },
    )


class _Impatient(H11Protocol):
    """Closes a connection whose client does not say what it wants: so many as are allowed at once,
    left open, would shut everybody else out."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._wait()

    def on_response_complete(self) -> None:
        # First: a request that was sent ahead begins within.
        self._wait()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._patience is not None:
            self._patience.cancel()

    def _wait(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._patience = self.loop.call_later(REQUEST_SECONDS, self._give_up)

    def _give_up(self) -> None:
        """The turn is the client's between two requests and while a body is read."""
        asked = self.cycle is not None and not self.cycle.response_complete
        if (not asked or self.cycle.more_body) and not self.transport.is_closing():
            self.transport.close()


class StatusServer:
    """Serves an application from a thread of its own; port 0 takes any free port."""

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=_Impatient,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
                limit_concurrency=MOST_CONNECTIONS,
            )
        )
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Bind, then serve; raises CannotListenError."""
        listening = listen(self._host, self._port)
        self._port = listening.getsockname()[1]
        self._thread = threading.Thread(
            target=self._server.run, args=([listening],), name="status", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Finish what is being answered and close; at most two seconds."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    @property
    def port(self) -> int:
        """The port in use, known once started."""
        return self._port

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the page."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}/"


@dataclass(frozen=True, slots=True)
class _Glance:
    """A workload in one line."""

    name: str
    mode: str
    last: LoggedDecision
    context: ScalingContext
    override: OverrideRow | None
    now: datetime | None
    in_settings: bool | None

    @property
    def data_age_seconds(self) -> float | None:
        """Of the demand, at the decision where the page has no clock; None where it was not
        known."""
        seen = self.context.observation
        if seen.demand_qps is None:
            return None
        return ((self.now or self.context.now) - seen.at).total_seconds()

    @property
    def decided_age_seconds(self) -> float | None:
        return None if self.now is None else (self.now - self.last.at).total_seconds()

    @property
    def past(self) -> bool:
        """Whether the settings do not name it any more: no decision is to come."""
        return self.in_settings is False

    @property
    def overdue(self) -> bool:
        """One from further ahead is none either: the clock was set back since."""
        age = None if self.past else self.decided_age_seconds
        return age is not None and abs(age) > OVERDUE_INTERVALS * self.context.interval_seconds


@dataclass(frozen=True, slots=True)
class _Desk:
    """Where overrides are taken: who may, what time it is, and which names are ours."""

    control: Control | None
    now: Callable[[], datetime] | None
    hosts: frozenset[str]


class _Site:
    """The handlers; each is run in a thread of its own, since the log is read synchronously."""

    def __init__(
        self,
        engine: Engine,
        registry: CollectorRegistry,
        readiness: Callable[[], list[str]],
        desk: _Desk,
        served: Served | None,
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._readiness = readiness
        self._desk = desk
        self._served = served
        self._asked: Counter | None = None
        if desk.control is not None:
            text = "Requests to override, by whether they were taken."
            self._asked = Counter(
                "daybreak_override_requests", text, ["outcome"], registry=registry
            )
        # A decision never changes, so its charts are drawn once, however many look at them.
        self._drawn = lru_cache(maxsize=CACHED_CHARTS)(self._draw)

    def healthz(self, _: Request) -> Response:
        stuck = self._served.stuck() if self._served is not None else []
        if stuck:
            return PlainTextResponse(f"stuck: {', '.join(stuck)}\n", status_code=503)
        return PlainTextResponse("ok\n")

    def readyz(self, _: Request) -> Response:
        reasons = self._readiness()
        standing = {} if self._served is None else self._served.unapplied()
        not_applied = {name: _unapplied_json(one) for name, one in standing.items()}
        body = {"ready": not reasons, "reasons": reasons, "not_applied": not_applied}
        return JSONResponse(body, status_code=503 if reasons else 200)

    def _led_by(self) -> str | None:
        return None if self._served is None else self._served.led_by()

    def metrics(self, request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), headers={"content-type": content_type})

    def asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in ASSETS:
            raise HTTPException(404)
        text = (resources.files("scaler") / "assets" / name).read_text(encoding="utf-8")
        shared = stylesheet() if name == "live.css" else ""
        return Response(shared + text, media_type=ASSETS[name])

    def overview(self, _: Request) -> Response:
        glances = [self._glance(name) for name in timeline.workload_names(self._engine)]
        return _page(
            "overview.html.j2",
            glances=glances,
            unready=self._readiness(),
            led_by=self._led_by(),
        )

    def workload(self, request: Request) -> Response:
        name, window = request.path_params["name"], _window(request)
        glance = self._glance(name)
        return _page(
            "workload.html.j2",
            glance=glance,
            unready=[reason for reason in self._readiness() if reason.startswith(f"{name}: ")],
            led_by=self._led_by(),
            window=window,
            windows=list(WINDOWS),
            layouts=charts.LAYOUTS.values(),
            decisions=timeline.last_decisions(self._engine, name, LISTED_DECISIONS),
            overrides=self._overrides(glance)[::-1],
            form=self._form(request, glance),
            has_latency=glance.context.observation.latency_p99_seconds is not None,
        )

    def chart(self, request: Request) -> Response:
        name, chart = request.path_params["name"], request.path_params["chart"]
        layout = request.query_params.get("layout", charts.WIDE.name)
        if chart not in _CHARTS or layout not in charts.LAYOUTS:
            raise HTTPException(404)
        glance = self._glance(name)
        svg = self._drawn(name, chart, layout, _window(request), glance.last.id)
        policy = {"content-security-policy": CHART_POLICY}
        return Response(svg, media_type="image/svg+xml", headers=policy)

    def api_workloads(self, _: Request) -> Response:
        names = timeline.workload_names(self._engine)
        return JSONResponse({"workloads": [_glance_json(self._glance(name)) for name in names]})

    def api_decisions(self, request: Request) -> Response:
        limit = request.query_params.get("limit", str(LISTED_DECISIONS))
        # Longer texts of digits are no number to Python.
        if not limit.isdecimal() or len(limit) > 9 or not 1 <= int(limit) <= MOST_DECISIONS:
            raise HTTPException(400, f"limit: expected 1 to {MOST_DECISIONS}, got {limit[:40]!r}")
        name = request.path_params["name"]
        decisions = timeline.last_decisions(self._engine, name, int(limit))
        if not decisions:
            raise HTTPException(404, "no such workload")
        return JSONResponse(
            {"workload": name, "decisions": [_decision_json(decision) for decision in decisions]}
        )

    async def override(self, request: Request) -> Response:
        """Add an override; whoever may not, and why, is written to the log."""
        name = request.path_params["name"]
        try:
            body = await _body(request)
            row = await run_in_threadpool(self._override, request, name, body)
        except RefusedError as error:
            client = request.client.host if request.client else "?"
            log_refusal(name, str(error), client)
            self._count("refused")
            raise
        self._count("taken")
        if request.url.path.startswith("/api/"):
            return JSONResponse(_override_json(row), status_code=201)
        return RedirectResponse(f"/workloads/{quote(name, safe='')}", status_code=303)

    def _override(self, request: Request, name: str, body: bytes) -> OverrideRow:
        control, now = self._desk.control, self._desk.now
        if control is None or now is None:
            raise RefusedError(403, "this page only shows: its settings name nobody who may")
        check_origin(request.headers, self._desk.hosts)
        fields = fields_of(body, request.headers.get("content-type", ""))
        source = control.source(request.headers, fields.pop("token", None))
        user = control.user(request.headers)
        if user is not None:
            fields["owner"] = user
        if name not in self._names():
            raise RefusedError(404, "no such workload")
        return record_override(self._engine, name, now(), override_request(fields, source))

    def _names(self) -> Iterable[str]:
        """Whose decisions are still to come: also who has had none yet can be paused."""
        if self._served is not None:
            return self._served.names
        return timeline.workload_names(self._engine)

    def _count(self, outcome: str) -> None:
        if self._asked is not None:
            self._asked.labels(outcome).inc()

    def _overrides(self, glance: _Glance) -> Sequence[OverrideRow]:
        """Those of the last days, and what still holds."""
        until = max(self._now(glance.context), glance.context.now) + timedelta(seconds=1)
        return overrides(self._engine, glance.name, until - LISTED_OVERRIDES, until)

    def _form(self, request: Request, glance: _Glance) -> dict[str, Any] | None:
        """What the form needs to know; None where the page only shows."""
        control = self._desk.control
        if control is None or glance.past:
            return None
        return {
            "kinds": KINDS,
            "user": control.user(request.headers),
            "asks_token": control.token is not None and control.user(request.headers) is None,
            "replicas": glance.last.current,
            "most_replicas": MOST_REPLICAS,
            "most_minutes": LONGEST // timedelta(minutes=1),
            "longest_owner": LONGEST_OWNER,
            "longest_reason": LONGEST_REASON,
        }

    def _now(self, context: ScalingContext) -> datetime:
        """The time, or on a page without a clock that of the last decision."""
        return context.now if self._desk.now is None else self._desk.now()

    def _glance(self, name: str) -> _Glance:
        last = timeline.last_decisions(self._engine, name, 1)
        context = timeline.last_context(self._engine, name)
        if not last or context is None:
            raise HTTPException(404, "no such workload")
        with reading(self._engine) as connection:
            found = newest_override(connection, name, self._now(context))
        now = None if self._desk.now is None else self._desk.now()
        in_settings = None if self._served is None else name in self._served.names
        return _Glance(name, self._mode(name), last[0], context, found, now, in_settings)

    def _mode(self, workload: str) -> str:
        """The mode that the daemon's own metric names; the log does not hold it."""
        for metric in self._registry.collect():
            for sample in metric.samples:
                if sample.name == "daybreak_mode" and sample.labels["workload"] == workload:
                    return sample.labels["mode"]
        return ""

    def _draw(self, name: str, chart: str, layout: str, window: str, _decision_id: int) -> str:
        context = timeline.last_context(self._engine, name)
        assert context is not None
        since = context.now - timedelta(hours=WINDOWS[window])
        line = timeline.timeline(
            self._engine,
            name,
            since,
            context.now + timedelta(seconds=1),
            charts.LAYOUTS[layout].points,
        )
        svg = _CHARTS[chart](line, context, charts.LAYOUTS[layout])
        return charts.standalone(svg)


def _draw_traffic(line: Timeline, context: ScalingContext, layout: charts.Layout) -> str:
    return charts.traffic(line, context.capacity.qps_per_replica, layout)


def _draw_replicas(line: Timeline, context: ScalingContext, layout: charts.Layout) -> str:
    return charts.replicas(line, context.capacity.qps_per_replica, layout)


def _draw_latency(line: Timeline, _: ScalingContext, layout: charts.Layout) -> str:
    path = charts.LatencyPath("P99 as observed", line.time, line.latency_p99_seconds)
    return charts.latency([path], None, layout)


def _draw_reasons(line: Timeline, _: ScalingContext, layout: charts.Layout) -> str:
    return charts.reasons(line, layout)


_CHARTS: dict[str, Callable[[Timeline, ScalingContext, charts.Layout], str]] = {
    "traffic": _draw_traffic,
    "replicas": _draw_replicas,
    "latency": _draw_latency,
    "reasons": _draw_reasons,
}


class _Guard:
    """Refuses foreign host names, and adds the security headers to every answer."""

    def __init__(self, app: ASGIApp, allowed_hosts: frozenset[str]) -> None:
        self._app = app
        self._allowed = allowed_hosts | {"localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _secured(message["headers"])
            await send(message)

        if scope["type"] != "http":
            return
        hosts = [value for key, value in scope["headers"] if key == b"host"]
        if len(hosts) == 1 and self._answers_to(hosts[0].decode("latin-1")):
            await self._app(scope, receive, guarded)
        else:
            refusal = PlainTextResponse("this host name is not served here\n", status_code=421)
            await refusal(scope, receive, guarded)

    def _answers_to(self, header: str) -> bool:
        """A rebound name is never an address, so any address may be asked for."""
        host = header.rsplit(":", 1)[0] if not header.endswith("]") else header
        host = host.removeprefix("[").removesuffix("]").rstrip(".").lower()
        return host in self._allowed or host.endswith(".localhost") or _is_address(host)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _secured(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    given = {name.lower() for name, _ in headers}
    ours = (*SECURITY_HEADERS, ("content-security-policy", PAGE_POLICY))
    added = [(name.encode(), value.encode()) for name, value in ours if name.encode() not in given]
    return [*headers, *added]


def _page(template: str, status_code: int = 200, **values: object) -> HTMLResponse:
    return HTMLResponse(_pages.get_template(template).render(values), status_code=status_code)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return _error(request, error.status, str(error))


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(request, error.status_code, error.detail, error.headers)


def _store_error(request: Request, error: Exception) -> Response:
    return _error(request, 503, str(error))


def _error(request: Request, status: int, message: str, headers: Any = None) -> Response:
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": message}, status_code=status, headers=headers)
    page = _page("error.html.j2", status, status=status, message=message)
    page.headers.update(headers or {})
    return page


async def _body(request: Request) -> bytes:
    """Raises RefusedError where it is too long, or did not come to its end."""
    try:
        return await read_body(request.stream())
    except ClientDisconnect as error:
        raise RefusedError(408, "the request did not come to its end") from error


def _window(request: Request) -> str:
    window = request.query_params.get("window", next(iter(WINDOWS)))
    if window not in WINDOWS:
        raise HTTPException(400, f"window: expected one of {', '.join(WINDOWS)}")
    return window


def _glance_json(glance: _Glance) -> dict[str, Any]:
    return {
        "workload": glance.name,
        "mode": glance.mode or None,
        "in_settings": glance.in_settings,
        "data_age_seconds": glance.data_age_seconds,
        "decided_age_seconds": glance.decided_age_seconds,
        "overdue": glance.overdue,
        "override": None if glance.override is None else _override_json(glance.override),
        "last": _decision_json(glance.last),
    }


def _unapplied_json(one: Unapplied) -> dict[str, str]:
    return {
        "outcome": one.outcome.kind.value,
        "since": one.since.isoformat(),
        "detail": one.outcome.detail,
    }


def _decision_json(decision: LoggedDecision) -> dict[str, Any]:
    return asdict(decision) | {
        "at": decision.at.isoformat(),
        "why": words.reason_words(decision.reason),
        "steps": [asdict(step) for step in decision.steps],
        "problems": [
            {"source": source, "kind": kind, "message": message}
            for source, kind, message in decision.problems
        ],
    }


def _override_json(row: OverrideRow) -> dict[str, Any]:
    times = {"at": row.at.isoformat(), "expires_at": row.expires_at and row.expires_at.isoformat()}
    return asdict(row) | times
