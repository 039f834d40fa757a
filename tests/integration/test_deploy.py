"""What `deploy/` and docs/operate.md promise, held against the program and the Kubernetes API."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes.client
import pytest
import yaml
from kubernetes.client import ApiClient
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine

from scaler.cli import COMMANDS
from scaler.clock import SystemClock
from scaler.control import Control
from scaler.exposition import Exposition, LostLines, expose_leader
from scaler.settings import load_settings
from scaler.status_server import StatusServer, build_app
from tests.integration.commands import run
from tests.integration.prometheus_server import binaries

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
GUIDE = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
SETTINGS = load_settings(DEPLOY / "daybreak.yaml")
KUSTOMIZATION = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text(encoding="utf-8"))

API = {
    ("v1", "Namespace"): "V1Namespace",
    ("v1", "PersistentVolumeClaim"): "V1PersistentVolumeClaim",
    ("v1", "Service"): "V1Service",
    ("v1", "ServiceAccount"): "V1ServiceAccount",
    ("apps/v1", "Deployment"): "V1Deployment",
    ("networking.k8s.io/v1", "NetworkPolicy"): "V1NetworkPolicy",
    ("rbac.authorization.k8s.io/v1", "Role"): "V1Role",
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): "V1RoleBinding",
}


def manifests() -> Iterator[dict[str, Any]]:
    for name in KUSTOMIZATION["resources"]:
        yield from yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8"))


def manifest(kind: str) -> dict[str, Any]:
    (found,) = (one for one in manifests() if one["kind"] == kind)
    return found


def unknown_fields(document: Any, model: str, path: str = "") -> list[str]:
    """Paths of a manifest that the API's model does not have: the server drops or refuses them."""
    many = re.fullmatch(r"[Ll]ist\[(.+)\]", model)
    if many:
        parts = enumerate(document)
        return [
            found for at, part in parts for found in unknown_fields(part, many[1], f"{path}[{at}]")
        ]
    api = getattr(kubernetes.client, model, None)
    if api is None:  # a text, a number, or a map with keys of one's own
        return []
    names = {spelt: name for name, spelt in api.attribute_map.items()}
    unknown = [f"{path}.{key}" for key in document if key not in names]
    return unknown + [
        found
        for key, value in document.items()
        if key in names
        for found in unknown_fields(value, api.openapi_types[names[key]], f"{path}.{key}")
    ]


@pytest.mark.parametrize("document", list(manifests()), ids=lambda one: one["kind"])
def test_a_manifest_is_what_the_api_takes(document: dict[str, Any]) -> None:
    model = API[document["apiVersion"], document["kind"]]
    assert unknown_fields(document, model) == []
    # Which also raises where a field is missing that the API requires.
    read: Any = ApiClient().deserialize(json.dumps(document), model, None)
    assert read.metadata.name


def test_a_field_that_the_api_does_not_have_is_found() -> None:
    document = manifest("Deployment")
    document["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    wrong = [".spec.template.spec.containers[0].readynessProbe"]
    assert unknown_fields(document, "V1Deployment") == wrong


def test_every_manifest_is_applied() -> None:
    others = {"kustomization.yaml", "daybreak.yaml", "alerts.yaml"}
    assert {path.name for path in DEPLOY.glob("*.yaml")} - others == set(KUSTOMIZATION["resources"])


def test_the_role_is_what_the_command_prints() -> None:
    printed = run("rbac", "--config", str(DEPLOY / "daybreak.yaml")).stdout
    assert (DEPLOY / "rbac.yaml").read_text(encoding="utf-8") == printed


def pod() -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod's spec and its container."""
    spec = manifest("Deployment")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    return spec, container


def test_the_pod_finds_what_its_settings_name() -> None:
    spec, container = pod()
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert set(mounts.values()) == set(volumes)
    (generated,) = KUSTOMIZATION["configMapGenerator"]
    assert volumes[mounts["/etc/daybreak"]]["configMap"]["name"] == generated["name"]
    assert f"/etc/daybreak/{generated['files'][0]}" in DOCKERFILE
    database = Path(SETTINGS.database.resolved_url().removeprefix("sqlite:///"))
    claim = volumes[mounts[str(database.parent)]]["persistentVolumeClaim"]["claimName"]
    assert claim == manifest("PersistentVolumeClaim")["metadata"]["name"]
    text = (DEPLOY / "daybreak.yaml").read_text(encoding="utf-8")
    secrets = {str(Path(found).parent) for found in re.findall(r"File: (\S+)", text)}
    assert secrets == {path for path, name in mounts.items() if "secret" in volumes[name]}
    assert spec["serviceAccountName"] == manifest("ServiceAccount")["metadata"]["name"]
    compiled = re.findall(r"(?:HOME|NUMBA_CACHE_DIR)=(\S+)", DOCKERFILE)
    assert [f"/{path.split('/')[1]}" in mounts for path in compiled] == [True, True]


def test_the_pod_has_no_more_rights_than_it_needs() -> None:
    spec, container = pod()
    assert spec["securityContext"]["runAsNonRoot"]
    assert f"USER {spec['securityContext']['runAsUser']}:" in DOCKERFILE
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    own = container["securityContext"]
    assert own == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    deployment = manifest("Deployment")["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})


def test_labels_and_ports_meet() -> None:
    _, container = pod()
    labels = manifest("Deployment")["spec"]["template"]["metadata"]["labels"]
    service, network = manifest("Service"), manifest("NetworkPolicy")
    assert manifest("Deployment")["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == labels
    assert network["spec"]["podSelector"]["matchLabels"] == labels
    port = SETTINGS.server.port
    assert container["ports"] == [{"name": "http", "containerPort": port}]
    assert service["spec"]["ports"] == [{"name": "http", "port": port, "targetPort": "http"}]
    assert network["spec"]["ingress"][0]["ports"][0]["port"] == port
    assert f"EXPOSE {port}\n" in DOCKERFILE


@pytest.fixture
def server(engine: Engine) -> Iterator[StatusServer]:
    app = build_app(engine, CollectorRegistry(), list, SETTINGS.server.allowed_hosts)
    started = StatusServer(app, SETTINGS.server.host, 0)
    started.start()
    yield started
    started.stop()


def test_the_server_answers_probes_and_who_asks_by_the_service_s_name(server: StatusServer) -> None:
    _, container = pod()
    service = manifest("Service")["metadata"]
    by_name = f"{service['name']}.{service['namespace']}"
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    asked = [("10.1.2.3", probe["path"]) for probe in probes] + [
        (host, "/metrics") for host in (by_name, f"{by_name}.svc", f"{by_name}.svc.cluster.local")
    ]
    for host, path in asked:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        connection.request("GET", path, headers={"Host": f"{host}:{SETTINGS.server.port}"})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        assert answer.status == 200, (host, path)
    assert {probe["port"] for probe in probes} == {container["ports"][0]["name"]}


def test_the_image_holds_the_packages_and_what_the_lock_pins() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    copied = {
        name
        for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE)
        for name in line.split()[:-1]
    }
    assert [name for name in copied if not (ROOT / name).exists()] == []
    packages = {name.split(".")[0] for name in project["tool"]["setuptools"]["packages"]}
    assert packages <= copied
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    pins = [
        set(re.findall(r"^[\w.-]+==\S+", path.read_text(encoding="utf-8"), re.MULTILINE))
        for path in (ROOT / "requirements.lock", DEPLOY / "requirements.lock")
    ]
    added = {pin.split("==")[0] for pin in pins[1] - pins[0]}
    assert pins[0] <= pins[1]
    assert added == {"psycopg", "psycopg-binary", "setuptools"}
    assert project["project"]["version"] == KUSTOMIZATION["images"][0]["newTag"]


def test_the_guide_lists_exactly_the_metrics_that_there_are(engine: Engine) -> None:
    registry = CollectorRegistry()
    Exposition(registry, {"grammar": "floor"})
    registry.register(LostLines(lambda: 0))
    expose_leader(registry, lambda: True)
    build_app(engine, registry, list, (), Control("x" * 16), SystemClock().now)
    exported = {
        f"{metric.name}_total" if metric.type == "counter" else metric.name
        for metric in registry.collect()
    }
    listed = re.findall(r"^\| `(daybreak_\w+)` \|", GUIDE, re.MULTILINE)
    assert sorted(listed) == sorted(exported)


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((DEPLOY / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def test_the_guide_says_for_each_alert_what_to_do() -> None:
    listed = re.findall(r"^\| `(Daybreak\w+)` \|", GUIDE, re.MULTILINE)
    assert listed == [rule["alert"] for rule in rules()]


def test_commands_and_files_of_the_guide_exist() -> None:
    commands = re.findall(r"\bdaybreak (?:--\S+ )*([a-z]+)\b(?= --| [a-z]+ --)", GUIDE)
    assert set(commands) >= {"rbac", "check", "report", "verify"}
    assert set(commands) <= set(COMMANDS)
    prose = re.sub(r"```.*?```", "", GUIDE, flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#:]+)\)", prose)
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


HEALTHY = {
    'daybreak_mode{workload="a",mode="floor"}': "1+0x800",
    'daybreak_last_decision_timestamp_seconds{workload="a"}': "0+60x800",
    'daybreak_demand_qps{workload="a"}': "5000+0x800",
    'daybreak_outcomes_total{workload="a",outcome="Applied"}': "0+4x800",
    'daybreak_decisions_total{workload="a",reason="ForecastPeak"}': "0+4x800",
    'daybreak_replicas{workload="a",state="spec"}': "20+0x800",
    'daybreak_replicas{workload="a",state="ready"}': "19+0x800",
    'daybreak_refit_failures_total{workload="a"}': "0+0x800",
    'daybreak_forecast_trusted{workload="a"}': "1+0x800",
}
TROUBLE = {
    "DaybreakAbsent": dict.fromkeys(HEALTHY, "_x800"),
    "DaybreakNotDeciding": {'daybreak_last_decision_timestamp_seconds{workload="a"}': "0+0x800"},
    "DaybreakBlind": {'daybreak_demand_qps{workload="a"}': "5000 _x799"},
    "DaybreakCannotAct": {
        'daybreak_outcomes_total{workload="a",outcome="Applied"}': "9+0x800",
        'daybreak_outcomes_total{workload="a",outcome="Refused"}': "0+4x800",
    },
    "DaybreakAtMaximum": {
        'daybreak_decisions_total{workload="a",reason="TooManyReplicas"}': "0+4x800"
    },
    "DaybreakPodsMissing": {'daybreak_replicas{workload="a",state="ready"}': "10+0x800"},
    "DaybreakLogUnavailable": {
        'daybreak_problems_total{workload="a",source="log",kind="LogUnavailable"}': "0+4x800"
    },
    "DaybreakRefitFails": {'daybreak_refit_failures_total{workload="a"}': "0+1x800"},
    "DaybreakForecastUnused": {'daybreak_forecast_trusted{workload="a"}': "0+0x800"},
}


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [binaries()[1], *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_prometheus_takes_the_alerts() -> None:
    checked = promtool("check", "rules", DEPLOY / "alerts.yaml")
    assert checked.returncode == 0, checked.stderr
    assert f"{len(rules())} rules found" in checked.stdout


def test_each_alert_fires_on_its_trouble_and_none_where_all_is_well(tmp_path: Path) -> None:
    cases = {"none": {}, **TROUBLE}
    assert list(TROUBLE) == [rule["alert"] for rule in rules()]
    tests = []
    for case, changed in cases.items():
        series = [{"series": name, "values": shown} for name, shown in (HEALTHY | changed).items()]
        expected = [
            {
                "eval_time": "12h",
                "alertname": rule["alert"],
                "exp_alerts": [_alert(rule)] if rule["alert"] == case else [],
            }
            for rule in rules()
        ]
        tests.append({"interval": "1m", "input_series": series, "alert_rule_test": expected})
    path = tmp_path / "alerts_test.yaml"
    document = {"rule_files": [str(DEPLOY / "alerts.yaml")], "tests": tests}
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    tested = promtool("test", "rules", path)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def _alert(rule: dict[str, Any]) -> dict[str, Any]:
    labels = {
        "DaybreakAbsent": {},
        "DaybreakNotDeciding": {"workload": "a", "mode": "floor"},
        "DaybreakBlind": {"workload": "a", "mode": "floor"},
        "DaybreakForecastUnused": {"workload": "a", "mode": "floor"},
    }
    own = labels.get(rule["alert"], {"workload": "a"})
    summary = rule["annotations"]["summary"].replace("{{ $labels.workload }}", "a")
    return {"exp_labels": own | rule["labels"], "exp_annotations": {"summary": summary}}
