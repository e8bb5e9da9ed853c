"""What becomes of transfers, whoever carries them: started, told, ended, tried once more, given up.

Kept apart from libcurl so that its rules can be read and tested without it. `Carrier` is the part that knows how.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from gateway.upstream.failures import failure, failure_of
from gateway.upstream.interface import Upstream
from gateway.upstream.retry import RetryBudget
from gateway.upstream.transfer import Transfer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.upstream.clock import Clock
    from gateway.upstream.interface import Answer, OriginFailure, Request
    from gateway.upstream.timeouts import OriginTimeouts


class Carrier(ABC):
    """Carries transfers to the origin."""

    clock: Clock
    """The time of the present turn."""

    @abstractmethod
    def start(self, transfer: Transfer, *, fresh: bool) -> None:
        """Begin, on a connection of its own where `fresh`."""

    @abstractmethod
    def repause(self, transfer: Transfer) -> None:
        """Carry out the transfer's pause flags."""

    @abstractmethod
    def drop(self, transfer: Transfer) -> None:
        """End at once, without a report."""


class Engine(Upstream):
    """The transfers of one carrier."""

    def __init__(self, carrier: Carrier, phases: OriginTimeouts) -> None:
        self._carrier, self._phases = carrier, phases
        self.clock: Final = carrier.clock
        self._changed: list[Transfer] = []
        self._retries = RetryBudget()

    def repause(self, transfer: Transfer) -> None:
        """Give libcurl the transfer's pause flags."""
        self._carrier.repause(transfer)

    def drop(self, transfer: Transfer) -> None:
        """End the transfer without a word."""
        self._carrier.drop(transfer)

    def open(self, request: Request, answer: Answer) -> Transfer:
        """Start a request."""
        transfer = Transfer(self, request, answer)
        self._retries.earn()
        self._start(transfer, fresh=False)
        return transfer

    def _start(self, transfer: Transfer, *, fresh: bool) -> None:
        transfer.restart(self.clock.now)
        self._carrier.start(transfer, fresh=fresh)

    def changed(self, transfer: Transfer) -> None:
        """Tell this transfer's exchange when the turn is over."""
        if not transfer.dirty:
            transfer.dirty = True
            self._changed.append(transfer)

    def tell(self) -> None:
        """Tell every exchange what its transfer has come to. Called outside of libcurl only."""
        while self._changed:
            changed, self._changed = self._changed, []
            for transfer in changed:
                self._tell(transfer)

    @staticmethod
    def _tell(transfer: Transfer) -> None:
        try:
            transfer.tell()
        except Exception as bug:  # noqa: BLE001 (ours: it is reported, its exchange ends, and the others hear theirs)
            asyncio.get_running_loop().call_exception_handler({"message": "bug in an exchange", "exception": bug})
            transfer.abort()
            transfer.answer.on_failure(failure("gateway_error", sent=True))

    def ended(self, transfer: Transfer, code: int) -> None:
        """Take the carrier's report; `code` is libcurl's result, 0 for a whole answer."""
        if code == 0 and transfer.head is not None:
            transfer.whole = True
        else:
            transfer.failure = failure_of(transfer, code)
            if self._starts_again(transfer):
                return
        self.changed(transfer)

    def _starts_again(self, transfer: Transfer) -> bool:
        if not transfer.active:
            return False
        if not transfer.stale:  # stale: nothing was sent, as good as a first attempt
            if not self._retries.allows(transfer):
                return False
            transfer.retried = True
        self._start(transfer, fresh=True)
        return True

    def give_up_overdue(self, transfers: Iterable[Transfer]) -> None:
        """End those that made no progress for too long."""
        for transfer in list(transfers):
            overdue = self._phases.overdue(transfer, self.clock.now)
            if overdue is not None:
                self._give_up(transfer, overdue)
        self.tell()

    def give_up_excessive(self, transfers: Iterable[Transfer]) -> None:
        """End those whose origin sends without an end, and no content."""
        for transfer in transfers:
            self._give_up(transfer, failure("origin_failed", sent=True))
        self.tell()

    def lost(self, transfers: Iterable[Transfer]) -> None:
        """End those whose carrier broke down under them."""
        for transfer in transfers:
            transfer.failure = failure(
                "origin_failed" if transfer.attempted else "connection_refused", sent=transfer.attempted
            )
            self.changed(transfer)

    def _give_up(self, transfer: Transfer, why: OriginFailure) -> None:
        self._carrier.drop(transfer)
        transfer.failure = why
        self.changed(transfer)
