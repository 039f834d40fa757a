"""Peak memory, and `python -m bench.memory`: a command of daybreak in a process of its own, which
leaves beside its output what it and the largest process that it started have held."""

from __future__ import annotations

import sys
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage


def peak_kib() -> int:
    """The most memory that this process has held; getrusage also counts what the parent process
    had before this one was started."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def main() -> None:
    from scaler.cli import build_app  # noqa: PLC0415  # those who ask for peak_kib need none of it

    arguments = sys.argv[1:]
    build_app(arguments)(arguments, standalone_mode=False)
    helper = getrusage(RUSAGE_CHILDREN).ru_maxrss
    Path(arguments[-1] + ".peak").write_text(str(peak_kib() + helper))


if __name__ == "__main__":
    main()
