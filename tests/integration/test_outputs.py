"""Files that commands write: what cannot be written is told before the work, not after it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import typer

from scaler.cli import COMMANDS, build_app
from scaler.cli.output import BadInputError, write_text
from simulator.traces.whole_file import whole_file, why_unwritable
from tests.integration.commands import run

NOT_THERE = "--trace=/no/such/trace.csv"
COMMANDS_THAT_WRITE = {
    ("simulate", NOT_THERE): ("--json", "--html"),
    ("backtest", NOT_THERE): ("--json", "--html"),
    ("tune", NOT_THERE): ("--json", "--out"),
    ("report", "--database=sqlite:////no/such.db"): ("--json", "--html", "--csv"),
    ("verify", "--database=sqlite:////no/such.db"): ("--json",),
    ("explain", "1", "--database=sqlite:////no/such.db"): ("--json",),
    ("check", "--config=/no/such.yaml"): ("--json",),
    ("demo", "--headless"): ("--report",),
    ("reproduce", "seed"): ("--json", "--html"),
    ("trace", "import", "/no/such.csv", "--kind=wc98"): ("--out",),
    ("trace", "generate"): ("--out",),
    ("trace", "edit", "/no/such.csv"): ("--out",),
    ("trace", "describe", "/no/such.csv"): ("--json",),
    ("calibrate", "--from=/no/such.json"): ("--json", "--out"),
}


@pytest.mark.parametrize("command", COMMANDS_THAT_WRITE, ids=lambda given: " ".join(given[:2]))
def test_an_output_that_cannot_be_written_is_told_before_the_work(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    """Before the input, even: none of these has one."""
    for option in COMMANDS_THAT_WRITE[command]:
        path = tmp_path / "missing" / "out"
        ended = run(*command, option, str(path), cwd=tmp_path)
        assert ended.returncode == 2
        assert ended.stderr == (
            f"daybreak: {option}: cannot write {path}: there is no folder {path.parent}\n"
        )
    assert not list(tmp_path.iterdir())


def contents(folder: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_an_output_takes_the_place_of_no_input_and_no_other_output(tmp_path: Path) -> None:
    for name in ("trace.csv", "pods.yaml", "daybreak.db", "daybreak-demo.db", "own.db"):
        (tmp_path / name).write_text("precious")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "1.json").write_text("precious")
    before = contents(tmp_path)
    simulate = ("simulate", "--trace", "trace.csv")
    own = ("--database", "sqlite:///own.db")
    for arguments, said in (
        ((*simulate, "--json", "./trace.csv"), "--json: ./trace.csv is what --trace names"),
        ((*simulate, "--json", "both", "--html", "both"), "--html: both is what --json names"),
        (
            (*simulate, "--pod-profile", "pods.yaml", "--html", "pods.yaml"),
            "--html: pods.yaml is what --pod-profile names",
        ),
        (("trace", "describe", "trace.csv", "--json", "trace.csv"), "SOURCE names"),
        (("report", "--html", "daybreak.db"), "--html: daybreak.db is what --database names"),
        (("report", *own, "--csv", "own.db"), "--csv: own.db is what --database names"),
        (("report", *own, "--csv", "own.db-wal"), "--csv: own.db-wal is what --database names"),
        (("demo", "--report", "daybreak-demo.db"), "daybreak-demo.db is what --database names"),
        (("calibrate", "--from=runs", "--out=runs/1.json"), "runs/1.json is what --from names"),
        (("calibrate", "--from=own.db", "--json=own.db"), "--json: own.db is what --from names"),
        (("report", "--csv", "-"), "--csv: expected a file; only --json goes to"),
    ):
        ended = run(*arguments, cwd=tmp_path)
        assert (ended.returncode, ended.stdout) == (2, ""), arguments
        assert said in ended.stderr
    assert contents(tmp_path) == before


def test_no_command_is_left_out() -> None:
    build_app(list(COMMANDS))
    groups = [getattr(import_module(module), name) for name, (module, _) in COMMANDS.items()]
    single = [
        info
        for group in groups
        if isinstance(group, typer.Typer)
        for info in group.registered_commands
    ]
    assert len(single) == 7
    assert all(hasattr(info.callback, "__wrapped__") for info in single)


def test_a_trace_may_be_edited_in_place(tmp_path: Path) -> None:
    made = run("trace", "generate", "--days", "1", "--out", "day.csv", cwd=tmp_path)
    assert made.returncode == 0
    ended = run("trace", "edit", "day.csv", "--peak-qps", "7", "--out", "day.csv", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "peak qps" in run("trace", "describe", "day.csv", cwd=tmp_path).stdout


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_numbers_are_finite(tmp_path: Path, number: str) -> None:
    ended = run("report", f"--price={number}", cwd=tmp_path)
    assert ended.returncode == 2
    assert "--price" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_no_option_that_names_an_output_is_forgotten() -> None:
    """Found by its help: whoever adds one finds it here, and in the table above."""
    told = re.compile(r"\b(write|where the report goes)\b", re.IGNORECASE)
    options = {
        (name, parameter.opts[0]): parameter.callback is not None
        for name, command in _commands("", typer.main.get_command(build_app(list(COMMANDS))))
        for parameter in command.params
        if told.search(getattr(parameter, "help", None) or "")
    }
    assert all(options.values()), options
    assert set(options) == {
        (" ".join(part for part in command if part.isalpha()), option)
        for command, options in COMMANDS_THAT_WRITE.items()
        for option in options
    }


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Each command under its whole name; groups hold others."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name.strip(), command
    for part, one in (inner or {}).items():
        yield from _commands(f"{name} {part}", one)


def test_each_reason_has_words_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("as it was")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, expected in {
        tmp_path: "it is a folder",
        tmp_path / "missing" / "r.html": f"there is no folder {tmp_path / 'missing'}",
        tmp_path / "file" / "r.html": "Not a directory",
        tmp_path / ("x" * 255): "File name too long",
        Path("/proc/r.html"): "No such file or directory",  # whoever asks, root too
        tmp_path / "loop": "Too many levels of symbolic links",
    }.items():
        why = why_unwritable(path)
        assert why is not None
        assert expected in why
    with pytest.raises(OSError, match="Too many levels"), whole_file(tmp_path / "loop"):
        pass
    assert (tmp_path / "loop").is_symlink()


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may write everywhere: it asks as somebody else."""
    if os.geteuid():
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_may_not_be_written_is_told() -> None:
    with TemporaryDirectory() as folder:  # one that anybody can reach
        Path(folder).chmod(0o555)
        with as_nobody():
            assert why_unwritable(Path(folder) / "r.html") == "Permission denied"


def test_looking_leaves_everything_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    assert why_unwritable(path) is None
    assert not list(tmp_path.iterdir())
    path.write_text("as it was")
    before = path.stat()
    assert why_unwritable(path) is None
    assert [path.read_text(), path.stat().st_mtime_ns] == ["as it was", before.st_mtime_ns]


def test_what_stood_there_stays_where_the_run_fails(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text("as it was")
    ended = run("simulate", NOT_THERE, "--json", str(path))
    assert ended.returncode == 2
    assert "cannot be read" in ended.stderr
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half of it, and then \ud800")
    assert path.read_text() == "as it was"
    assert list(tmp_path.iterdir()) == [path]


def test_links_and_devices_stay_what_they_are(tmp_path: Path) -> None:
    """A device that is renamed over is gone, for everybody on the machine."""
    write_text(Path("/dev/null"), "nothing")
    assert Path("/dev/null").is_char_device()
    link, target = tmp_path / "latest.html", tmp_path / "monday.html"
    link.symlink_to(target)
    write_text(link, "a page")
    assert link.is_symlink()
    assert target.read_text() == "a page"
    ended = run("trace", "generate", "--days", "1", "--out", "/dev/stdout")
    assert ended.stdout.startswith("timestamp,qps\n")


def test_a_disk_that_fills_up_is_told_too() -> None:
    with pytest.raises(BadInputError, match="cannot write /dev/full: No space left on device"):
        write_text(Path("/dev/full"), "a page")
