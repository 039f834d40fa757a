"""Formats that people have, read block by block: alike whatever the blocks, clear when wrong."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from forecaster.history import TrafficHistory
from simulator.traces.importers import (
    IMPORTERS,
    WC98_RECORD,
    import_azure_llm,
    import_burstgpt,
    import_prometheus,
    import_wc98,
)
from simulator.traces.log_file import LONGEST_LINE, ignored
from simulator.traces.trace_file import MAX_STEPS, TraceError

KICK_OFF = round(datetime(1998, 6, 10, 15, 30, tzinfo=UTC).timestamp())
WC98, AZURE, BURSTGPT = "wc98", "azure-llm", "burstgpt"
LOGS = {WC98: import_wc98, AZURE: import_azure_llm, BURSTGPT: import_burstgpt}


def some_seconds(start: int) -> list[int]:
    """Half an hour of requests, as merged logs are: out of order, and one much too late."""
    rng = np.random.Generator(np.random.Philox(5))
    found = np.sort(rng.integers(0, 1800, 600)) + rng.integers(-40, 40, 600)
    seconds = [int(start + second) for second in found]
    return [*seconds[:400], start - 600, *seconds[400:]]


def as_wc98(seconds: list[int]) -> bytes:
    records = np.zeros(len(seconds), WC98_RECORD)
    records["timestamp"] = seconds
    return records.tobytes()


def as_azure(seconds: list[int]) -> bytes:
    times = (datetime.fromtimestamp(second, UTC) for second in seconds)
    rows = (f"{at:%Y-%m-%d %H:%M:%S}.1234567,37,9" for at in times)
    return "\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]).encode()


def as_burstgpt(seconds: list[int]) -> bytes:
    rows = (f"{second}.5,ChatGPT,472,18,490,Conversation log" for second in seconds)
    head = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
    return "\r\n".join([head, *rows, ""]).encode()


FORMS = {
    WC98: (as_wc98, KICK_OFF),
    AZURE: (as_azure, round(datetime(2023, 11, 16, 18, tzinfo=UTC).timestamp())),
    BURSTGPT: (as_burstgpt, 605),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("block_bytes", [1, 20, 37, 1_000, 8 << 20])
@pytest.mark.parametrize("kind", LOGS)
def test_a_log_is_counted_alike_whatever_the_blocks(
    tmp_path: Path, kind: str, block_bytes: int, packed: bool
) -> None:
    write, start = FORMS[kind]
    seconds = some_seconds(start)
    data, path = write(seconds), tmp_path / "log"
    path.write_bytes(gzip.compress(data[:999]) + gzip.compress(data[999:]) if packed else data)
    shares: list[float] = []
    found = LOGS[kind](path, 60, shares.append, block_bytes)
    counts = Counter(second // 60 for second in seconds)
    minutes = range(min(counts), max(counts) + 1)
    assert found.start.timestamp() == 60 * minutes.start
    assert found.values.tolist() == [counts[minute] / 60 for minute in minutes]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def imported(kind: str, path: Path) -> TrafficHistory:
    return IMPORTERS[kind](path, 60, ignored)


HEAD = b"TIMESTAMP,ContextTokens,GeneratedTokens\n"
ROW = b"2023-11-16 18:00:00,1,2\n"
BURST = b"Timestamp,Model,Request tokens,Response tokens\n"


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        (WC98, b"", "holds no request"),
        (WC98, as_wc98([KICK_OFF] * 3)[:-7], "record 3: expected 20 bytes, got 13: the file is"),
        (WC98, as_wc98([KICK_OFF, KICK_OFF, 7]), "record 3: expected a time in 1998, got 7"),
        (WC98, b"\x00\xff" * 4_000, "record 1: expected a time in 1998, got 16711935"),
        (
            WC98,
            gzip.compress(as_wc98([KICK_OFF] * 9), mtime=0)[:-9],
            "cannot be read: Compressed file end",
        ),
        (
            WC98,
            gzip.compress(as_wc98([KICK_OFF]), mtime=0)[:-8] + b"\x00" * 8,
            "cannot be read: CRC check",
        ),
        (WC98, b"\x1f\x8b\x08garbage", "cannot be read: "),
        (AZURE, b"", "holds no request"),
        (AZURE, HEAD, "holds no request"),
        (AZURE, b"a,b\n1,2\n", "line 1: expected the columns ContextTokens, GeneratedTokens, TIME"),
        (AZURE, as_burstgpt([1]), "line 1: expected the columns"),
        (AZURE, b"\x00\xff\xfe" * 9, "line 1: expected the columns"),
        (AZURE, HEAD + ROW * 2 + b"yesterday,1,2\n", "line 4: expected a time, got 'yesterday'"),
        (AZURE, HEAD + ROW + b"\n\n,1,2\n", "line 5: expected a time, got nothing"),
        (AZURE, HEAD + ROW + b"\xff\x00,1,2\n", "line 3: expected a time, got "),
        (AZURE, HEAD + ROW + b'"2023,1,2\n' + ROW, "is not a CSV file: "),
        (AZURE, HEAD + b"9999-11-16 18:00:00,1,2\n" + ROW, f"within {MAX_STEPS:,} steps of 60 s"),
        (BURSTGPT, BURST + b"1,m,1,1\n-1,m,1,1\n", "line 3: expected seconds from the start, 0 or"),
        (BURSTGPT, BURST + b"inf,m,1,1\n", "line 2: expected seconds from the start, 0 or more"),
        (BURSTGPT, BURST + b"nan,m,1,1\n", "line 2: expected seconds from the start, 0 or more"),
        (BURSTGPT, BURST + b"1e300,m,1,1\n", "line 2: expected seconds from the start"),
        (BURSTGPT, BURST + b"5,m,1,1\n2e9,m,1,1\n", "line 3: expected all within 20,000,000 steps"),
    ],
)
def test_a_broken_log_is_told_where(tmp_path: Path, kind: str, data: bytes, expected: str) -> None:
    path = tmp_path / "log"
    path.write_bytes(data)
    with pytest.raises(TraceError) as told:
        imported(kind, path)
    assert str(told.value).startswith(str(path))
    assert expected in str(told.value)


@pytest.mark.parametrize("kind", LOGS)
def test_the_place_of_a_mistake_does_not_depend_on_the_blocks(tmp_path: Path, kind: str) -> None:
    write, start = FORMS[kind]
    good = write(some_seconds(start)[:500])
    bad = as_wc98([5]) if kind == WC98 else b"\nsoon,1,2,3\n" if kind == BURSTGPT else b"\nsoon,1,2"
    path = tmp_path / "log"
    path.write_bytes(good + bad + good[-200:])
    told = set()
    for block_bytes in (1, 333, 1 << 20):
        with pytest.raises(TraceError) as error:
            LOGS[kind](path, 60, ignored, block_bytes)
        told.add(str(error.value))
    (message,) = told
    assert f"{path}, {'record 501' if kind == WC98 else 'line 50'}" in message


def test_a_file_without_lines_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(HEAD + b"x" * 5 * LONGEST_LINE)
    shares: list[float] = []
    with pytest.raises(TraceError, match="line 2: expected lines of at most 1,048,576 bytes"):
        import_azure_llm(path, 60, shares.append, LONGEST_LINE // 4)
    assert max(shares) < 0.5


@pytest.mark.parametrize("kind", IMPORTERS)
def test_what_is_not_there_is_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(TraceError, match="gone: cannot be read: No such file or directory"):
        imported(kind, tmp_path / "gone")
    with pytest.raises(TraceError, match="cannot be read: Is a directory"):
        imported(kind, tmp_path)


def answer(*values: object) -> bytes:
    result = [{"metric": {}, "values": list(values)}]
    document = {"status": "success", "data": {"resultType": "matrix", "result": result}}
    return json.dumps(document).encode()


def test_a_range_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "range.json"
    path.write_bytes(gzip.compress(answer([120, "5"], [180, "NaN"], [300, "7"])))
    found = import_prometheus(path, 60)
    assert (found.start.timestamp(), len(found)) == (60, 4)
    assert found.values[[0, 3]].tolist() == [5, 7]
    assert np.isnan(found.values[[1, 2]]).all()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "expected the JSON of a successful Prometheus range query"),
        (b'{"status": "success", "data": null}', "expected a matrix of one series, got none"),
        (b'{"status": "success", "data": {"result": 5}}', "a matrix of one series, got none"),
        (answer().replace(b"[]", b"5"), "expected a series with values"),
        (answer(), "holds no sample"),
        (answer([60, "NaN"]), "holds no sample"),
        (answer([60, "1"], [120]), "sample 2: expected [time, value], got '[120]'"),
        (answer([60, "1"], [120, "-1"]), "sample 2: expected a rate >= 0 or NaN, got '-1'"),
        (answer([60, "1"], [120, "Inf"]), "sample 2: expected a rate >= 0 or NaN, got 'Inf'"),
        (answer([-60, "1"]), "sample 1: expected a time since 1970, got -60"),
        (answer([1e300, "1"]), "sample 1: expected a time since 1970, got 1e+300"),
        (answer([60, "1"], [9e9, "1"]), f"expected at most {MAX_STEPS:,} steps of 60 s"),
        (answer([60, "1"], [90, "1"]), "off the grid of 60 s; give the step of the query"),
    ],
)
def test_a_broken_range_is_told(tmp_path: Path, data: bytes, expected: str) -> None:
    path = tmp_path / "range.json"
    path.write_bytes(data)
    with pytest.raises(TraceError) as told:
        import_prometheus(path, 60)
    assert expected in str(told.value)


def test_a_range_too_large_for_memory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "range.json"
    path.write_bytes(gzip.compress(answer(*([60 * n, "1"] for n in range(1, 200_000)))))
    with pytest.raises(TraceError, match="expected at most 1 MiB of JSON"):
        import_prometheus(path, 60, ignored, 1 << 20)


def test_a_log_larger_than_what_is_read_at_once_takes_little_memory(tmp_path: Path) -> None:
    """48 MiB of records within far less than that, as numpy counts its memory."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        for minute in range(48):
            file.write(as_wc98([KICK_OFF + 60 * minute] * ((1 << 20) // 20)))
    tracemalloc.start()
    found = import_wc98(path, 60, ignored, 1 << 16)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 48
    assert peak < 4 << 20
