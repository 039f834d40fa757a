"""Stylesheet: the look that every page shares. Knows no charts, which take long to import."""

from __future__ import annotations

from importlib import resources


def stylesheet() -> str:
    path = resources.files("storage.reports") / "templates" / "page.css.j2"
    return path.read_text(encoding="utf-8")
