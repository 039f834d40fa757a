"""Pictures of pages, as a reader's browser shows them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--virtual-time-budget=5000",
)


def find_browser() -> str:
    """The program; ends with a message where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        raise SystemExit(f"the pictures of pages need a browser, one of {', '.join(NAMES)}")
    return found


def photograph(url: str, path: Path, width: int, height: int) -> None:
    """The top of a page as a PNG, in light colours."""
    with tempfile.TemporaryDirectory() as profile:
        command = [find_browser(), *FLAGS, f"--user-data-dir={profile}"]
        command += [f"--screenshot={path}", f"--window-size={width},{height}", url]
        subprocess.run(command, check=True, capture_output=True, timeout=120)  # noqa: S603  # our own page
