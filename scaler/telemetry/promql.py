"""Every PromQL query that daybreak writes itself, and every vLLM metric name it knows.

Knows vLLM's names, old and new, and how label values are quoted. Knows nothing of servers or
answers. Only plain PromQL is used, which Thanos, Mimir and VictoriaMetrics read alike.

One and the same vLLM is stored as `vllm:name` or as `vllm_name`, depending on which text format
its Prometheus negotiates, and a fleet in the middle of an upgrade shows old and new names at once.
All forms are joined with `or`, function by function: a regular expression over `__name__` would
fail inside rate(), which drops names and then finds the same label set twice; `or` keeps one of
the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from scaler.settings import Demand, Workload

RUNNING = ("num_requests_running",)
WAITING = ("num_requests_waiting",)
KV_CACHE_USAGE = ("kv_cache_usage_perc", "gpu_cache_usage_perc")  # both 0 to 1 despite the name
FINISHED = ("request_success_total",)
LATENCY = ("e2e_request_latency_seconds_bucket",)

# Two scrapes must fall into the window even where vLLM is scraped only every 30 s.
SHORTEST_WINDOW_SECONDS = 60
# A 99th percentile over one minute of a small service rests on a handful of requests.
LATENCY_WINDOW_SECONDS = 300

SIGNALS = (
    "requests_running",
    "requests_waiting",
    "kv_cache_usage_ratio",
    "latency_p99_seconds",
    "errors_qps",
)


def quoted(value: str) -> str:
    """The value as a PromQL string literal."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def selector(metric: str, labels: Mapping[str, str], *matchers: str) -> str:
    """The metric's series with exactly these label values, and whatever `matchers` add."""
    equal = [f"{name}={quoted(value)}" for name, value in sorted(labels.items())]
    return f"{metric}{{{','.join([*equal, *matchers])}}}"


def demand_query(demand: Demand, step_seconds: int = SHORTEST_WINDOW_SECONDS) -> str:
    """Requests a second: the user's query as it stands, or what vLLM's own figures add up to.

    From vLLM, arrivals in a window are completions plus the change of what runs and waits. Rate
    and delta extrapolate a window in the same way, so the sum is exact where both were scraped.
    It is cut off at zero because requests in flight vanish with a pod that is killed.
    """
    if demand.vllm is None:
        return demand.query or ""
    labels, window = demand.vllm.labels, max(step_seconds, SHORTEST_WINDOW_SECONDS)
    finished = _over(FINISHED, labels, "rate", window)
    running = _over(RUNNING, labels, "delta", window)
    waiting = _over(WAITING, labels, "delta", window)
    return f"clamp_min(sum({finished}) + (sum({running}) + sum({waiting})) / {window}, 0)"


def newest_scrape_query(demand: Demand) -> str | None:
    """When vLLM was last scraped, in epoch seconds; None for a query of the user's own."""
    if demand.vllm is None:
        return None
    return f"max({_each(RUNNING, lambda name: f'timestamp({name})', demand.vllm.labels)})"


def signal_queries(workload: Workload) -> dict[str, str]:
    """The queries by field of Observation: the settings' own, else vLLM's where it is named."""
    vllm = workload.demand.vllm
    derived = {} if vllm is None else _vllm_signals(vllm.labels)
    given = {name: getattr(workload.signals, name) for name in SIGNALS}
    chosen = {name: given[name] or derived.get(name) for name in SIGNALS}
    return {name: query for name, query in chosen.items() if query}


def _vllm_signals(labels: Mapping[str, str]) -> dict[str, str]:
    # Ended without the whole answer: the client gave up, or the engine failed.
    unanswered = 'finished_reason=~"abort|error"'
    buckets = _over(LATENCY, labels, "rate", LATENCY_WINDOW_SECONDS)
    errors = _over(FINISHED, labels, "rate", SHORTEST_WINDOW_SECONDS, unanswered)
    return {
        "requests_running": f"sum({_each(RUNNING, str, labels)})",
        "requests_waiting": f"sum({_each(WAITING, str, labels)})",
        "kv_cache_usage_ratio": f"avg({_each(KV_CACHE_USAGE, str, labels)})",
        "latency_p99_seconds": f"histogram_quantile(0.99, sum by (le) ({buckets}))",
        "errors_qps": f"sum({errors})",
    }


def _over(
    names: tuple[str, ...], labels: Mapping[str, str], function: str, seconds: int, *matchers: str
) -> str:
    return _each(names, lambda series: f"{function}({series}[{seconds}s])", labels, *matchers)


def _each(
    names: tuple[str, ...],
    expression: Callable[[str], str],
    labels: Mapping[str, str],
    *matchers: str,
) -> str:
    """The expression over every form of the names, joined so that none counts twice."""
    metrics = [f"vllm{separator}{name}" for name in names for separator in ":_"]
    return " or ".join(expression(selector(metric, labels, *matchers)) for metric in metrics)
