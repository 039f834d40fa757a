"""Pages that several benchmarks write: each has a part of its own and leaves the others alone."""

from __future__ import annotations

import re
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def set_part(name: str, text: str, page: Path = BENCHMARKS) -> None:
    """Put the text in place of the part of that name, or at the end where there is none yet."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    part = f"{begin}\n{text.strip()}\n{end}\n"
    old = page.read_text() if page.exists() else ""
    found = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}\n?", re.DOTALL)
    new = found.sub(lambda _: part, old) if found.search(old) else f"{old}\n{part}".lstrip()
    page.write_text(new)
