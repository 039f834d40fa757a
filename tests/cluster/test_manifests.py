"""What lies in deploy/ is what a real API server understands, whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.utils import create_from_dict

from tests.cluster.conftest import Home

DEPLOY = Path(__file__).parents[2] / "deploy"
MANIFESTS = [
    manifest
    for name in yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())["resources"]
    for manifest in yaml.safe_load_all((DEPLOY / name).read_text())
]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=[each["kind"] for each in MANIFESTS])
def test_each_is_accepted_and_no_field_is_lost(home: Home, manifest: dict[str, Any]) -> None:
    """A field that it does not know an API server drops without a word."""
    own = yaml.safe_load(yaml.safe_dump(manifest))
    if own["kind"] == "Namespace":
        own["metadata"]["name"] += "-tried"
    else:
        own["metadata"]["namespace"] = home.namespace
    create: Any = create_from_dict
    (created,) = create(home.cluster.client, own, namespace=home.namespace, dry_run="All")
    as_sent: Any = home.cluster.client.sanitize_for_serialization
    kept = as_sent(created)
    assert lost(own, kept) == []


def lost(asked: Any, kept: Any, where: str = "") -> list[str]:
    """Paths of what was asked for and is not kept as it was."""
    if isinstance(asked, dict) and isinstance(kept, dict):
        return [
            found
            for key, value in asked.items()
            for found in lost(value, kept.get(key), f"{where}.{key}")
        ]
    if isinstance(asked, list) and isinstance(kept, list) and len(asked) == len(kept):
        return [
            found
            for number, pair in enumerate(zip(asked, kept, strict=True))
            for found in lost(*pair, f"{where}[{number}]")
        ]
    return [] if asked == kept else [f"{where}: asked {asked!r}, kept {kept!r}"]
