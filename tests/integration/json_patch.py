"""The two ways to patch a JSON object that the tests' API server speaks."""

from __future__ import annotations

import copy
from typing import Any

Json = dict[str, Any]


def merged(before: Json, patch: Json) -> Json:
    """RFC 7386."""
    after = copy.deepcopy(before)
    for key, value in patch.items():
        if value is None:
            after.pop(key, None)
        elif isinstance(value, dict):
            after[key] = merged(after.get(key) or {}, value)
        else:
            after[key] = value
    return after


def json_patched(before: Json, operations: list[Json]) -> Json:
    """RFC 6902 for test, add, replace and remove on objects; raises ValueError where it fails."""
    after = copy.deepcopy(before)
    for operation in operations:
        *parents, last = [
            part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]
        ]
        place: Any = after
        for part in parents:
            place = place.get(part) if isinstance(place, dict) else None
        if place is None or (operation["op"] != "add" and last not in place):
            raise ValueError(f"{operation['op']} does not apply: {operation['path']}")
        if operation["op"] == "test":
            if place[last] != operation["value"]:
                raise ValueError(f"testing value {operation['path']} failed: test failed")
        elif operation["op"] == "remove":
            del place[last]
        else:
            place[last] = operation["value"]
    return after
