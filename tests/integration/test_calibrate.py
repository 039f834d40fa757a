"""`daybreak calibrate`: from what a pod was seen to do to what it carries."""

from __future__ import annotations

import gzip
import json
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from simulator.measured.benchmark import measured_runs
from simulator.measured.fit import closed_loop, fitted
from simulator.measured.histograms import QUERY, measured_pods
from simulator.measured.measurement import documents
from simulator.pod import PROFILES, PodProfile
from simulator.pod_file import load_pod_profile
from tests.integration.commands import run
from tests.integration.prometheus_server import prometheus_of
from tests.stepwise_pod import BATCH, PROMPT, T0, T1, TP, pod_minutes

L4 = (
    (1, 1.3, 27.0, 679.0),
    (2, 2.9, 37.8, 698.0),
    (4, 5.4, 50.1, 722.0),
    (8, 10.2, 60.9, 772.0),
    (16, 17.8, 103.8, 880.0),
    (32, 29.5, 135.3, 1082.0),
)
"""A measured sweep: Qwen2.5-0.5B on an L4 with vLLM 0.23, 256 tokens in and 128 out, in flight,
requests a second, median milliseconds to the first token and to the last
(https://ai.wmx.dev/benchmarks)."""


def result(in_flight: int, qps: float, ttft: float, tpot: float, **more: Any) -> dict[str, Any]:
    """As vLLM writes it, of what matters here; 50 tokens in and 50 out."""
    count = 20 * in_flight
    return {
        "backend": "vllm",
        "request_rate": "inf",
        "max_concurrency": in_flight,
        "completed": count,
        "total_input_tokens": 50 * count,
        "total_output_tokens": 50 * count,
        "request_throughput": qps,
        "mean_ttft_ms": ttft,
        "mean_tpot_ms": tpot,
        **more,
    }


def as_modelled(in_flight: int, profile: PodProfile, inputs: int = 50) -> dict[str, Any]:
    """What a pod just like the model gives in a closed loop: of what is in flight, some is on its
    way to the batch, and what finds no place in it waits."""
    outputs, batch = 50, float(in_flight)
    each = profile.t1_seconds * (outputs - 1) / outputs + profile.tp_seconds * inputs / outputs
    for _ in range(200):
        step = profile.t0_seconds + each * batch
        qps = batch / (outputs * step)
        batch = min(in_flight - qps * profile.front_end_seconds, profile.max_num_seqs)
    ttft = in_flight / qps - (outputs - 1) * step
    count = 20 * in_flight
    more = {"total_input_tokens": inputs * count, "p99_e2el_ms": 1e3 * in_flight / qps}
    return result(in_flight, qps, 1e3 * ttft, 1e3 * step, **more)


def written(folder: Path, *results: dict[str, Any]) -> Path:
    """One file a run, as `vllm bench serve` leaves them."""
    folder.mkdir(exist_ok=True)
    for number, each in enumerate(results):
        (folder / f"run-{number:02}.json").write_text(json.dumps(each))
    return folder


def sweep(tmp_path: Path) -> Path:
    profile = PROFILES["h100-1200"]
    runs = [as_modelled(in_flight, profile) for in_flight in (1, 8, 64, 256, 512, 1024)]
    return written(tmp_path / "sweep", *runs, as_modelled(64, profile, inputs=500))


def test_a_sweep_gives_the_pod_back(tmp_path: Path) -> None:
    """Step times, the batch (two runs wait for a place in it), and what it carries."""
    true, out = PROFILES["h100-1200"], tmp_path / "pod.yaml"
    options = "--slo", "1", "--output-tokens", "50", "--output-sigma", "0.5", "--input-tokens", "50"
    done = run("calibrate", "--from", str(sweep(tmp_path)), *options, "--out", str(out))
    assert done.returncode == 0, done.stderr
    found = load_pod_profile(out)
    assert found.t0_seconds == pytest.approx(true.t0_seconds, rel=0.01)
    assert found.t1_seconds == pytest.approx(true.t1_seconds, rel=0.02)
    assert found.tp_seconds == pytest.approx(true.tp_seconds, rel=0.02)
    assert found.front_end_seconds == pytest.approx(true.front_end_seconds, rel=0.05)
    assert found.max_num_seqs == pytest.approx(512, abs=1)
    assert found.capacity_within(1.0) == pytest.approx(true.capacity_within(1.0), rel=0.01)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("  capacity: "))
    capacity = yaml.safe_load(line)["capacity"]
    assert capacity["qpsPerReplica"] == pytest.approx(found.capacity_within(1.0), rel=1e-3)
    assert capacity["saturationQps"] == pytest.approx(found.saturation_qps, rel=1e-3)
    assert out.read_text().startswith("# Made by daybreak calibrate: explains 7 measurements to 0.")
    for doubt in ("less than the fit says", "Prompts are in", "Nothing waited", "to be alike"):
        assert doubt not in done.stdout


def test_what_was_written_can_be_simulated_with(tmp_path: Path) -> None:
    out, trace = tmp_path / "pod.yaml", tmp_path / "trace.csv"
    assert run("calibrate", "--from", str(sweep(tmp_path)), "--out", str(out)).returncode == 0
    minutes = (
        f"2026-03-0{2 + at // 1440}T{at // 60 % 24:02}:{at % 60:02}:00Z" for at in range(3000)
    )
    trace.write_text("timestamp,qps\n" + "".join(f"{minute},50000\n" for minute in minutes))
    done = run(
        "simulate", "--trace", str(trace), "--pod-profile", str(out), "--policy", "static",
        "--engine", "fluid", "--json", "-",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["settings"]["pod_profile"] == "calibrated"


def test_a_measured_sweep_is_explained_to_two_percent(tmp_path: Path) -> None:
    """Steps of a real pod are as the model has them; under load its prompts wait longer than there,
    which is said."""
    runs = [
        result(in_flight, qps, ttft, (whole - ttft) / 127, completed=20 * in_flight)
        | {"total_input_tokens": 5120 * in_flight, "total_output_tokens": 2560 * in_flight}
        for in_flight, qps, ttft, whole in L4
    ]
    folder = written(tmp_path / "l4", *runs)
    done = run("calibrate", "--from", str(folder), "--slo", "2", "--max-num-seqs", "64")
    assert done.returncode == 0, done.stderr
    assert "Under the heaviest load the pod served 8% less than the fit says" in done.stdout
    assert "Prompts are in what each sequence adds" in done.stdout
    assert "All outputs are taken to be alike" in done.stdout
    measured = measured_runs((path, each) for path in folder.iterdir() for each in documents(path))
    fit = fitted(measured.measurements)
    assert max(map(abs, fit.errors)) < 0.02
    assert 0.0045 < fit.t0_seconds < 0.0055
    assert measured.batch is None


def test_an_objective_that_nothing_keeps_is_the_answer_no(tmp_path: Path) -> None:
    done = run("calibrate", "--from", str(sweep(tmp_path)), "--slo", "0.05", "--json", "-")
    assert done.returncode == 1
    assert json.loads(done.stdout)["capacity"]["qps_per_replica"] is None
    done = run("calibrate", "--from", str(sweep(tmp_path)), "--slo", "0.05")
    assert done.returncode == 1
    assert "No load keeps P99 within 0.05 s" in done.stdout


def test_a_closed_loop_is_the_models() -> None:
    """With room in the batch, and with half of what is in flight waiting for a place in it."""
    profile = PROFILES["h100-1200"]
    for in_flight in (1, 64, 512):
        loop = closed_loop(profile, in_flight)
        batch = loop.qps * profile.output_tokens * profile.step_seconds(loop.qps)
        assert batch + loop.qps * profile.front_end_seconds == pytest.approx(in_flight, rel=1e-6)
    assert closed_loop(profile, 1024.0).qps == pytest.approx(profile.saturation_qps)
    within, waiting = (
        closed_loop(profile, 512.0).p99_seconds,
        closed_loop(profile, 1024.0).p99_seconds,
    )
    assert waiting - within == pytest.approx(512 / profile.saturation_qps, rel=0.03)


def test_open_loops_lists_lines_and_packed_files_are_read(tmp_path: Path) -> None:
    """The batch of an open loop follows from its throughput; every way that runs are kept in."""
    light, heavy = result(1, 5.0, 10.0, 2.0), result(1, 300.0, 20.0, 4.0)
    for each, rate in ((light, 5.0), (heavy, 300.0)):
        each |= {"request_rate": rate, "max_concurrency": None}
    ways = {
        "list.json": json.dumps([light, heavy]),
        "lines.json": json.dumps(light) + "\n" + json.dumps(heavy) + "\n",
    }
    for name, text in ways.items():
        (tmp_path / name).write_text(text)
        with gzip.open(tmp_path / f"{name}.gz", "wt") as file:
            file.write(text)
    paths = [tmp_path / f"{name}{end}" for name in ways for end in ("", ".gz")]
    found = [measured_runs((path, each) for each in documents(path)).measurements for path in paths]
    decoding = [[each.decoding for each in loads] for loads in found]
    assert decoding == [pytest.approx([5 * 49 * 0.002, 300 * 49 * 0.004])] * len(found)
    assert all(each.in_flight is None for loads in found for each in loads)


@pytest.mark.parametrize("rate", ['"inf"', "Infinity", "null"])
def test_a_closed_loop_is_one_however_its_rate_is_written(tmp_path: Path, rate: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(result(8, 90.0, 5.0, 3.0)).replace('"inf"', rate))
    (load,) = measured_runs((path, each) for each in documents(path)).measurements
    assert load.in_flight == 8.0
    assert load.decoding == pytest.approx(8 * 49 * 3.0 / (5.0 + 49 * 3.0))


def test_more_in_flight_than_one_run_needed_is_no_batch(tmp_path: Path) -> None:
    """A single run that had to wait: what ran in it is known, and not what waited."""
    runs = [as_modelled(in_flight, PROFILES["h100-1200"]) for in_flight in (1, 64, 4096)]
    done = run("calibrate", "--from", str(written(tmp_path / "one", *runs)), "--json", "-")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fit"]["batch_seen_full"] is None
    assert found["profile"]["maxNumSeqs"] == pytest.approx(512 * 49 / 50, abs=2)


def test_steps_that_are_not_as_the_model_has_them_are_doubted(tmp_path: Path) -> None:
    """By the square of what is in flight."""
    runs = [result(each, 9.0 * each, 5.0, 5.0 + each * each / 20) for each in (1, 8, 20, 40, 64)]
    folder = str(written(tmp_path / "curve", *runs))
    done = run("calibrate", "--from", folder)
    assert "steps of these pods are not as the model has them" in done.stdout.replace("\n", " ")
    done = run("calibrate", "--from", folder, "--json", "-")
    assert json.loads(done.stdout)["fit"]["good"] is False


def test_the_lengths_of_detailed_runs_are_taken(tmp_path: Path) -> None:
    runs = [
        as_modelled(in_flight, PROFILES["h100-1200"])
        | {"output_lens": [20, 50, 80] * 20, "input_lens": [50] * 60}
        for in_flight in (1, 64)
    ]
    done = run("calibrate", "--from", str(written(tmp_path / "detailed", *runs)), "--json", "-")
    assert done.returncode == 0, done.stderr
    lengths = json.loads(done.stdout)["profile"]["outputTokens"]["quantiles"]
    assert (lengths[0], float(np.median(lengths)), lengths[-1]) == (20.0, 50.0, 80.0)


def answer_of(series: list[dict[str, Any]]) -> str:
    """As Prometheus answers a range query."""
    data = {"resultType": "matrix", "result": series}
    return json.dumps({"status": "success", "data": data})


BAD: dict[str, tuple[str | bytes, str]] = {
    "neither.json": ('{"a": 1}', "is neither a result of vllm bench serve"),
    "broken.json": ('{"a": ', "broken.json: is not JSON"),
    "empty.json": (" ", "empty.json: is empty"),
    "binary.json": (b"\xff\xfe\x00", "binary.json: is not JSON"),
    "alike.json": (json.dumps([result(8, 90.0, 5.0, 3.0)] * 3), "Measure a light load and a heavy"),
    "falling.json": (
        json.dumps([result(1, 9.0, 5.0, 1.0), result(64, 90.0, 5.0, 64.0)]),
        "with nothing in it",
    ),
    "slow.json": (
        json.dumps([result(1, 0.001, 5.0, 20_000.0), result(9, 0.002, 5.0, 40_000.0)]),
        "t0Seconds: Input should be less than or equal to 10",
    ),
    "crowded.json": (
        json.dumps([result(1, 9.0, 5.0, 2.0), result(100_000, 9_000.0, 5.0, 4.0)]),
        "maxNumSeqs: Input should be less than 65536",
    ),
    "negative.json": (json.dumps(result(8, -1.0, 5.0, 3.0)), "request_throughput: "),
    "missing.json": ('{"mean_tpot_ms": 3}', "completed: "),
    "one.json": (
        json.dumps(result(8, 9.0, 5.0, 3.0) | {"total_output_tokens": 160}),
        "expected two tokens a request or more",
    ),
    "answer.json": ('{"status": "error", "data": null}', "successful Prometheus range query"),
    "samples.json": (
        answer_of([{"metric": {}}]),
        "expected series with a metric and values",
    ),
    "bucket.json": (
        answer_of([{"metric": {"le": "x"}, "values": []}]),
        "expected series with a metric and values",
    ),
    "numbers.json": ("[1, 2]", "is neither a result of vllm bench serve"),
    "nothing.json": (
        answer_of([]),
        "holds no two samples",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_told(tmp_path: Path, name: str) -> None:
    text, told = BAD[name]
    path, out = tmp_path / name, tmp_path / "pod.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    done = run("calibrate", "--from", str(path), "--out", str(out))
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_files_that_do_not_go_together_are_told(tmp_path: Path) -> None:
    answer = tmp_path / "answer.json"
    answer.write_text(answer_of([]))
    both = run("calibrate", "--from", str(answer), "--from", str(sweep(tmp_path)))
    assert (both.returncode, "got both" in both.stderr) == (2, True)
    (tmp_path / "none").mkdir()
    none = run("calibrate", "--from", str(tmp_path / "none"))
    assert (none.returncode, "holds no .json file" in none.stderr) == (2, True)
    gone = run("calibrate", "--from", str(tmp_path / "gone.json"))
    assert (gone.returncode, "gone.json: cannot be read" in gone.stderr) == (2, True)


def exposed(prefix: str, first: int) -> Iterator[str]:
    """Two pods of one kind for 24 minutes of rising load, the last two beyond what they carry, in
    OpenMetrics; in the names of before or of today."""
    rates = [5.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 120.0, 140.0, 160.0, 175.0, 250.0]
    samples: dict[str, list[str]] = {}
    for pod, seed in (("a", 1), ("b", 2)):
        for second, counters in pod_minutes(rates, 60.0, seed, seconds_each=120):
            for name, labels, value in counters.lines():
                every = ",".join(filter(None, (f'namespace="llm",pod="{pod}"', labels)))
                line = f"{prefix}{name}{{{every}}} {value!r} {first + second}\n"
                samples.setdefault(name, []).append(line)
    for name, lines in samples.items():
        kind = "counter" if name.endswith("_total") else "unknown"
        yield f"# TYPE {prefix}{name.removesuffix('_total')} {kind}\n"
        yield from lines
    yield "# EOF\n"


def halves(path: Path, middle: float) -> None:
    """The same answer as two, of before and after."""
    answer = json.loads(path.read_text())
    for name, late in (("early", False), ("late", True)):
        series = [
            {**each, "values": [pair for pair in each["values"] if (pair[0] >= middle) is late]}
            for each in answer["data"]["result"]
        ]
        (path.parent / f"{name}.json").write_text(answer_of(series))


def test_a_pod_that_began_anew_counts_from_nothing(tmp_path: Path) -> None:
    """Its lengths are those of both lives, and the step between them is no measurement; nor is one
    with a sample that is no number."""
    labels = {"pod": "a"}
    counts: dict[str, list[Any]] = {
        "inter_token_latency_seconds_sum": [0, 60, 600, 5, 65, 125],
        "inter_token_latency_seconds_count": [0, 10_000, 60_000, 900, 10_900, 20_900],
        "prompt_tokens_total": [0, 9_000, 60_000, 900, 9_900, "NaN"],
        "time_to_first_token_seconds_sum": ["NaN", 3.0, 63.0, 1.0, 7.0, 13.0],
        "time_to_first_token_seconds_count": ["NaN", 300, 2_300, 30, 330, 630],
        'request_prompt_tokens_bucket{le="50"}': [0, 300, 2_000, 30, 330],
        'request_prompt_tokens_bucket{le="+Inf"}': [0, 300, 2_000, 30, 330],
        'request_generation_tokens_bucket{le="10"}': [0, 100, 1_000, 10, 110],
        'request_generation_tokens_bucket{le="100"}': [0, 300, 2_000, 30, 330],
        'request_generation_tokens_bucket{le="+Inf"}': [0, 300, 2_000, 30, 330],
    }
    series = []
    for sample, values in counts.items():
        name, _, bound = sample.partition('{le="')
        metric = {"__name__": f"vllm:{name}", **labels, **({"le": bound[:-2]} if bound else {})}
        pairs = [[60 * number, str(value)] for number, value in enumerate(values)]
        series.append({"metric": metric, "values": pairs})
    found = measured_pods([(tmp_path / "answer.json", json.loads(answer_of(series)))])
    steps = [each.step_seconds for each in found.measurements]
    assert steps == pytest.approx([0.006, 0.0108, 0.006])
    waited = [each.first_token_seconds for each in found.measurements]
    assert waited == [None, pytest.approx(0.03), pytest.approx(0.02)]
    short = np.mean(np.array(found.output_tokens) <= 10.0)
    assert short == pytest.approx(1_110 / 2_330, abs=0.01)


def test_the_query_stands_in_the_handbook() -> None:
    handbook = Path(__file__).parents[2] / "docs" / "operate.md"
    assert f"'query={QUERY}'" in handbook.read_text()


@pytest.mark.parametrize("prefix", ["vllm:", "vllm_"])
def test_what_a_real_prometheus_saw_of_pods_gives_them_back(tmp_path: Path, prefix: str) -> None:
    """The query that is named, answered by a server; half an hour of two pods by the minute."""
    first = 1_767_225_600
    with prometheus_of(tmp_path, exposed(prefix, first)) as url:
        span = {"start": first, "end": first + 1440, "step": 60}
        query = {"query": QUERY.replace("...", "llm"), **span}
        with urllib.request.urlopen(
            f"{url}/api/v1/query_range?{urllib.parse.urlencode(query)}", timeout=30
        ) as answer:
            (tmp_path / "seen.json").write_bytes(answer.read())
    halves(tmp_path / "seen.json", first + 720)
    out, slo = tmp_path / "pod.yaml", ("--slo", "2")
    sources = [("--from", str(tmp_path / f"{half}.json")) for half in ("early", "late")]
    done = run("calibrate", *(part for each in sources for part in each), *slo, "--out", str(out))
    assert done.returncode == 0, done.stderr
    found = load_pod_profile(out)
    each = T1 * 59 / 60 + TP * PROMPT / 60
    assert found.t0_seconds == pytest.approx(T0, rel=0.005)
    assert found.slope_seconds == pytest.approx(each, rel=0.005)
    assert found.max_num_seqs == pytest.approx(BATCH, abs=4)
    assert found.output_tokens == pytest.approx(60, rel=0.1)
    assert found.input_tokens == pytest.approx(PROMPT, rel=0.3)  # somewhere from 20 to 50
