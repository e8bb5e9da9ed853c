"""What the two comparisons of budgets with the ledger share: how often they run, and the log event of a difference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from gateway.policy.budget import Budget

AUDIT_SECONDS: Final = 15.0
"""Between two comparisons of budgets in memory or in Redis."""


def log_correction(budget: Budget, *, spent_ns: int, held_ns: int) -> None:
    """Log by how many nano-dollars a budget's sums were changed."""
    scope, _, owner = budget.owner.partition("/")
    structlog.get_logger().info(
        "budget_corrected", scope=scope, id=owner, period=budget.period, spent_ns=spent_ns, held_ns=held_ns
    )
