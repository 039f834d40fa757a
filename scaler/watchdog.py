"""A deadline for one HTTP exchange as a whole, over urllib3, and which authorities it trusts.

Knows connections and nothing of what is asked. Plain sockets bound only each read, so a server that
sends a byte every half second holds a client for ever: here a watchdog cuts the connection when the
whole exchange has had its time. Name resolution is the one wait it cannot cut.
"""

from __future__ import annotations

import socket
import ssl
import threading
from types import TracebackType

from urllib3 import HTTPConnectionPool, HTTPResponse, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.ssl_ import create_urllib3_context, resolve_cert_reqs


class Watchdog:
    """Cuts the connection of the exchange it guards when the time is up.

    It guards what its thread asks for through WATCHED_POOLS while it is entered.
    """

    def __init__(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._bark)
        self._timer.daemon = True
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self.barked = False

    def __enter__(self) -> Watchdog:
        _guarding.watchdog = self
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        _guarding.watchdog = None
        with self._lock:
            self._connection = None

    def watch(self, connection: socket.socket | None) -> None:
        with self._lock:
            self._connection = connection
        if self.barked:
            self._cut()

    def _bark(self) -> None:
        self.barked = True
        self._cut()

    def _cut(self) -> None:
        with self._lock:
            if self._connection is not None:
                try:
                    self._connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    return  # the other side was first


# urllib3 makes its connections itself; this is how the one in use finds its watchdog.
_guarding = threading.local()


class _Watched(HTTPConnection):
    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as in urllib3
        watchdog: Watchdog | None = getattr(_guarding, "watchdog", None)
        if watchdog is not None:
            watchdog.watch(self.sock)
        return super().getresponse()


class _WatchedTls(_Watched, HTTPSConnection):
    def connect(self) -> None:
        if self.ssl_context is None:
            self.ssl_context = self._context()
        super().connect()

    def _context(self) -> ssl.SSLContext:
        """As urllib3 makes it, but for one flag: since 3.13 Python refuses authorities whose own
        certificate lacks extensions that RFC 5280 asks for, as those of many clusters do (EKS,
        MicroK8s); kubectl takes them."""
        context = create_urllib3_context(cert_reqs=resolve_cert_reqs(self.cert_reqs))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if not (self.ca_certs or self.ca_cert_dir or self.ca_cert_data):
            context.load_default_certs()
        return context


class _WatchedPool(HTTPConnectionPool):
    ConnectionCls = _Watched


class _WatchedTlsPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedTls


WATCHED_POOLS = {"http": _WatchedPool, "https": _WatchedTlsPool}
