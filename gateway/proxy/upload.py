"""The request's side of an exchange: judged, let in, and sent on, in one piece or as it comes.

Apart from exchange.py, which goes on with the answer. Nothing is sent, and nobody is told to send more, before the
request has its permit (limits/limiter.py) and its purchase is written down (money/accounting.py).
"""

from __future__ import annotations

from abc import abstractmethod
from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway.http.problem import Problem
from gateway.money.purchase import NO_ROOM
from gateway.proxy.answer import Delivery
from gateway.proxy.authorization import LONGEST_TOKEN_REQUEST_BYTES, Admission, too_large

if TYPE_CHECKING:
    from gateway.http.interfaces import Caller
    from gateway.policy.job import Job
    from gateway.proxy.services import Services
    from gateway.telemetry.record import ExchangeRecord, Outcome
    from gateway.upstream.interface import Answer, Transfer

SMALL_BYTES: Final = 65_536  # content up to here is gathered and sent in one piece


class Intake(Delivery):
    """One request on its way in."""

    def __init__(self, services: Services, admission: Admission, caller: Caller, *, record: ExchangeRecord) -> None:
        super().__init__(services, admission.head, caller, record=record)
        self._admission = admission
        self._kept: list[bytes] = []  # content, until it may be sent, or to be sent in one piece
        self._most_bytes = 0
        self._request_whole = False
        self._is_looking = False  # for a job that another gateway may know
        self._is_sent = False  # to the origin, or begun to be
        self._transfer: Transfer | None = None
        self._gone = False  # the caller has left; the answer is read on for its units

    @abstractmethod
    def give_up(self, problem: Problem, outcome: Outcome) -> None:
        """End a request that went wrong."""

    @abstractmethod
    def _answer_to(self) -> Answer:
        """Return who is told of the answer."""

    def begin(self) -> None:
        """Take an admitted request; content that may be refused is looked at before anything is taken for it."""
        admission, authorizer = self._admission, self._services.authorizer
        call, principal = admission.call, admission.principal
        if call is None or principal is None:
            raise AssertionError("begun without an admission")
        self._paid = call.billing == "paid"
        if self._paid:
            purchase = self._services.accounting.open(principal, call, self.record.request_id)
            if isinstance(purchase, Problem):
                self.give_up(purchase, "refused")
                return
            self._purchase = purchase
        self._most_bytes = authorizer.most_bytes(principal)
        if call.kind == "tokens":
            self._most_bytes = min(self._most_bytes, LONGEST_TOKEN_REQUEST_BYTES)
            self._caller.proceed()
        elif call.job is not None and admission.job is None and self._services.find_job is not None:
            self._is_looking = True
            self._caller.hold_content()
            self._services.find_job(call.job, self._on_job)
        else:
            self._enter()

    def _on_job(self, job: Job | None, is_answered: bool) -> None:  # noqa: FBT001 (the seam's shape)
        """Go on with a call about a job that was not in this gateway's own table."""
        self._is_looking = False
        call = self._admission.call
        if self.record.closed or call is None:
            return
        self._caller.resume_content()
        problem = self._services.authorizer.judge_job(call, job, self._admission, is_answered=is_answered)
        if problem is not None:
            self.give_up(problem, "refused")
        else:
            self.record.endpoint = self._admission.call.endpoint if self._admission.call else self.record.endpoint
            self._enter()

    def _enter(self) -> None:
        services, record = self._services, self.record
        permit = self._permit = services.enter(self._admission, record.request_id, self._purchase, self._on_turn)
        if permit.waits:
            self._caller.hold_content()
        else:
            self._go_on()

    def _on_turn(self) -> None:
        """Go on after a wait."""
        if not self.record.closed:
            self._caller.resume_content()
            self._go_on()

    def _go_on(self) -> None:
        """Gather small content, stream the rest."""
        problem = self._permit.problem if self._permit is not None else None
        if problem is not None:
            self.give_up(problem, "refused")
        elif self._request_whole:
            self._open_whole()
        else:
            length = self._request.length
            if length is not None and not 0 <= length <= SMALL_BYTES:
                self._open(length, None)
                if self.record.closed:
                    return
                kept, self._kept = self._kept, []
                for piece in kept:
                    self._feed(piece)
            self._caller.proceed()

    def on_content(self, piece: bytes) -> None:
        """Take a piece of the request's content."""
        record = self.record
        if record.closed or self._gone:
            return
        record.request_bytes += len(piece)
        if record.request_bytes > self._most_bytes:
            self.give_up(too_large(self._most_bytes), "refused")
        elif self._transfer is not None:
            self._feed(piece)
        else:
            self._kept.append(piece)

    def _feed(self, piece: bytes) -> None:
        if self._permit is not None and self._permit.counts_bytes:
            self._permit.count(len(piece))
        if self._transfer is not None and not self._transfer.feed(piece):
            self._caller.hold_content()

    def on_end(self) -> None:
        """The request is whole."""
        if self.record.closed:
            return
        self._request_whole = True
        if self._transfer is not None:
            self._transfer.feed_end()
            return
        if self._request.length is not None:
            self._busy_since = monotonic()  # up to here it was the caller's time
        if self._is_looking:
            return
        if self._permit is None:  # a token request, which its content decides about
            self._take_token_request()
        elif not self._permit.waits:
            self._open_whole()

    def _take_token_request(self) -> None:
        principal = self._admission.principal
        if principal is None:
            raise AssertionError("a token request without an admission")
        content = self._services.authorizer.token_content(principal, b"".join(self._kept))
        if isinstance(content, Problem):
            self.give_up(content, "refused")
        else:
            self._kept = [content]
            self._enter()

    def _open_whole(self) -> None:
        if self._request.length is None and self._request.method not in ("POST", "PUT"):
            self._open(None, None)
            return
        content = b"".join(self._kept)  # these methods say their length, also when there is none
        self._kept = []
        if self._permit is not None and self._permit.counts_bytes:
            self._permit.count(len(content))
        self._open(len(content), content)

    def _on_unwritten(self) -> None:
        """Give a request up whose purchase could not be written down: nothing of it has been sent yet."""
        self._is_sent = False
        if not self.record.closed:
            self.give_up(NO_ROOM, "refused")

    def on_room(self) -> None:
        """The origin has taken what was queued."""
        if not self.record.closed:
            self._caller.resume_content()

    def _open(self, length: int | None, content: bytes | None) -> None:
        forwarded = self._services.forward(
            self._request, self._admission, length=length, content=content, paid=self._paid
        )
        if self._purchase is not None:
            self._services.accounting.record(self._purchase, self._on_unwritten)
            if self.record.closed:
                return
        self._is_sent = True
        self._transfer = self._services.upstream.open(forwarded, self._answer_to())
        now = monotonic()
        self.record.sent_seconds = now - self._request.received_at
        self._rest(now)
