"""A real Prometheus as a child process, with history that promtool wrote into it.

The binaries come from PATH or from Debian's package, unpacked into a cache folder.
"""

from __future__ import annotations

import csv
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import pytest

Floats = npt.NDArray[np.float64]

ROOT = Path(__file__).parents[2]
TRACES = ROOT.parent / "shared" / "traces"
CACHE = ROOT / ".cache" / "prometheus"

DAYS = 28
SCRAPE_SECONDS = 15
SCRAPE_OFFSET_SECONDS = 4
"""Scrapes do not fall on whole minutes, so that rate() has to extrapolate as it does in life."""

GATEWAY = "gateway_requests_total"
"""Counter, labels `trace` (a trace's name) and `path` (/chat three quarters, /embed one)."""
LIVE = "live_requests_total"
"""Counter that goes on beyond the end, so that a process which asks for the present finds one."""
LIVE_SECONDS = 2 * 3600
YOUNG = "young_requests_total"
"""Counter of one day."""
STOPPED = "stopped_requests_total"
"""Counter whose scrapes ended 10 minutes before the end."""
NOT_A_NUMBER = "idle_latency_seconds"
"""Gauge that is NaN."""

VLLM_COLON, VLLM_MIXED, VLLM_ODD = "colon-8b", "mixed-70b", 'odd "\\ \n{}'
"""Values of model_name: today's form; two pods, one of them in old underscored names; odd ones."""


@dataclass(frozen=True)
class PrometheusServer:
    """A running server. `end` is where its history ends; `traces` the rates it was made from.

    `traces` holds "daily" always, "isp_uk" and "wc98" where the recorded traces are at hand;
    `traces[name][i]` is the mean rate, in requests a second, of the minute that starts `DAYS`
    days before `end` plus i minutes. `vllm_qps` and `vllm_running` are the arrivals and
    the requests in flight of each vLLM pod in the last minutes.
    """

    url: str
    end: datetime
    traces: dict[str, Floats]
    vllm_qps: float
    vllm_running: float

    def live_qps(self, at: datetime) -> float:
        """The rate, in requests a second, that LIVE counts in the minute that ends at `at`."""
        rates = _live(self.traces)
        minutes = len(rates) - (self.end.timestamp() + LIVE_SECONDS - at.timestamp()) / 60
        newest, share = int(minutes), minutes % 1
        return float(share * rates[newest] + (1 - share) * rates[newest - 1])


@contextmanager
def running_prometheus(folder: Path, end: datetime) -> Iterator[PrometheusServer]:
    """With the history that most tests ask for."""
    traces = {"daily": _daily(), **_recorded()}
    with prometheus_of(folder, _families(traces, int(end.timestamp()))) as url:
        yield PrometheusServer(url, end, traces, vllm_qps=8.0, vllm_running=60.0)


@contextmanager
def prometheus_of(folder: Path, lines: Iterable[str]) -> Iterator[str]:
    """Back-fill a server with lines of OpenMetrics, start it and stop it again; its URL."""
    prometheus, promtool = binaries()
    text, data = folder / "history.txt", folder / "data"
    with text.open("w", encoding="utf-8") as file:
        file.writelines(lines)
    create = [promtool, "tsdb", "create-blocks-from", "--max-block-duration=744h", "--quiet"]
    subprocess.run([*create, "openmetrics", text, data], check=True, capture_output=True)
    with _started(prometheus, folder, data) as url:
        yield url


def unavailable(reason: str) -> NoReturn:
    """Skip at home, fail where every test has to run."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"every test has to run here: {reason}")
    pytest.skip(reason)


def binaries() -> tuple[str, str]:
    """The server and promtool: from PATH, or as scripts/test-services unpacks them."""
    found = shutil.which("prometheus"), shutil.which("promtool")
    if found[0] and found[1]:
        return found[0], found[1]
    unpacked = CACHE / "usr" / "bin"
    if not (unpacked / "promtool").exists():
        subprocess.run([ROOT / "scripts" / "test-services"], cwd=ROOT, check=False, timeout=300)
    if not (unpacked / "promtool").exists():
        unavailable("no real Prometheus: neither on PATH nor to be had from Debian")
    return str(unpacked / "prometheus"), str(unpacked / "promtool")


def _daily() -> Floats:
    """A smooth day, the same every day: there also where no recorded trace is."""
    return 100.0 + 80.0 * np.sin(2 * np.pi * np.arange(DAYS * 1440) / 1440)


def _recorded() -> dict[str, Floats]:
    """The last DAYS days, by the minute, of the recorded traces that this checkout has."""
    found = {}
    for name, file_name, minutes in (("isp_uk", "isp_uk_5min", 5), ("wc98", "wc98_1min", 1)):
        path = TRACES / f"{file_name}.csv"
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                values = np.array([float(row["qps"]) for row in csv.DictReader(file)])
            found[name] = np.repeat(values, minutes)[-DAYS * 1440 :]
    return found


def _families(traces: dict[str, Floats], last: int) -> Iterator[str]:
    yield from _counter(
        GATEWAY,
        (
            line
            for name, rates in traces.items()
            for path, share in (("/chat", 0.75), ("/embed", 0.25))
            for line in _counted(f'{GATEWAY}{{trace="{name}",path="{path}"}}', share * rates, last)
        ),
    )
    yield from _counter(LIVE, _counted(LIVE, _live(traces), last + LIVE_SECONDS))
    yield from _counter(YOUNG, _counted(YOUNG, np.full(1440, 5.0), last))
    yield from _counter(STOPPED, _counted(STOPPED, np.full(1440, 5.0), last - 600))
    yield f"# TYPE {NOT_A_NUMBER} gauge\n"
    yield from (f"{NOT_A_NUMBER} NaN {last - age}\n" for age in range(60, -1, -15))
    yield from _vllm(last)
    yield "# EOF\n"


def _live(traces: dict[str, Floats]) -> Floats:
    """What a daemon meets that is started now: recorded traffic where there is any."""
    return traces.get("isp_uk", 50 * _daily())


def _counter(name: str, lines: Iterable[str]) -> Iterator[str]:
    yield f"# TYPE {name.removesuffix('_total')} counter\n"
    yield from lines


def _counted(series: str, rates: Floats, last: int) -> Iterator[str]:
    """A counter that grows by these rates, minute by minute, until `last`."""
    first = last - 60 * len(rates)
    minutes = np.concatenate([[0.0], np.cumsum(60 * rates)])
    offsets = np.arange(SCRAPE_OFFSET_SECONDS, 60 * len(rates) + 1, SCRAPE_SECONDS)
    counts = np.interp(offsets, 60.0 * np.arange(len(minutes)), minutes)
    yield from (
        f"{series} {count!r} {at}\n"
        for at, count in zip((first + offsets).tolist(), counts.tolist(), strict=True)
    )


def _vllm(last: int) -> Iterator[str]:
    """Pods that finish 6 requests a second while their queues grow by 2: 8 arrive."""
    odd = VLLM_ODD.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    today = [f'model_name="{VLLM_COLON}",pod="a"', f'model_name="{VLLM_MIXED}",pod="b"']
    old = [f'model_name="{VLLM_MIXED}",pod="c"']
    yield from _vllm_form("vllm:", "kv_cache_usage_perc", [*today, f'model_name="{odd}"'], last)
    yield from _vllm_form("vllm_", "gpu_cache_usage_perc", old, last)


def _vllm_form(prefix: str, cache: str, pods: list[str], last: int) -> Iterator[str]:
    """Each metric: name, type, and its series as further labels, value now, growth a second."""
    metrics: list[tuple[str, str, list[tuple[str, float, float]]]] = [
        ("num_requests_running", "gauge", [("", 60, 0)]),
        ("num_requests_waiting", "gauge", [("", 8000, 2)]),
        (cache, "gauge", [("", 0.5, 0)]),
        (
            "request_success_total",
            "counter",
            [(',finished_reason="stop"', 5e4, 5.5), (',finished_reason="abort"', 5e3, 0.5)],
        ),
        (
            "e2e_request_latency_seconds_bucket",
            "histogram",
            [(',le="1.0"', 3e4, 3), (',le="2.0"', 6e4, 6), (',le="+Inf"', 6e4, 6)],
        ),
    ]
    ages = range(1800 - SCRAPE_OFFSET_SECONDS, -1, -SCRAPE_SECONDS)
    for name, kind, series in metrics:
        family = name.removesuffix("_total").removesuffix("_bucket")
        yield f"# TYPE {prefix}{family} {kind}\n"
        for labels, (more, value, growth) in product(pods, series):
            of = f"{prefix}{name}{{{labels}{more}}}"
            yield from (f"{of} {value - growth * age} {last - age}\n" for age in ages)


@contextmanager
def _started(prometheus: str, folder: Path, data: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "prometheus.yml").write_text("scrape_configs: []\n", encoding="utf-8")
    command = [
        prometheus,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=400d",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (
        (folder / "prometheus.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            _await_ready(f"http://127.0.0.1:{port}/-/ready", folder / "prometheus.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def _await_ready(url: str, log: Path) -> None:
    for _ in range(400):
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    pytest.fail(f"Prometheus did not become ready: {log.read_text(encoding='utf-8')[-2000:]}")


def whole_minute_now() -> datetime:
    """The last whole minute: where back-filled history ends."""
    return datetime.now(UTC).replace(second=0, microsecond=0)
