"""The log event of a budget that did not equal the ledger, whether its sums are in memory or in Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from gateway.policy.budget import Budget


def log_correction(budget: Budget, *, spent_ns: int, held_ns: int) -> None:
    """Log by how many nano-dollars a budget's sums were changed."""
    scope, _, owner = budget.owner.partition("/")
    structlog.get_logger().info(
        "budget_corrected", scope=scope, id=owner, period=budget.period, spent_ns=spent_ns, held_ns=held_ns
    )
