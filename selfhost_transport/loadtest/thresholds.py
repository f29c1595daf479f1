"""Whether a run was good enough: each threshold against what was seen."""

from __future__ import annotations

from selfhost_transport.loadtest.plan import Budget
from selfhost_transport.loadtest.recorder import Metric
from selfhost_transport.loadtest.result import Check, RunResult

GENERATOR_ROLE = "generator"


def check_budget(result: RunResult, budget: Budget) -> list[Check]:
    """The checks for the thresholds that were given. A limit on a metric without a value fails."""
    token = result.summary(Metric.TOKEN)
    first, cancel = result.summary(Metric.FIRST_TOKEN), result.summary(Metric.CANCEL_ACK)
    served = sum(usage.us_per_token for role, usage in result.usage.items() if role != GENERATOR_ROLE)
    upper = [
        ("token p99 ms", budget.max_p99_ms, token.p99, token.count),
        ("first token p99 ms", budget.max_first_token_p99_ms, first.p99, first.count),
        ("cancel acknowledged p99 ms", budget.max_cancel_p99_ms, cancel.p99, cancel.count),
        ("CPU us per token", budget.max_us_per_token, served, served > 0),
    ]
    checks = [
        Check(name, limit, value, bool(measured) and value <= limit)
        for name, limit, value, measured in upper
        if limit is not None
    ]
    if budget.max_errors_percent is not None:
        limit, value = budget.max_errors_percent, result.error_percent
        checks.append(Check("turns that failed, %", limit, value, value <= limit))
    lowest = budget.min_tokens_per_s
    if lowest is not None:
        checks.append(Check("tokens/s", lowest, result.tokens_per_s, result.tokens_per_s >= lowest))
    return checks
