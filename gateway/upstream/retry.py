"""What may be tried once more, and how often in all: a fault of the network's own must not double the load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.upstream.transfer import Transfer

_SHARE: Final = 0.2  # of the requests may be repeats
_SAVED: Final = 10.0  # repeats that a quiet time leaves in hand
_REPEATED_BEFORE_SEND: Final = ("dns_error", "connection_refused", "tls_error")


class RetryBudget:
    """Allows one repeat a request while repeats are few among the requests."""

    def __init__(self) -> None:
        self._saved = _SAVED

    def earn(self) -> None:
        """Note a request."""
        if self._saved < _SAVED:
            self._saved += _SHARE

    def allows(self, transfer: Transfer) -> bool:
        """Return whether a failed transfer may start again, and count it.

        Never after a byte of an answer. Sent and unanswered: only what may be executed twice. Not sent: any method,
        but not after a connect timeout, whose repeat would double the caller's wait.
        """
        failure = transfer.failure
        if failure is None or transfer.retried or transfer.head is not None or self._saved < 1:
            return False
        safe = transfer.request.repeatable if failure.sent else failure.error_type in _REPEATED_BEFORE_SEND
        if not safe or failure.error_type == "origin_timeout":
            return False
        self._saved -= 1
        return True
