"""A small API server on a real socket: what the cluster adapter meets, faults included.

Agrees with what a real API server was seen to do (v1.20): resourceVersions rise with every write,
the Deployment controller follows a change of the spec with a status update and an annotation, a
stale resourceVersion answers 409, a failed JSON patch test 422 and a Lease's time without
microseconds 400.
"""

from __future__ import annotations

import copy
import json
import queue
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.integration.json_patch import Json, json_patched, merged

MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")
"""How a Lease's times must be written: with six digits of a second."""


class Drop(Enum):
    """How a connection ends without an answer, or without the whole of one."""

    HANG = "hang"
    RESET = "reset"
    TRICKLE = "trickle"


@dataclass(frozen=True, slots=True)
class Fault:
    """What befalls matching requests: a status or a dropped connection, before or after the write.

    It lets `skips` requests pass and befalls the next `lasts`, `seconds` late; without `body` it
    sends a Status.
    """

    verb: str
    resource: str
    status: int = 0
    drop: Drop | None = None
    after: bool = False
    skips: int = 0
    lasts: int = 1
    seconds: float = 0.0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the rules for permissions see it."""

    verb: str
    group: str
    version: str
    resource: str
    namespace: str
    name: str
    subresource: str
    query: dict[str, list[str]]
    content_type: str
    body: Any


class RefusalError(Exception):
    def __init__(self, code: int, message: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.headers = headers


@dataclass
class KubernetesServer:
    """The objects, the faults to come, and the log of requests; a context manager that serves."""

    autoscaling_v2: bool = True
    certificate: tuple[Path, Path] | None = None
    token: str | None = None
    denied: set[tuple[str, str]] = field(default_factory=set)
    log: list[Request] = field(default_factory=list)
    objects: dict[tuple[str, str, str], Json] = field(default_factory=dict)
    page: int = 500

    def __post_init__(self) -> None:
        self._version = 100
        self._lock = threading.RLock()
        self._faults: list[Fault] = []
        self._closing = threading.Event()
        self._changed: queue.Queue[tuple[str, str, str] | None] = queue.Queue()
        self._http = _Listener(self)
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.certificate)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)

    def __enter__(self) -> KubernetesServer:
        for work in (lambda: self._http.serve_forever(0.01), self._control):
            threading.Thread(target=work, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._changed.put(None)
        self._changed.join()
        self._http.shutdown()
        self._http.server_close()

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}"

    def fail(self, *faults: Fault) -> None:
        self._faults = list(faults)

    def settle(self) -> None:
        """Wait until the Deployment controller has followed every change."""
        self._changed.join()

    def put(self, resource: str, item: Json) -> Json:
        """Store an object as another writer would."""
        with self._lock:
            meta = item["metadata"]
            self._version += 1
            meta.setdefault("uid", f"uid-{self._version}")
            meta.setdefault("creationTimestamp", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
            meta["resourceVersion"] = str(self._version)
            self.objects[resource, meta.get("namespace", ""), meta["name"]] = item
            return item

    def _control(self) -> None:
        while (key := self._changed.get()) is not None:
            with self._lock:
                found = self.objects.get(key)
                if found:
                    replicas = found["spec"]["replicas"]
                    found["status"] = {"replicas": replicas, "updatedReplicas": replicas}
                    notes = found["metadata"].setdefault("annotations", {})
                    notes.setdefault("deployment.kubernetes.io/revision", "1")
                    self.put(key[0], found)
            self._changed.task_done()
        self._changed.task_done()

    def fault_for(self, request: Request) -> Fault | None:
        with self._lock:
            for at, fault in enumerate(self._faults):
                if fault.verb in (request.verb, "*") and fault.resource in (request.resource, "*"):
                    if fault.skips:
                        self._faults[at] = replace(fault, skips=fault.skips - 1)
                        return None
                    left = fault.lasts - 1
                    self._faults[at : at + 1] = [replace(fault, lasts=left)] if left else []
                    return fault
        return None

    def wait_for_close(self, seconds: float = 30.0) -> bool:
        return self._closing.wait(seconds)

    def answer(self, request: Request) -> bytes:
        """Raises RefusalError."""
        with self._lock:
            return json.dumps(self._permitted(request)).encode()

    def _permitted(self, request: Request) -> Json:
        if (request.verb, request.resource) in self.denied:
            raise RefusalError(
                403, f'{request.resource} "{request.name}" is forbidden: no {request.verb}'
            )
        if request.group == "autoscaling" and request.version == "v2" and not self.autoscaling_v2:
            raise RefusalError(404, "404 page not found")
        if request.resource == "selfsubjectaccessreviews":
            asked = request.body["spec"]["resourceAttributes"]
            allowed = (asked["verb"], asked["resource"]) not in self.denied
            return {**request.body, "metadata": {}, "status": {"allowed": allowed}}
        if request.resource == "scaledobjects" and not self._of("scaledobjects", ""):
            raise RefusalError(404, "404 page not found")
        verbs: dict[str, Callable[[Request], Json]] = {
            "list": self._list,
            "get": self._get,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
        }
        return verbs[request.verb](request)

    def _of(self, resource: str, namespace: str) -> list[Json]:
        keys = sorted(key for key in self.objects if key[0] == resource)
        return [self.objects[key] for key in keys if namespace in ("", key[1])]

    def _list(self, request: Request) -> Json:
        wanted = request.query.get("labelSelector", [""])[0]
        pairs = dict(part.split("=", 1) for part in wanted.split(",") if part)
        items = [
            item
            for item in self._of(request.resource, request.namespace)
            if pairs.items() <= item["metadata"].get("labels", {}).items()
        ]
        start = int(request.query.get("continue", ["0"])[0])
        end = start + min(int(request.query.get("limit", ["500"])[0]), self.page)
        meta: Json = {"resourceVersion": str(self._version)}
        if end < len(items):
            meta["continue"] = str(end)
        return {"metadata": meta, "items": items[start:end]}

    def _get(self, request: Request) -> Json:
        found = self.objects.get((request.resource, request.namespace, request.name))
        if found is None:
            raise RefusalError(404, f'{request.resource} "{request.name}" not found')
        if request.subresource == "scale":
            meta, replicas = found["metadata"], found["spec"]["replicas"]
            return {"metadata": meta, "spec": {"replicas": replicas}, "status": {}}
        return found

    def _create(self, request: Request) -> Json:
        item = copy.deepcopy(request.body)
        name = item["metadata"]["name"]
        if (request.resource, request.namespace, name) in self.objects:
            raise RefusalError(409, f'{request.resource} "{name}" already exists')
        if request.resource != "namespaces":
            item["metadata"]["namespace"] = request.namespace
        return self._accept(request, item, name)

    def _update(self, request: Request) -> Json:
        before, item = self._get(request)["metadata"], copy.deepcopy(request.body)
        if item["metadata"].get("resourceVersion") not in (None, before["resourceVersion"]):
            raise RefusalError(409, f"{request.name}: the object has been modified")
        item["metadata"] |= {"namespace": request.namespace, "uid": before["uid"]}
        return self._accept(request, item, request.name)

    def _patch(self, request: Request) -> Json:
        before = self._get(replace(request, subresource=""))
        patch = json_patched if request.content_type.endswith("json-patch+json") else merged
        try:
            after = patch(before, request.body)
        except ValueError as error:
            raise RefusalError(422, str(error)) from error
        seen = (before["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"])
        if seen[0] != seen[1]:
            raise RefusalError(409, f"{request.name}: the object has been modified")
        after["metadata"]["uid"] = before["metadata"]["uid"]
        if after != before:
            self._accept(request, after, request.name)
        return self._get(request)

    def _accept(self, request: Request, item: Json, name: str) -> Json:
        spec = item.get("spec", {})
        if request.resource == "horizontalpodautoscalers":
            low, high = spec.setdefault("minReplicas", 1), spec["maxReplicas"]
            if not 1 <= low <= high:
                raise RefusalError(422, "spec.maxReplicas: must be at least minReplicas")
        if request.resource == "leases":
            for time in ("acquireTime", "renewTime"):
                if not MICRO_TIME.fullmatch(spec.get(time) or ""):
                    raise RefusalError(400, f"{time}: cannot parse {spec.get(time)!r}")
        before = self.objects.get((request.resource, request.namespace, name), {})
        stored = self.put(request.resource, item)
        if request.resource == "deployments" and before.get("spec") != spec:
            self._changed.put((request.resource, request.namespace, name))
        return stored

    def _delete(self, request: Request) -> Json:
        self._get(request)
        del self.objects[request.resource, request.namespace, request.name]
        return {"kind": "Status", "status": "Success"}


class _Listener(ThreadingHTTPServer):
    def __init__(self, cluster: KubernetesServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.cluster = cluster


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve("get")

    def do_POST(self) -> None:
        self._serve("create")

    def do_PUT(self) -> None:
        self._serve("update")

    def do_PATCH(self) -> None:
        self._serve("patch")

    def do_DELETE(self) -> None:
        self._serve("delete")

    def _serve(self, verb: str) -> None:
        cluster, request = self.server.cluster, self._request(verb)
        cluster.log.append(request)
        fault = cluster.fault_for(request)
        try:
            if fault is None:
                self._send(200, self._answer(request))
                return
            if fault.after:
                self._answer(request)
            self._fail(fault)
        except RefusalError as refusal:
            status = {"kind": "Status", "message": str(refusal), "code": refusal.code}
            self._send(refusal.code, json.dumps(status).encode(), refusal.headers)

    def _answer(self, request: Request) -> bytes:
        cluster = self.server.cluster
        if cluster.token and self.headers["Authorization"] != f"bearer {cluster.token}":
            raise RefusalError(401, "Unauthorized")
        return cluster.answer(request)

    def _request(self, verb: str) -> Request:
        url = urlsplit(self.path)
        parts = url.path.strip("/").split("/")
        group = "" if parts[0] == "api" else parts[1]
        version, *rest = parts[1:] if parts[0] == "api" else parts[2:]
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        resource, name, subresource = [*rest, "", ""][:3]
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return Request(
            "list" if verb == "get" and not name else verb,
            *(group, version, resource, namespace, name, subresource),
            parse_qs(url.query),
            self.headers.get("Content-Type", ""),
            json.loads(raw) if raw else None,
        )

    def _fail(self, fault: Fault) -> None:
        self.server.cluster.wait_for_close(fault.seconds)
        if fault.drop is Drop.TRICKLE:
            self._trickle()
            return
        if fault.drop is None:
            if not fault.body:
                raise RefusalError(fault.status, "injected", fault.headers)
            self._send(fault.status, fault.body, fault.headers)
            return
        if fault.drop is Drop.HANG:
            self.server.cluster.wait_for_close()
        self.close_connection = True
        no_linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)

    def _trickle(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "999")
        self.end_headers()
        while not self.server.cluster.wait_for_close(0.1):
            try:
                self.wfile.write(b" ")
            except OSError:
                break
        self.close_connection = True

    def _send(self, code: int, body: bytes, headers: tuple[tuple[str, str], ...] = ()) -> None:
        self.send_response(code)
        fixed = (("Content-Type", "application/json"), ("Content-Length", str(len(body))))
        for name, value in (*fixed, *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
