"""Reading a settings file, and saying what is wrong with it: file, key, what was given.

Knows YAML, its traps and pydantic's errors. Knows no key but those that name a secret's place: what
may be one is never quoted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

SECRET = re.compile(
    r"authoriz|authent|passw|pwd|token|secret|credential|cookie|api[-_]?key", re.IGNORECASE
)
"""What is named like this holds something that must not be seen."""


class SettingsError(Exception):
    """The settings cannot be used; the message lists every problem with file and path."""


def read_secret(file: Path | None, env: str | None) -> str:
    """A secret from its file or environment variable; raises SettingsError where it is absent."""
    if file is None:
        value = os.environ.get(env or "")
        if not value:
            raise SettingsError(f"the environment variable {env} is not set, or empty")
        return value
    try:
        value = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(f"cannot read the secret file {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"cannot read the secret file {file}: it is not UTF-8 text") from error
    if not value:
        raise SettingsError(f"the secret file {file} is empty")
    return value


def read_mapping(path: Path, expected: str) -> dict[str, Any]:
    """The mapping of a YAML file, of which JSON is a part; raises SettingsError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not UTF-8 text") from error
    try:
        document = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        # Its own words quote the line, which may hold a secret.
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = error.problem or error.context
        raise SettingsError(f"{path}: is not valid YAML: {where}{problem}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise SettingsError(f"{path}: is nested too deeply") from error
    except (ValueError, LookupError) as error:
        # Of a tag such as !!int before what is none.
        raise SettingsError(f"{path}: holds a value that cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise SettingsError(f"{path}: expected a mapping with {expected}")
    return document


LONGEST_NUMBER, LONGEST_SHOWN = 100, 100
"""Characters of a number that is read as one, and of a value that is quoted in a message."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys in silence; here the second is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a single word", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _as_text(loader: _UniqueKeyLoader, node: yaml.ScalarNode) -> str:
    return loader.construct_scalar(node)


def _in_base_ten(loader: _UniqueKeyLoader, node: yaml.ScalarNode) -> Any:
    """A number as people read it: YAML 1.1 takes 0220 for 144 and 1:30 for 90. Those stay text, as
    does one that is too long to be a number of anything, until their key is known."""
    text = loader.construct_scalar(node)
    if re.match(r"[-+]?0[\d_]", text) or ":" in text or len(text) > LONGEST_NUMBER:
        return text
    if node.tag.endswith(":int"):
        return loader.construct_yaml_int(node)
    return loader.construct_yaml_float(node)


# A time stays text until its key is known: PyYAML would end without path on 30 February.
_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:timestamp", _as_text)
_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:int", _in_base_ten)
_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:float", _in_base_ten)


def explained(path: Path, error: ValidationError) -> str:
    """Every problem of a file on a line of its own, with its path within the file."""
    problems = error.errors(include_url=False)
    lines = [f"{path}: {len(problems)} problem{'s' if len(problems) > 1 else ''}"]
    for problem in problems:
        where = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]
        ).lstrip(".")
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "is not a known key" + _right_key(problem["loc"])
        lines.append(f"  {where or 'the file'}: {message}{_given(problem)}")
    return "\n".join(lines)


SECRETS_OF = {
    "prometheus": "bearerTokenFile or basicAuth",
    "basicAuth": "passwordFile or passwordEnv",
    "database": "urlFile or urlEnv",
    "server": "tokenFile or tokenEnv",
}
"""The keys that name where a section's secret is kept."""


def _right_key(where: tuple[int | str, ...]) -> str:
    section, key = ("", *where)[-2:]
    if section not in SECRETS_OF or not SECRET.search(str(key)):
        return ""
    return f"; a secret never stands in the file: {SECRETS_OF[str(section)]} says where it is kept"


def _given(problem: ErrorDetails) -> str:
    """What stood there, where it is short and cannot be a secret: an unknown key, a URL, a header
    and a text in the place of a section may be one."""
    given = problem["input"]
    if not isinstance(given, (str, int, float)) or {"url", "headers"} & set(problem["loc"]):
        return ""
    if problem["type"] in ("extra_forbidden", "model_type"):
        return ""
    shown = repr(given)
    return f" (got {shown if len(shown) <= LONGEST_SHOWN else shown[:LONGEST_SHOWN] + '...'})"
