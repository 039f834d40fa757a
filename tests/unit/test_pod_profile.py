"""Pod profiles of a user's own: lengths from anywhere, and what each mistake is told."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scaler.settings_file import SettingsError
from simulator.engines.fluid import FluidEngine
from simulator.pod import PROFILES, TABLE, PodProfile
from simulator.pod_file import load_pod_profile
from tests.traffic import TRACES

ROOT = Path(__file__).parents[2]
MINIMAL = """
t0Seconds: 0.01
t1Seconds: 2e-5
tpSeconds: 1e-5
outputTokens: {mean: 200, sigma: 0.8}
inputTokens: {mean: 300}
"""


def load(tmp_path: Path, text: str, name: str = "chat.yaml") -> PodProfile:
    path = tmp_path / name
    path.write_text(text)
    return load_pod_profile(path)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text)
    return str(caught.value)


def with_outputs(lengths: str) -> str:
    return MINIMAL.replace("{mean: 200, sigma: 0.8}", lengths)


def test_a_minimal_profile_has_sound_defaults(tmp_path: Path) -> None:
    profile = load(tmp_path, MINIMAL)
    assert profile.name == "chat"
    assert profile.output_tokens == pytest.approx(200, rel=0.01)
    assert profile.outputs.max() > 2000
    assert profile.input_tokens == 300
    assert set(profile.inputs) == {300}
    assert profile.timeout_seconds == 60
    assert profile.max_waiting is None
    assert profile.token_budget == 8192


def test_outputs_are_cut_where_the_user_cuts_them(tmp_path: Path) -> None:
    profile = load(tmp_path, MINIMAL + "maxOutputTokens: 512\n")
    assert profile.outputs.max() == 512
    assert profile.output_tokens == pytest.approx(200, rel=0.01)


def test_quantiles_are_equally_likely_lengths(tmp_path: Path) -> None:
    profile = load(tmp_path, with_outputs("{quantiles: [100, 10, 20, 40]}"))
    assert profile.outputs.min() == 10
    assert profile.outputs.max() == 100
    for level, length in ((0.125, 10), (0.375, 20), (0.625, 40), (0.875, 100)):
        assert profile.outputs[int(level * TABLE)] == pytest.approx(length, abs=1)
    assert profile.outputs[TABLE // 2] == pytest.approx(30, abs=1)


def test_a_histogram_gives_each_length_its_share(tmp_path: Path) -> None:
    profile = load(tmp_path, with_outputs("{histogram: {1000: 1, 10: 6, 50: 1}}"))
    shares = [(profile.outputs == length).mean() for length in (10, 50, 1000)]
    assert shares == [0.75, 0.125, 0.125]
    assert profile.output_tokens == pytest.approx(0.75 * 10 + 0.125 * 1050)
    assert profile.length_cdf[[9, 10, 50, 999, 1000]].tolist() == [0, 0.75, 0.875, 0.875, 1]


@pytest.mark.parametrize("content", [{"out": [1, 2, 3]}, {"out": {"1": 5, "3": 5}}])
def test_lengths_may_stand_in_a_file_beside_the_profile(
    tmp_path: Path, content: dict[str, object]
) -> None:
    (tmp_path / "lengths.json").write_text(json.dumps(content))
    profile = load(tmp_path, with_outputs("{file: lengths.json, field: out}"))
    assert profile.output_tokens == pytest.approx(2, abs=0.01)
    assert (int(profile.outputs.min()), int(profile.outputs.max())) == (1, 3)


def test_a_profile_may_be_json(tmp_path: Path) -> None:
    document = {
        "t0Seconds": 0.01,
        "t1Seconds": 2e-5,
        "tpSeconds": 1e-5,
        "outputTokens": {"quantiles": [5, 6]},
        "inputTokens": {"mean": 300, "sigma": 0.5},
    }
    profile = load(tmp_path, json.dumps(document), "mine.json")
    assert profile.t1_seconds == 2e-5
    assert profile.name == "mine"


def test_the_token_budget_grows_with_the_longest_prompt(tmp_path: Path) -> None:
    profile = load(tmp_path, MINIMAL.replace("{mean: 300}", "{quantiles: [20, 30000]}"))
    assert profile.token_budget == 256 + 30_000


def test_measured_lengths_keep_their_mean(tmp_path: Path) -> None:
    path = TRACES / "llm" / "llm_token_quantiles.json"
    if not path.exists():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"nothing at {path}")
    for field, quantiles in json.loads(path.read_text()).items():
        if min(quantiles) < 1:
            continue
        profile = load(tmp_path, with_outputs(f"{{file: {path.resolve()}, field: {field}}}"))
        assert profile.output_tokens == pytest.approx(np.mean(quantiles), rel=0.01)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MINIMAL.replace("t0Seconds: 0.01", "t0Seconds: 0"), "t0Seconds: Input should be greater"),
        (MINIMAL.replace("t1Seconds: 2e-5", ""), "t1Seconds: Field required"),
        (MINIMAL + "maxNumSeq: 3\n", "maxNumSeq: is not a known key"),
        (MINIMAL + "maxNumSeqs: 0\n", "maxNumSeqs"),
        (
            MINIMAL + "tokenBudget: 500\n",
            "a full batch and the longest prompt, 556 tokens (got 500)",
        ),
        (MINIMAL + "kvTokens: 400\n", "kvTokens: cannot hold a single request of mean length"),
        (MINIMAL + "maxOutputTokens: 70000\n", "maxOutputTokens"),
        (MINIMAL + "maxWaiting: -1\n", "maxWaiting"),
        (with_outputs("{mean: 200, quantiles: [1]}"), "exactly one of mean, quantiles, histogram"),
        (with_outputs("{}"), "outputTokens: give exactly one of"),
        (with_outputs("{mean: 0.5}"), "outputTokens.mean"),
        (with_outputs("{quantiles: []}"), "outputTokens.quantiles"),
        (with_outputs("{quantiles: [1, -2]}"), "outputTokens.quantiles[1]"),
        (with_outputs("{quantiles: [1, .nan]}"), "outputTokens.quantiles[1]"),
        (with_outputs("{histogram: {10: 0}}"), "the weights must not all be 0"),
        (with_outputs("{histogram: {10: -1}}"), "outputTokens.histogram[10]"),
        (with_outputs("{mean: 5, field: x}"), "field goes with file"),
        (with_outputs("{file: nowhere.json}"), "nowhere.json: cannot be read"),
        (with_outputs("{file: chat.yaml}"), "chat.yaml: is not valid JSON"),
        ("[]", "expected a mapping with t0Seconds"),
    ],
)
def test_each_mistake_has_its_message(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"a": [1]}', "has no field 'out'; there are a"),
        ("[1, 2]", "has no field 'out'; there are no fields"),
        ('{"out": "many"}', "histogram: Input should be a valid dictionary"),
        ('{"out": []}', "quantiles: Tuple should have at least 1 item"),
    ],
)
def test_a_table_that_cannot_be_used_is_told(tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / "lengths.json").write_text(content)
    message = refusal(tmp_path, with_outputs("{file: lengths.json, field: out}"))
    assert "lengths.json" in message
    assert expected in message


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples" / "pods").glob("*")), ids=lambda p: p.name
)
def test_every_example_is_valid(path: Path) -> None:
    profile = load_pod_profile(path)
    assert profile.capacity_within(30.0) > 0


def test_lengths_that_make_no_table_are_refused() -> None:
    with pytest.raises(ValueError, match="output lengths must be 4096 whole numbers from 1"):
        replace(PROFILES["l40s"], output_lengths=(1, 2))
    with pytest.raises(ValueError, match="input lengths must be 4096 whole numbers from 1"):
        replace(PROFILES["l40s"], input_lengths=(0,) * TABLE)


def test_kv_bounds_the_batch_and_what_a_pod_serves() -> None:
    roomy, tight = PROFILES["h100-1200"], replace(PROFILES["h100-1200"], kv_tokens=20_000)
    assert (roomy.batch, tight.batch) == (512, 200)
    assert tight.saturation_qps < roomy.saturation_qps


def test_the_fluid_engine_knows_outputs_of_any_length() -> None:
    """A twentieth of the requests is a hundred times as long as the others."""
    lengths = (20,) * (TABLE - TABLE // 20) + (2000,) * (TABLE // 20)
    profile = PodProfile("mixed", 0.01, 0.0, 0.0, output_lengths=lengths, front_end_seconds=0.0)
    engine = FluidEngine(profile, np.full(600, 20.0))
    engine.add()
    engine.advance(600)
    median, tail = engine.quantiles((0.5, 0.99))
    assert median == pytest.approx(20.5 * 0.01, rel=1e-3)
    assert tail == pytest.approx(2000.5 * 0.01, rel=1e-3)
    assert engine.slower_shares(np.array([1.0]))[0] == pytest.approx(0.05, abs=1e-3)
