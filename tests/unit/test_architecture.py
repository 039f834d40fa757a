"""The rules of the house hold, and each is shown able to fail."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from forecaster import compiled

ROOT = Path(__file__).parents[2]
COPIED = ("forecaster", "policies", "scaler", "simulator", "storage", "pyproject.toml")


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / arguments[0]), *arguments[1:]]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def broken_copy(tmp_path: Path, module: str, line: str) -> Path:
    """The packages with one offending import added."""
    for name in COPIED:
        (tmp_path / name).symlink_to(ROOT / name)
    package = module.split("/", maxsplit=1)[0]
    (tmp_path / package).unlink()
    for source in (ROOT / package).rglob("*.py"):
        copy = tmp_path / source.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(source.read_text())
    path = tmp_path / module
    path.write_text(path.read_text() + f"\n{line}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("forecaster/history.py", "import policies.engine", "imports run one way"),
        ("scaler/loop.py", "import scaler.settings", "imports run one way"),
        ("simulator/fleet.py", "import kubernetes", "the core reaches no cluster"),
        ("policies/engine.py", "import forecaster.calendar", "policies are free of frames"),
        (
            "forecaster/models/harmonic.py",
            "import forecaster.models.seasonal_naive",
            "models do not know each other",
        ),
        (
            "policies/peers/static.py",
            "import policies.peers.asymmetric_concurrency",
            "peers do not know each other",
        ),
    ],
)
def test_each_import_contract_can_fail(
    tmp_path: Path, module: str, line: str, contract: str
) -> None:
    found = run("lint-imports", "--no-cache", cwd=broken_copy(tmp_path, module, line))
    assert found.returncode == 1
    assert f"{contract}" in found.stdout
    assert "BROKEN" in found.stdout


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("from datetime import UTC, datetime\n\nnow = datetime.now(UTC)\n", "TID251"),
        ("import datetime as d\n\nnow = d.datetime.now(d.UTC)\n", "TID251"),
        ("from time import time\n\nnow = time()\n", "TID251"),
        ("import time as t\n\nt.sleep(1)\n", "TID251"),
        ("from time import monotonic as m\n\nnow = m()\n", "TID251"),
        ("import random\n\nx = random.random()\n", "TID251"),
        ("import numpy as np\n\nx = np.random.rand(3)\n", "NPY002"),
    ],
)
def test_clock_and_chance_are_banned_from_the_core(code: str, rule: str) -> None:
    found = subprocess.run(
        [Path(sys.executable).parent / "ruff", "check", "--stdin-filename", "policies/x.py", "-"],
        cwd=ROOT,
        input=code,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    assert rule in found.stdout


def test_whatever_is_compiled_is_part_of_what_its_cache_is_known_by() -> None:
    """A cached caller would go on with the callee of an older version."""
    known = {path for pattern in compiled.SOURCES for path in ROOT.glob(pattern)}
    packages = ("forecaster", "policies", "scaler", "simulator", "storage")
    users = {
        path
        for package in packages
        for path in (ROOT / package).rglob("*.py")
        if "from forecaster.compiled import" in path.read_text()
    }
    assert len(users) > 15
    assert users <= known


def test_what_is_installed_is_what_is_here() -> None:
    """A package that the list lacks is found in a checkout and nowhere else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = project["tool"]["setuptools"]["packages"]
    here = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for root in COPIED[:-1]
        for path in (ROOT / root).rglob("__init__.py")
    }
    assert set(listed) == here
