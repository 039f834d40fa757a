"""PromQL texts: quoting, vLLM's names and which signals are asked for."""

from __future__ import annotations

from typing import Any

import pytest

from scaler.settings import Demand, VllmDemand, Workload
from scaler.telemetry.promql import (
    demand_query,
    newest_scrape_query,
    quoted,
    selector,
    signal_queries,
)


def workload(**more: Any) -> Workload:
    return Workload.model_validate(
        {
            "name": "chat",
            "target": {"name": "chat", "mode": "shadow"},
            "demand": {"vllm": {"labels": {"model_name": "m"}}},
            "capacity": {"qpsPerReplica": 1},
            "maxReplicas": 2,
            **more,
        }
    )


@pytest.mark.parametrize(
    ("value", "literal"),
    [
        ("plain", '"plain"'),
        ('a"b', r'"a\"b"'),
        ("a\\b", r'"a\\b"'),
        ("a\nb", r'"a\nb"'),
        ('\\"', r'"\\\""'),
        ('"} or vector(1e9) #', r'"\"} or vector(1e9) #"'),
        ("🙂", '"🙂"'),
    ],
)
def test_a_value_cannot_leave_its_quotes(value: str, literal: str) -> None:
    assert quoted(value) == literal


def test_labels_stand_in_one_order_whatever_the_settings_say() -> None:
    assert selector("up", {"b": "2", "a": "1"}, 'c=~"x|y"') == 'up{a="1",b="2",c=~"x|y"}'


def test_a_query_of_the_users_own_is_left_as_it_is() -> None:
    query = 'sum(rate(requests_total{path="/chat"}[2m])) # gateway'
    assert demand_query(Demand(query=query), 300) == query
    assert newest_scrape_query(Demand(query=query)) is None


def test_demand_from_vllm_is_completions_plus_the_change_of_what_is_in_flight() -> None:
    query = demand_query(Demand(vllm=VllmDemand(labels={"model_name": "m"})), 120)
    series = '{model_name="m"}'
    assert query == (
        f"clamp_min(sum(rate(vllm:request_success_total{series}[120s])"
        f" or rate(vllm_request_success_total{series}[120s]))"
        f" + (sum(delta(vllm:num_requests_running{series}[120s])"
        f" or delta(vllm_num_requests_running{series}[120s]))"
        f" + sum(delta(vllm:num_requests_waiting{series}[120s])"
        f" or delta(vllm_num_requests_waiting{series}[120s]))) / 120, 0)"
    )


def test_a_short_step_does_not_make_the_window_too_short_for_two_scrapes() -> None:
    query = demand_query(Demand(vllm=VllmDemand(labels={"model_name": "m"})), 15)
    assert "[60s]" in query
    assert "[15s]" not in query


def test_signals_come_from_vllm_unless_the_settings_name_them() -> None:
    own = workload(signals={"requestsRunning": "sum(mine)"})
    queries = signal_queries(own)
    assert queries["requests_running"] == "sum(mine)"
    assert "vllm:gpu_cache_usage_perc" in queries["kv_cache_usage_ratio"]
    assert "vllm_kv_cache_usage_perc" in queries["kv_cache_usage_ratio"]
    assert list(queries) == [
        "requests_running",
        "requests_waiting",
        "kv_cache_usage_ratio",
        "latency_p99_seconds",
        "errors_qps",
    ]


def test_without_vllm_only_the_named_signals_are_asked_for() -> None:
    plain = workload(demand={"query": "x"}, signals={"errorsQps": "sum(errors)"})
    assert signal_queries(plain) == {"errors_qps": "sum(errors)"}
