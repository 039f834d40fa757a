"""Logs that may be larger than memory, read block by block: bytes, and one column of a CSV.

Knows gzip by its first bytes, lines, and where a block begins in its file.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from simulator.traces.trace_file import TraceError

BLOCK = 8 << 20
"""Bytes read at once; what is made of them takes some ten times as much memory."""
LONGEST_LINE = 1 << 20
"""Bytes; a file without lines is not read whole to find that out."""
GZIP = b"\x1f\x8b"

OnProgress = Callable[[float], None]


def ignored(_: float) -> None:
    """Progress that nobody wants to hear of."""


def blocks(path: Path, size: int, on_progress: OnProgress) -> Iterator[bytes]:
    """The file so many bytes at a time, unpacked where it is gzipped; only the last block may be
    shorter. `on_progress` is told the share read so far. Raises TraceError."""
    try:
        with path.open("rb") as raw:
            total = os.fstat(raw.fileno()).st_size  # a pipe has none
            packed = raw.peek(len(GZIP)).startswith(GZIP)
            file = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw
            while block := file.read(size):
                yield block
                if total:
                    on_progress(raw.tell() / total)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise TraceError(f"{path}: cannot be read: {reason}") from error


@dataclass(frozen=True, slots=True)
class Column:
    """A column of some lines of a CSV, as texts; what is not there is NaN."""

    texts: pd.Series[str]
    path: Path
    lines: bytes
    first_line: int

    def place(self, row: int) -> str:
        """The line of a row; blank ones have none."""
        known = (n for n, text in enumerate(self.lines.splitlines()) if text.strip())
        offset = next((n for index, n in enumerate(known) if index == row), row)
        return f"line {self.first_line + offset}"

    def require(self, sound: npt.NDArray[np.bool_], expected: str) -> None:
        """Raises TraceError with the first line that is not sound."""
        if not sound.all():
            row = int(sound.argmin())
            got = self.texts.iloc[row]
            told = repr(got[:80]) if isinstance(got, str) else "nothing"
            raise TraceError(f"{self.path}, {self.place(row)}: expected {expected}, got {told}")


def columns(
    path: Path, name: str, others: set[str], on_progress: OnProgress, block_bytes: int
) -> Iterator[Column]:
    """One column of a CSV that also has others, block by block; raises TraceError."""
    header = b""
    for first, whole in _whole_lines(path, blocks(path, block_bytes, on_progress)):
        number, lines = first, whole
        if number == 1:
            top, _, lines = whole.partition(b"\n")
            header = _header(path, top, {name} | others)
            number = 2
        if lines.strip():
            yield Column(_parsed(path, name, header, lines, number), path, lines, number)


def _whole_lines(path: Path, given: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """Blocks cut where lines end, each with the number of its first line."""
    number, rest = 1, b""
    for block in given:
        whole, newline, beginning = block.rpartition(b"\n")
        if newline:
            lines = rest + whole + newline
            yield number, lines
            number, rest = number + lines.count(b"\n"), beginning
        else:
            rest += block
        if len(rest) > LONGEST_LINE + len(block):
            raise TraceError(
                f"{path}, line {number}: expected lines of at most {LONGEST_LINE:,} bytes; this is "
                f"no CSV file"
            )
    if rest:
        yield number, rest


def _header(path: Path, line: bytes, wanted: set[str]) -> bytes:
    """The header as every block gets it; raises TraceError where it is none, or columns lack."""
    text = line.decode("utf-8-sig", errors="backslashreplace").strip()
    try:
        names = next(csv.reader([text]), [])
    except csv.Error as error:
        raise TraceError(f"{path}, line 1: is not a CSV file: {error}") from error
    missing = wanted - set(names)
    if missing:
        raise TraceError(
            f"{path}, line 1: expected the columns {', '.join(sorted(wanted))}, got "
            f"{text[:80] or 'nothing'!r}"
        )
    return text.encode() + b"\n"


def _parsed(path: Path, name: str, header: bytes, lines: bytes, first: int) -> pd.Series[str]:
    try:
        return pd.read_csv(
            io.BytesIO(header + lines),
            usecols=[name],
            dtype=str,
            index_col=False,  # a row that is too long does not name itself
            encoding_errors="backslashreplace",
        )[name]
    except ValueError as error:  # pandas' parser errors are among them
        told = f"{path}, in the lines from {first} on: is not a CSV file: {error}"
        raise TraceError(told) from error
