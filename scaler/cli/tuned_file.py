"""The settings file of a tuned policy: the user's own with one block changed, or an example.

Comments and layout stay where the block can be replaced in the text; what is written has been read
back, and says what was found.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from scaler.settings import Policy, Settings, Workload, load_settings
from scaler.settings_file import SettingsError, read_mapping

EXAMPLE_URL = "http://prometheus.monitoring:9090"


def changed_settings(path: Path, settings: Settings, tuned: Workload) -> str:
    """The text of a settings file whose first workload has the policy that was found.

    Raises SettingsError where the file has changed since it was read.
    """
    wanted = settings.model_copy(update={"workloads": (tuned, *settings.workloads[1:])})
    policy = _policy_block(tuned.policy)
    for text in _versions(path, policy):
        if _read_back(text) == wanted:
            return text
    raise SettingsError(f"{path}: has changed while it was being tuned")


def example_settings(tuned: Workload, series: str) -> str:
    """A small settings file for a trace of which nothing else is known."""
    workload = tuned.model_dump(mode="json", by_alias=True, exclude_unset=True)
    workload["policy"] = _policy_block(tuned.policy)
    workload["minReplicas"], workload["maxReplicas"] = tuned.min_replicas, tuned.max_replicas
    document = {"prometheus": {"url": EXAMPLE_URL}, "workloads": [workload]}
    head = (
        f"# Made by daybreak tune from the trace {series!a}.\n"
        "# Put your own in the places of prometheus.url, name, target and demand.query.\n"
    )
    return head + yaml.safe_dump(document, sort_keys=False)


def _policy_block(policy: Policy) -> dict[str, Any]:
    block: dict[str, Any] = {"name": policy.name, "targetBadRatio": policy.target_bad_ratio}
    return {**block, "parameters": policy.parameters} if policy.parameters else block


def _versions(path: Path, policy: dict[str, Any]) -> Iterator[str]:
    """With the rest of the file as it stands, then written anew without its comments."""
    yield from _replaced(path.read_text(encoding="utf-8"), policy)
    document = read_mapping(path, "prometheus and workloads")
    document["workloads"][0]["policy"] = policy
    yield yaml.safe_dump(document, sort_keys=False)


def _replaced(text: str, policy: dict[str, Any]) -> Iterator[str]:
    """The text with the policy's lines replaced, or added to the first workload; nothing where
    that workload is not laid out line by line."""
    root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    workload: yaml.MappingNode = next(
        value for key, value in root.value if key.value == "workloads"
    ).value[0]
    if workload.flow_style:
        return
    lines = text.splitlines(keepends=True)
    column = workload.start_mark.column
    first = last = _last_line(workload) + 1
    for key, value in workload.value:
        if key.value == "policy":
            first, last = key.start_mark.line, _last_line(value) + 1
    block = yaml.safe_dump({"policy": policy}, sort_keys=False).splitlines(keepends=True)
    # The first key of a workload stands behind a dash.
    lead = lines[first][:column] if first < last and "-" in lines[first][:column] else " " * column
    indented = [lead + block[0], *(" " * column + line for line in block[1:])]
    before = "".join(lines[:first])
    yield before + ("" if before.endswith("\n") else "\n") + "".join([*indented, *lines[last:]])


def _last_line(node: yaml.ScalarNode | yaml.CollectionNode) -> int:
    """Where a value ends: a block's own end lies behind the comments that follow it."""
    if isinstance(node, yaml.ScalarNode) or node.flow_style or not node.value:
        end: yaml.Mark = node.end_mark
        # A folded text ends where the next line begins.
        return int(end.line) - (end.column == 0 and end.line > node.start_mark.line)
    last = node.value[-1]
    return _last_line(last[1] if isinstance(last, tuple) else last)


def _read_back(text: str) -> Settings | None:
    """What the daemon would read, None where it would refuse it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "settings.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            return load_settings(path)
        except SettingsError:
            return None
