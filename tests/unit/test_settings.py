"""The settings file: what is accepted, and what each mistake is told."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from forecaster.calendar import Calendar, Event
from policies.context import RateLimit, RateUnit, SelectPolicy
from policies.registry import PARAMETERS, POLICIES, parameters_of
from policies.schedule import Schedule
from scaler.settings import Settings, load_settings
from scaler.settings_file import SettingsError

ROOT = Path(__file__).parents[2]
MINIMAL = """
prometheus: {url: "http://prometheus:9090"}
workloads:
- name: grammar
  target: {namespace: llm, name: grammar, mode: shadow}
  demand: {query: "sum(rate(gateway_requests_total[1m]))"}
  capacity: {qpsPerReplica: 1080}
  maxReplicas: 400
"""


def load(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "daybreak.yaml"
    path.write_text(text)
    return load_settings(path)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text)
    return str(caught.value)


def test_a_minimal_file_has_sound_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path, MINIMAL)
    workload = settings.workloads[0]
    assert settings.interval_seconds == 15
    assert workload.history.days == 28
    loop = workload.loop_settings(15.0)
    assert loop.lead_time.p95_seconds == 180
    assert loop.policy.scale_down.select_policy is SelectPolicy.MIN
    assert RateLimit(RateUnit.PERCENT, 10, 60) in loop.policy.scale_down.limits
    assert loop.policy.scale_up.limits == ()


def test_an_hpa_behavior_block_can_be_pasted(tmp_path: Path) -> None:
    block = """
  behavior:
    scaleDown:
      stabilizationWindowSeconds: 300
      policies:
      - type: Percent
        value: 100
        periodSeconds: 15
    scaleUp:
      stabilizationWindowSeconds: 0
      policies:
      - type: Percent
        value: 100
        periodSeconds: 15
      - type: Pods
        value: 4
        periodSeconds: 15
      selectPolicy: Max
"""
    policy = load(tmp_path, MINIMAL + block).workloads[0].policy_settings()
    assert policy.scale_down.stabilization_window_seconds == 300
    assert policy.scale_up.limits[1] == RateLimit(RateUnit.PODS, 4, 15)


def test_all_problems_are_reported_at_once_with_their_paths(tmp_path: Path) -> None:
    broken = (
        MINIMAL.replace("maxReplicas: 400", "maxReplicas: 2\n  minReplicas: 5\n  maxReplica: 9")
        .replace("qpsPerReplica: 1080", "qpsPerReplica: -3")
        .replace("mode: shadow", "mode: yolo")
        .replace("prometheus:9090", "prometheus:9090")
        + "intervalSeconds: 0\n"
    )
    message = refusal(tmp_path, broken)
    assert "daybreak.yaml: 4 problems" in message
    for expected in (
        "intervalSeconds: Input should be greater than or equal to 1 (got 0)",
        "workloads[0].target.mode",
        "workloads[0].capacity.qpsPerReplica",
        "workloads[0].maxReplica: is not a known key",
    ):
        assert expected in message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("maxReplicas: 400", "maxReplicas: 2\n  minReplicas: 5"), "must not exceed maxReplicas"),
        (("mode: shadow", "mode: floor"), "mode floor needs hpa"),
        (("mode: shadow", "mode: floor, hpa: grammar, hpa: x"), "stands twice"),
        (('query: "sum(rate(gateway_requests_total[1m]))"', ""), "exactly one of query"),
        (("http://prometheus", "http://u:pw@prometheus"), "password must not stand in the file"),
        (("http://prometheus:9090", "prometheus:9090"), "should match pattern"),
        (("maxReplicas: 400", "maxReplicas: 400\n  policy: {name: magic}"), "is not a policy"),
        (
            ("maxReplicas: 400", "maxReplicas: 400\n  policy: {parameters: {mragin: 3}}"),
            "parameters.mragin is not a parameter of predictive; there are margin",
        ),
        (
            (
                "maxReplicas: 400",
                "maxReplicas: 400\n  policy: {name: hpa, parameters: {targetQpss: 3}}",
            ),
            "parameters.targetQpss is not a parameter of hpa; there are targetQps",
        ),
        (
            ("maxReplicas: 400", "maxReplicas: 400\n  policy: {parameters: {margin: .nan}}"),
            "policy.parameters.margin: Input should be a finite number",
        ),
        (
            ("maxReplicas: 400", "maxReplicas: 400\n  policy: {name: cron}"),
            "cron goes by schedules, and there are none",
        ),
        (
            ("http://prometheus:9090", "http://prometheus:99999"),
            "prometheus.url: is not a URL such as",
        ),
        (("maxReplicas: 400", "maxReplicas: 400\n  ? [a]\n  : 1"), "a key must be a single word"),
        (
            (
                "maxReplicas: 400",
                (
                    "maxReplicas: 400\n  calendar: {events: [{name: e, factor: 2, "
                    "start: 0001-01-01T00:00:00+05:00, end: 2026-01-01T00:00:00Z}]}"
                ),
            ),
            "lies outside of the calendar",
        ),
        (
            ("maxReplicas: 400", "maxReplicas: 400\n  history: {timeZone: Mars/Olympus}"),
            "is not an IANA time zone",
        ),
        (
            (
                "maxReplicas: 400",
                "maxReplicas: 400\n  leadTime: {p50Seconds: 200, p95Seconds: 100}",
            ),
            "p50Seconds must not exceed p95Seconds",
        ),
        (("maxReplicas: 400", "maxReplicas: 4e99"), "valid integer"),
        (("qpsPerReplica: 1080", "qpsPerReplica: .nan"), "finite number"),
        (("name: grammar\n", 'name: "<script>"\n'), "should match pattern"),
    ],
)
def test_each_mistake_has_its_message(
    tmp_path: Path, change: tuple[str, str], expected: str
) -> None:
    assert expected in refusal(tmp_path, MINIMAL.replace(*change))


CALENDAR = """
  history: {timeZone: Europe/Berlin}
  calendar:
    country: DE
    subdivision: BY
    extraDaysOff: [2026-12-24, "2026-12-31"]
    events:
    - {name: final, start: 2026-07-19 21:00, end: 2026-07-19T21:30:00Z, factor: 2.5}
    - {name: load test, start: 2026-03-10, end: 2026-03-10 06:00:00, ignoreHistory: true}
"""


def test_a_calendar_becomes_the_forecasters_own(tmp_path: Path) -> None:
    calendar = load(tmp_path, MINIMAL + CALENDAR).workloads[0].traffic_calendar()
    assert calendar == Calendar(
        time_zone="Europe/Berlin",
        country="DE",
        subdivision="BY",
        extra_days_off=(date(2026, 12, 24), date(2026, 12, 31)),
        events=(
            Event(
                "final",
                datetime(2026, 7, 19, 19, tzinfo=UTC),
                datetime(2026, 7, 19, 21, 30, tzinfo=UTC),
                factor=2.5,
            ),
            Event(
                "load test",
                datetime(2026, 3, 9, 23, tzinfo=UTC),
                datetime(2026, 3, 10, 5, tzinfo=UTC),
                ignore_history=True,
            ),
        ),
    )


def test_without_a_section_the_calendar_is_the_time_zone(tmp_path: Path) -> None:
    assert load(tmp_path, MINIMAL).workloads[0].traffic_calendar() == Calendar()


def test_the_first_of_two_equal_local_hours_is_meant(tmp_path: Path) -> None:
    text = CALENDAR.replace(
        "2026-03-10, end: 2026-03-10 06", "2026-10-25 02:30, end: 2026-10-25 06"
    )
    event = load(tmp_path, MINIMAL + text).workloads[0].traffic_calendar().events[1]
    assert event.starts_at == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            ("country: DE", "country: Germany"),
            "calendar.country: 'Germany' is not a known country code of ISO 3166; close to it are",
        ),
        (("country: DE", "country: NO"), "calendar.country: must stand in quotes: YAML reads NO"),
        (("subdivision: BY", "subdivision: Bayer"), "subdivision of DE; there are Bayern"),
        (("subdivision: BY", "subdivision: 1"), "calendar.subdivision: must stand in quotes"),
        (("subdivision: BY", "subdivision: 01"), "'01' is not a known subdivision of DE"),
        (("country: DE\n    ", ""), "calendar.subdivision: needs country"),
        (("[2026-12-24", "[20261224"), "extraDaysOff[0]: is not a time such as"),
        (("[2026-12-24", "[2026-02-30"), "extraDaysOff[0]: Input should be a valid date"),
        (("[2026-12-24", "[Christmas"), "extraDaysOff[0]"),
        (("start: 2026-07-19 21:00", "start: 20260719"), "events[0].start: is not a time such as"),
        (("start: 2026-07-19 21:00", 'start: "20260719"'), "events[0].start: is not a time such"),
        (("factor: 2.5", "factor: 0"), "events[0].factor: Input should be greater than 0 (got 0)"),
        (("factor: 2.5", "factor: -1"), "events[0].factor"),
        (("factor: 2.5", "factor: 2.5, ignoreHistory: true"), "events[0]: give exactly one of"),
        ((", factor: 2.5", ""), "events[0]: give exactly one of factor and ignoreHistory: true"),
        (("start: 2026-07-19 21:00", "start: 2026-07-19 23:30"), "'final': its end must come"),
        (
            ("2026-03-10, end: 2026-03-10", "2026-03-29 02:30, end: 2026-03-29"),
            "skip 2026-03-29 02:",
        ),
        (("start: 2026-03-10, end: 2026-03-10", "start: 2026-07-19, end: 2026-07-20"), "overlap"),
        (("name: final", 'name: ""'), "events[0].name"),
        (("name: final", "title: final"), "events[0].title: is not a known key"),
    ],
)
def test_each_mistake_of_a_calendar_has_its_message(
    tmp_path: Path, change: tuple[str, str], expected: str
) -> None:
    assert change[0] in CALENDAR
    assert expected in refusal(tmp_path, MINIMAL + CALENDAR.replace(*change))


def test_a_calendar_survives_being_written_out(tmp_path: Path) -> None:
    """As a simulation does that takes its workload from a settings file."""
    workload = load(tmp_path, MINIMAL + CALENDAR).workloads[0]
    document = workload.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert type(workload).model_validate(document).traffic_calendar() == workload.traffic_calendar()


def test_two_workloads_on_one_target_are_refused(tmp_path: Path) -> None:
    second = MINIMAL.split("workloads:\n")[1].replace("name: grammar\n", "name: other\n")
    assert "target used by more than one workload: llm/grammar" in refusal(
        tmp_path, MINIMAL + second
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{", "not valid YAML"), ("[]", "expected a mapping"), ("a: &a [*a]", "known key")],
)
def test_files_that_are_no_settings(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in refusal(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere.yaml: cannot be read: No such file"):
        load_settings(tmp_path / "nowhere.yaml")


IN_FILE = "a password must not stand in the file"
IN_HEADER = "secrets do not belong in headers; use bearerTokenFile or basicAuth"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ('url: "http://u:hunter2@p:9090"', f"prometheus.url: {IN_FILE}"),
        ('url: "http://u:hunter2/x@p:9090"', f"prometheus.url: {IN_FILE}"),
        ('url: "http://u:1/hunter2@p:9090"', f"prometheus.url: {IN_FILE}"),
        ('url: "http://u:hunter2#x@p:9090"', f"prometheus.url: {IN_FILE}"),
        ('url: "http://a@b.c:hunter2@p:9090"', f"prometheus.url: {IN_FILE}"),
        ('url: "http://:hunter2@p:9090"', f"prometheus.url: {IN_FILE}"),
        ('url: "http://p:9090/?token=hunter2"', f"prometheus.url: {IN_FILE}"),
        ('url: "http://p:9090/?x=hunter2"', "prometheus.url: must end with the path"),
        ('url: "http://p:9090hunter2"', "prometheus.url: is not a URL such as"),
        ('url: "p:9090/hunter2"', "prometheus.url: String should match pattern"),
        (
            'url: "http://p", basicAuth: {username: u, password: hunter2}',
            "prometheus.basicAuth.password: is not a known key; a secret never stands in the file",
        ),
        (
            'url: "http://p", bearerToken: hunter2',
            "never stands in the file: bearerTokenFile or basicAuth says where it is kept",
        ),
        ('url: "http://p", basicAuth: "u:hunter2"', "prometheus.basicAuth: Input should be a"),
        ('url: "http://p", headers: {Authorization: hunter2}', IN_HEADER),
        ('url: "http://p", headers: {X-Api-Key: hunter2}', IN_HEADER),
        ('url: "http://p", headers: {Cookie: hunter2}', IN_HEADER),
        ('url: "http://p", headers: {X-Team: "hunter2\\n"}', "prometheus.headers.X-Team: "),
        ('url: "http://p", headers: hunter2', "prometheus.headers: Input should be a valid dict"),
        ('url: "http://p": hunter2', "is not valid YAML: line 2, column 29: "),
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_printed(
    tmp_path: Path, change: str, expected: str
) -> None:
    told = refusal(tmp_path, MINIMAL.replace('url: "http://prometheus:9090"', change))
    assert expected in told
    assert "hunter2" not in told


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ('database: {url: "postgresql+psycopg://u:s3/hunter2@h/db"}', f"database.url: {IN_FILE}"),
        ('database: {url: "postgresql+psycopg://u@h/d?password=hunter2"}', f"url: {IN_FILE}"),
        ('database: {url: "postgresql+psycopg://h/d?sslpassword=hunter2"}', f"url: {IN_FILE}"),
        ('database: "postgresql+psycopg://u:hunter2@h/db"', "database: Input should be a valid"),
        ("database: {password: hunter2}", "urlFile or urlEnv says where it is kept"),
        ("server: {token: hunter2}", "server.token: is not a known key; a secret never stands"),
        ("server: {port: 1, port: hunter2}", "the key 'port' stands twice"),
    ],
)
def test_a_secret_of_another_section_is_not_printed_either(
    tmp_path: Path, section: str, expected: str
) -> None:
    told = refusal(tmp_path, f"{MINIMAL}\n{section}\n")
    assert expected in told
    assert "hunter2" not in told


@pytest.mark.parametrize(
    "section",
    [
        'database: {url: "sqlite:///C:/Users/a@b/daybreak.db"}',
        'database: {url: "postgresql+psycopg://u@h1:5432,h2:5432/db?sslmode=require"}',
        'database: {url: "postgresql+psycopg:///db?host=/run/postgresql&passfile=/run/pgpass"}',
        "server: {allowedHosts: [daybreak.llm.svc, daybreak, 10.0.0.1]}",
    ],
)
def test_what_only_looks_like_a_mistake_is_accepted(tmp_path: Path, section: str) -> None:
    assert load(tmp_path, f"{MINIMAL}\n{section}\n").workloads


def test_every_parameter_that_a_policy_reads_may_be_given() -> None:
    """Read off the sources: whoever adds one finds it here."""
    read = set()
    for path in (ROOT / "policies").rglob("*.py"):
        text = path.read_text()
        read |= set(re.findall(r'(?:parameter\(\s*|required\(context, )"(\w+)"', text))
    assert read == PARAMETERS
    ours = {*POLICIES["predictive"].knobs, "lookBackSeconds", "collapseRatio"}
    assert parameters_of("predictive") == ours


def test_secrets_come_from_files_and_variables_only(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hunter2\n")
    auth = f"basicAuth: {{username: u, passwordFile: {secret}}}"
    settings = load(tmp_path, MINIMAL.replace('9090"}', f'9090", {auth}}}'))
    assert settings.prometheus.basic_auth is not None
    assert settings.prometheus.basic_auth.password() == "hunter2"
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"\xff\xfe\x00", "it is not UTF-8 text"), (b" \n", "is empty"), (None, "No such file")],
)
def test_a_secret_file_that_holds_none_is_named(
    tmp_path: Path, content: bytes | None, expected: str
) -> None:
    secret = tmp_path / "secret"
    if content is not None:
        secret.write_bytes(content)
    settings = load(
        tmp_path,
        f"{MINIMAL}\nserver: {{tokenFile: {secret}}}\ndatabase: {{urlFile: {secret}}}\n",
    )
    for read in (settings.server.token, settings.database.resolved_url):
        with pytest.raises(SettingsError, match=expected) as raised:
            read()
        assert str(secret) in str(raised.value)


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"]
)
def test_a_log_that_a_restart_would_lose_is_refused(tmp_path: Path, url: str) -> None:
    assert "database.url: a log in memory" in refusal(
        tmp_path, f"{MINIMAL}\ndatabase: {{url: '{url}'}}\n"
    )
    named = tmp_path / "url"
    named.write_text(url)
    settings = load(tmp_path, f"{MINIMAL}\ndatabase: {{urlFile: {named}}}\n")
    with pytest.raises(SettingsError, match=r"database\.urlFile: a log in memory"):
        settings.database.resolved_url()


WORKLOAD = "maxReplicas: 400"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ((WORKLOAD, "maxReplicas: yes"), "maxReplicas: is not a number: YAML reads yes"),
        ((WORKLOAD, "maxReplicas: 0220"), "maxReplicas: must not begin with a 0"),
        ((WORKLOAD, 'maxReplicas: "0220"'), "maxReplicas: must not begin with a 0"),
        ((WORKLOAD, "maxReplicas: 1:30"), "maxReplicas: Input should be a valid integer"),
        ((WORKLOAD, f"maxReplicas: {'9' * 5000}"), "maxReplicas: Unable to parse input string"),
        ((WORKLOAD, f"maxReplicas: 1{'0' * 30}"), "less than or equal to 2147483647"),
        (
            ("mode: shadow", "mode: floor, hpa: g, floorTtlSeconds: 44"),
            "workload grammar: target.floorTtlSeconds must not lie below 3 intervals",
        ),
        (
            ("mode: shadow", "mode: floor, hpa: g, floorTtlSeconds: 1.0e+18"),
            "floorTtlSeconds: Input should be less than or equal to 86400",
        ),
        (("mode: shadow", "mode: scale, hpa: g"), "mode scale allows no HPA on its target"),
        (("namespace: llm", "namespace: a.b"), "target.namespace: String should match"),
        (('"sum(rate(gateway_requests_total[1m]))"', '" "'), "demand.query: must not be empty"),
        (
            ('query: "sum(rate(gateway_requests_total[1m]))"', "vllm: {labels: {__name__: x}}"),
            "__name__ is the metric's own name",
        ),
        (("workloads:", "intervalSeconds: 1:30\nworkloads:"), "intervalSeconds: Input should be"),
        (("workloads:", "database: {url: ''}\nworkloads:"), "database.url: String should have"),
        (
            ("workloads:", "kubernetes: {timeoutSeconds: 1.0e+20}\nworkloads:"),
            "kubernetes.timeoutSeconds: Input should be less than or equal to 86400",
        ),
        (("workloads:", "server: {allowedHosts: ['*']}\nworkloads:"), "is not a host name such as"),
        (
            ("workloads:", "server: {allowedHosts: [a:80]}\nworkloads:"),
            "is not a host name such as",
        ),
        (("workloads:", f"x: {'[' * 3000}{']' * 3000}\nworkloads:"), "is nested too deeply"),
        (("workloads:", "x: !!bool perhaps\nworkloads:"), "holds a value that cannot be read"),
        (("http://prometheus:9090", "http://:9090"), "is not a URL such as"),
        (("http://prometheus:9090", "http:///"), "is not a URL such as"),
        (("http://prometheus:9090", "http://p/#x"), "no ? and no #"),
        (('9090"}', '9090", tenant: "a\\nb"}'), "prometheus.tenant: String should match pattern"),
        (('9090"}', '9090", tenantHeader: Authorization}'), "prometheus.tenantHeader: secrets do"),
        (('9090"}', '9090", headers: {X-Team: "5 €"}}'), "headers.X-Team: String should match"),
        (('9090"}', '9090", timeoutSeconds: 1.0e+20}'), "prometheus.timeoutSeconds: Input should"),
    ],
)
def test_what_could_never_work_is_refused(
    tmp_path: Path, change: tuple[str, str], expected: str
) -> None:
    assert change[0] in MINIMAL
    assert expected in refusal(tmp_path, MINIMAL.replace(*change, 1))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "slo: {p99Seconds: true}",
            "slo.p99Seconds: is not a number",
        ),
        (
            "policy: {parameters: {margin: on}}",
            "parameters.margin: is not a number",
        ),
        (
            "policy: {parameters: {margin: -100}}",
            "policy.parameters: margin: expected -10 to 100, got -100",
        ),
        (
            "policy: {parameters: {collapseRatio: 5}}",
            "policy.parameters: collapseRatio: expected 0 to 1, got 5",
        ),
        (
            "policy: {parameters: {lookBackSeconds: -5}}",
            "policy.parameters: lookBackSeconds: expected 0 to 86400, got -5",
        ),
        (
            "policy: {name: hpa, parameters: {scaleDownWindowSeconds: 1.0e+15}}",
            "policy.parameters: scaleDownWindowSeconds: expected 0 to 86400, got 1e+15",
        ),
        (
            "policy: {schedules: [{start: 0 8 * * *, end: 0 9 * * *, replicas: 5}]}",
            "predictive does not heed schedules; only cron and cron_floor do",
        ),
        (
            "behavior: {scaleDown: {policies: [{type: Percent, value: 150, periodSeconds: 9}]}}",
            "behavior.scaleDown: policies: no more than 100 percent can go",
        ),
        (
            "leadTime: {metricLagSeconds: 300}",
            "leadTime.metricLagSeconds (300) must lie below history.maxAgeSeconds (180)",
        ),
        (
            "leadTime: {p95Seconds: 1.0e+8}",
            "leadTime.p95Seconds: Input should be less than or equal to 86400",
        ),
        (
            "leadTime: {p95Seconds: 80000}\n  history: {days: 1}",
            "workload grammar: leadTime.p95Seconds and metricLagSeconds, 80015 s together",
        ),
        (
            "history: {days: 0.00001}",
            "history.days: Input should be",
        ),
        (
            "history: {days: 400, stepSeconds: 1}",
            "400 days in steps of 1 s are 34,560,000 steps, expected 2,500,000 at most",
        ),
        (
            'signals: {errorsQps: ""}',
            "errorsQps: must not be empty",
        ),
    ],
)
def test_what_could_never_work_for_a_workload_is_refused(
    tmp_path: Path, line: str, expected: str
) -> None:
    assert expected in refusal(tmp_path, f"{MINIMAL}  {line}\n")


def test_the_shortest_floor_outlives_three_intervals(tmp_path: Path) -> None:
    text = MINIMAL.replace("mode: shadow", "mode: floor, hpa: g, floorTtlSeconds: 45")
    assert load(tmp_path, text).workloads[0].target.floor_ttl_seconds == 45


def test_every_key_says_what_it_means() -> None:
    schema = Settings.model_json_schema(by_alias=True)
    sections = [schema, *schema["$defs"].values()]
    silent = [
        f"{section['title']}.{key}"
        for section in sections
        for key, found in section.get("properties", {}).items()
        if not found.get("description", "").endswith(".")
    ]
    assert silent == []


def test_the_published_schema_is_the_current_one() -> None:
    published = json.loads((ROOT / "docs" / "settings.schema.json").read_text())
    assert published == Settings.model_json_schema(by_alias=True)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda p: p.name)
def test_every_example_is_valid(path: Path) -> None:
    assert load_settings(path).workloads


SCHEDULED = (
    MINIMAL
    + """
  policy:
    name: cron
    schedules:
    - {start: "0 8 * * 1-5", end: "0 20 * * 1-5", replicas: 150, timeZone: Europe/Berlin}
"""
)


def test_schedules_reach_the_policy_that_goes_by_them(tmp_path: Path) -> None:
    workload = load(tmp_path, SCHEDULED).workloads[0]
    (schedule,) = workload.policy_settings().schedules
    assert schedule == Schedule("0 8 * * 1-5", "0 20 * * 1-5", 150, "Europe/Berlin")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("0 8 * * 1-5", "0 8 * *"),
        ("0 8 * * 1-5", "0 8 30 2 *"),
        ("Europe/Berlin", "Europe/Nowhere"),
        ("150", "-1"),
    ],
)
def test_a_schedule_that_cannot_be_read_is_told(tmp_path: Path, wrong: str, right: str) -> None:
    told = refusal(tmp_path, SCHEDULED.replace(wrong, right))
    assert "policy.schedules" in told
    assert right.rsplit("/", maxsplit=1)[-1] in told
