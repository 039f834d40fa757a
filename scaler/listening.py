"""A socket to serve on, or one clear error."""

from __future__ import annotations

import errno
import socket


class CannotListenError(Exception):
    """The address is taken (`taken`), or is none of this machine's."""

    def __init__(self, message: str, taken: bool) -> None:
        super().__init__(message)
        self.taken = taken


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to an address; raises CannotListenError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        number, why = getattr(error, "errno", None), getattr(error, "strerror", None) or error
        raise CannotListenError(
            f"server: cannot listen on {host}, port {port}: {why}", number == errno.EADDRINUSE
        ) from error
