"""The report and the live page in a real browser: drawn, silent, and alone."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from scaler.status_server import StatusServer, build_app
from storage.database import open_engine, upgrade
from storage.decisions import SqlDecisionStore
from storage.reports.report import read_audit, render_html
from tests.log_builder import MIDNIGHT, OBJECTIVE, fill_log

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--v=0",
    "--virtual-time-budget=5000",
)


@dataclass(frozen=True)
class Browser:
    """Chromium, with a new profile for each page."""

    program: str
    folder: Path

    def dom(self, url: str, *flags: str) -> str:
        """The document after its scripts ran; a message on the console is a failure."""
        done = self._run(url, "--dump-dom", *flags)
        assert "CONSOLE" not in done.stderr, done.stderr
        return done.stdout

    def picture(self, url: str, width: int, height: int, *flags: str) -> bytes:
        """A PNG of the window."""
        path = self.folder / "page.png"
        size = f"--window-size={width},{height}"
        done = self._run(url, f"--screenshot={path}", size, *flags)
        assert "CONSOLE" not in done.stderr, done.stderr
        return path.read_bytes()

    def _run(self, url: str, *flags: str) -> subprocess.CompletedProcess[str]:
        profile = self.folder / "profile"
        shutil.rmtree(profile, ignore_errors=True)
        command = [self.program, *FLAGS, f"--user-data-dir={profile}", *flags, url]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        message = f"no browser: none of {', '.join(NAMES)} is installed"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return Browser(found, tmp_path)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report on a file."""
    folder = tmp_path_factory.mktemp("report")
    engine = open_engine(f"sqlite:///{folder / 'daybreak.db'}")
    upgrade(engine)
    fill_log(SqlDecisionStore(engine))
    audit = read_audit(
        engine, "grammar", MIDNIGHT, MIDNIGHT + timedelta(days=1), objective=OBJECTIVE
    )
    path = folder / "report.html"
    path.write_text(render_html(audit), encoding="utf-8")
    engine.dispose()
    return path.as_uri()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a live page."""
    engine = open_engine(f"sqlite:///{tmp_path_factory.mktemp('live') / 'daybreak.db'}")
    upgrade(engine)
    fill_log(SqlDecisionStore(engine), hours=3.0)
    server = StatusServer(build_app(engine, CollectorRegistry(), list), "127.0.0.1", 0)
    server.start()
    yield server.url
    server.stop()
    engine.dispose()


def addresses(dom: str) -> set[str]:
    """What the document names outside itself, apart from the names of XML vocabularies."""
    found = set(re.findall(r"https?://[^\"'\s<>)]+", dom))
    return {address for address in found if not address.startswith("http://www.w3.org/")}


def size(png: bytes) -> tuple[int, int]:
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def test_the_report_is_drawn_without_a_sound(browser: Browser, report: str) -> None:
    dom = browser.dom(report)
    assert dom.count('<svg xmlns="http://www.w3.org/2000/svg"') == 12
    assert addresses(dom) == set()
    assert "<script" not in dom


def test_the_live_pages_are_drawn_without_a_sound(browser: Browser, live: str) -> None:
    assert "grammar" in browser.dom(live)
    dom = browser.dom(f"{live}workloads/grammar?window=6h")
    assert dom.count("data-live-image") == 4
    assert all(address.startswith(live) for address in addresses(dom))


def test_the_live_page_refreshes_its_charts(browser: Browser, live: str) -> None:
    dom = browser.dom(f"{live}workloads/grammar", "--window-size=1280,900")
    refreshed = re.findall(r'src="/workloads/grammar/\w+\.svg\?[^"]*at=\d+"', dom)
    assert len(refreshed) == 4
    assert "data-stale" not in dom


KEYBOARD = """
const rows = document.querySelector("tbody");
const region = document.querySelector(".scroll");
document.querySelector("tbody a").focus();
region.scrollLeft = 40;
setTimeout(() => {
  const swapped = document.querySelector("tbody") !== rows;
  const reached = document.activeElement.getAttribute("href");
  document.title = [swapped, reached, region.isConnected, region.scrollLeft].join(" ");
}, 4500);
"""


def test_a_refresh_leaves_the_keyboard_where_it_is(browser: Browser, tmp_path: Path) -> None:
    """The page with a hand on the keyboard: a script of this server's, as its policy asks for."""
    engine = open_engine(f"sqlite:///{tmp_path / 'daybreak.db'}")
    upgrade(engine)
    fill_log(SqlDecisionStore(engine), hours=0.1)
    # So that every refresh finds other rows.
    minutes = count(6)
    app = build_app(
        engine, CollectorRegistry(), list, now=lambda: MIDNIGHT + timedelta(minutes=next(minutes))
    )
    server = StatusServer(app, "127.0.0.1", 0)

    def page(_: Request) -> HTMLResponse:
        with urlopen(server.url) as answer:
            text = answer.read().decode()
        return HTMLResponse(text.replace("</body>", '<script src="/keyboard.js"></script></body>'))

    def script(_: Request) -> Response:
        return Response(KEYBOARD, media_type="text/javascript")

    app.router.routes[:0] = [Route("/page", page), Route("/keyboard.js", script)]
    server.start()
    dom = browser.dom(f"{server.url}page", "--window-size=400,700")
    server.stop()
    engine.dispose()
    assert re.findall("<title>(.*)</title>", dom) == ["true /workloads/grammar true 40"]


@pytest.mark.parametrize("scheme", [0, 1], ids=["dark", "light"])
@pytest.mark.parametrize("width", [500, 1280])
def test_both_pages_are_pictures(
    browser: Browser, report: str, live: str, width: int, scheme: int
) -> None:
    flag = f"--blink-settings=preferredColorScheme={scheme}"
    for url in (report, f"{live}workloads/grammar"):
        png = browser.picture(url, width, 900, flag)
        assert size(png) == (width, 900)
        # A blank page compresses to almost nothing.
        assert len(png) > 20_000
