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
from scaler.settings import Settings, SettingsError, load_settings

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
        (("http://prometheus:9090", "http://prometheus:99999"), "is not a URL: Port out of range"),
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
        (("subdivision: BY", "subdivision: 01"), "calendar.subdivision: must stand in quotes"),
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


def test_a_password_in_the_file_is_not_printed(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as raised:
        load(tmp_path, MINIMAL.replace("http://prometheus", "http://u:hunter2@prometheus"))
    assert "password must not stand in the file" in str(raised.value)
    assert "hunter2" not in str(raised.value)


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
