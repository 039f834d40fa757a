"""Files that are there only once everything is in them."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import TextIO

UNFINISHED = ".part"


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A text file in UTF-8 that takes its name once it is complete; what stood there stays until
    then, and for good where the writing fails. A pipe or a device is written to as it is.

    Raises OSError where it cannot be written.
    """
    if _is_stream(path):
        with path.open("w", encoding="utf-8") as stream:
            yield stream
        return
    target = _target(path)
    unfinished = target.with_name(target.name + UNFINISHED)
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            yield file
        unfinished.replace(target)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def why_unwritable(path: Path) -> str | None:
    """Why `whole_file` could not write here, None where it could; leaves nothing behind."""
    try:
        if _is_stream(path):
            return None
        target = _target(path)
        if target.is_dir():
            return "it is a folder"
        if not target.parent.exists():
            return f"there is no folder {target.parent}"
        target.with_name(target.name + UNFINISHED).exists()  # a name may be too long
        with TemporaryFile(dir=target.parent):  # has no name where the file system allows that
            return None
    except (OSError, ValueError) as error:  # the latter for a null byte
        return getattr(error, "strerror", None) or str(error)


def _target(path: Path) -> Path:
    """What a link points to is replaced, not the link; raises OSError for links in a circle."""
    with contextlib.suppress(RuntimeError):  # so Python told of a circle before 3.13
        target = path.resolve()
        if not target.is_symlink():
            return target
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _is_stream(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()
