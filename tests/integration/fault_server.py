"""A small HTTP server that answers as badly as a test tells it to."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Answerer = Callable[["Exchange"], None]


class Exchange(BaseHTTPRequestHandler):
    """One request, and the means to answer it."""

    server: FaultServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.seen.append(self)
        self.close_connection = True
        self.server.answer(self)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # as http.server has it
        """Tests have no use for an access log."""

    @property
    def api(self) -> str:
        """The last part of the path: query or query_range."""
        return urlsplit(self.path).path.rpartition("/")[2]

    @property
    def asked(self) -> dict[str, str]:
        """The parameters of the request."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}

    def send(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def send_result(self, result: Any, result_type: str = "vector", **envelope: Any) -> None:
        data = {"resultType": result_type, "result": result}
        self.send(json.dumps({"status": "success", "data": data, **envelope}).encode())

    def send_value(self, value: str, **envelope: Any) -> None:
        """One series with this value at the moment that was asked for."""
        moment = float(self.asked["time"])
        self.send_result([{"metric": {}, "value": [moment, value]}], **envelope)

    def send_samples(self, *samples: Any, **envelope: Any) -> None:
        self.send_result([{"metric": {}, "values": list(samples)}], "matrix", **envelope)

    def wait(self, seconds: float) -> bool:
        """Wait; False once the server is stopping."""
        return not self.server.stopping.wait(seconds)


class FaultServer(ThreadingHTTPServer):
    """Hands every request to `answer`; `seen` holds them in order of arrival."""

    daemon_threads = True

    def __init__(self, answer: Answerer) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.answer = answer
        self.seen: list[Exchange] = []
        self.stopping = threading.Event()
        self.scheme = "http"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what these tests are about."""


@contextmanager
def serving(answer: Answerer, tls: ssl.SSLContext | None = None) -> Iterator[FaultServer]:
    """A running server on a free loopback port."""
    server = FaultServer(answer)
    if tls is not None:
        server.scheme = "https"
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        server.shutdown()
        thread.join()
        server.server_close()
