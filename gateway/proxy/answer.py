"""The caller's side of an exchange: one answer at most, the origin's or the gateway's own, and what is known of it.

Apart from exchange.py, which decides when and what, so that how an answer is put together stands in one place.
"""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway.fal.units import units_of
from gateway.http.fields import AnswerHead, first
from gateway.http.interfaces import Handler
from gateway.money.purchase import RequestResult
from gateway.policy.price import MOST_COST_NS, cost_ns, usd_text

if TYPE_CHECKING:
    from gateway.http.interfaces import Caller
    from gateway.http.message import RequestHead
    from gateway.http.problem import Problem
    from gateway.limits.permit import Permit
    from gateway.money.purchase import Charge, Purchase
    from gateway.proxy.authorization import Admission
    from gateway.proxy.services import Services
    from gateway.telemetry.record import ExchangeRecord

_COSTS_KEPT: Final = 1_024  # most requests use one of a few quantities: a twentieth of the time of working it out anew


class Delivery(Handler):
    """What is told to one caller. `_responded`: a head has gone out, and cannot be taken back."""

    def __init__(self, services: Services, request: RequestHead, caller: Caller, *, record: ExchangeRecord) -> None:
        self._services = services
        self._request = request
        self._caller = caller
        self.record = record
        self._page = first(request.fields, b"origin")
        self._permit: Permit | None = None
        self._paid = True
        self._busy_since = request.received_at
        self._answer: AnswerHead | None = None
        self._responded = False
        self._is_answered = False  # the origin's answer has come whole
        self._purchase: Purchase | None = None
        self._cost: tuple[bytes, ...] = ()  # fields that tell it, where it is known by now
        self._are_units_unreadable = False

    def _rest(self, now: float) -> None:
        """Add what passed since the gateway last began to work on this to its own share of the duration."""
        self.record.overhead_seconds = (self.record.overhead_seconds or 0.0) + now - self._busy_since

    def _note_head(self, status: int, raw: list[bytes], admission: Admission) -> AnswerHead:
        """Read the origin's head, and write down what it says, of money too."""
        record = self.record
        answer = self._answer = self._services.to_caller.read(status, raw)
        record.first_byte_seconds = self._busy_since - self._request.received_at
        record.fal_request_id = answer.request_id
        record.units = units_of(answer.units)
        self._are_units_unreadable = answer.units is not None and record.units is None
        call, job = admission.call, admission.job
        if self._purchase is not None:
            price = self._purchase.price
            if price is not None and record.units is not None:
                self._cost = cost_lines(price.picodollars, record.units)
        elif call is not None and call.job is not None:
            if job is not None and job.picodollars >= 0 and record.units is not None:
                self._cost = cost_lines(job.picodollars, record.units)
            self._services.accounting.job_answered(
                call, status, record.units, self._write_cost, are_units_unreadable=self._are_units_unreadable
            )
        return answer

    def _account(self, purchase: Purchase, *, was_sent: bool) -> None:
        """Bring the purchase to its end, and write down what it cost."""
        answer = self._answer
        fate = RequestResult(
            was_sent=was_sent,
            status=answer.status if answer is not None else 0,
            units=self.record.units,
            are_units_unreadable=self._are_units_unreadable,
            is_answered=self._is_answered,
            fal_id=self.record.fal_request_id,
        )
        self._write_cost(self._services.accounting.close(purchase, fate))

    def _write_cost(self, charge: Charge | None) -> None:
        if charge is not None:
            self.record.cost_source = charge.source
            if charge.cost_ns is not None:
                self.record.cost_usd = _usd(charge.cost_ns)
            if charge.is_unreadable:
                self._services.meter.note_unreadable_units(self.record)

    def _respond(self, length: int | None) -> None:
        """Begin the origin's answer; `length` of its content in bytes, None where it is not known."""
        answer = self._answer
        if answer is None:
            raise AssertionError("responded without an answer")
        self._responded = True
        self.record.status = answer.status
        own = (self._permit.lines if self._permit is not None else ()) + self._cost
        lines = self._services.replies.relayed(answer, own, request_id=self.record.request_id, page=self._page)
        self._caller.respond(answer.status, lines, length)
        self._rest(monotonic())

    def _reply(self, problem: Problem) -> None:
        """Answer with a refusal or an origin failure, whole."""
        record = self.record
        own = self._permit.lines if self._permit is not None else ()
        lines, content = self._services.replies.problem(problem, own, request_id=record.request_id, page=self._page)
        record.status = problem.status
        record.error_type = problem.error_type
        record.response_bytes = len(content)
        self._responded = True
        self._caller.respond(problem.status, lines, len(content))
        self._caller.send((content,), last=True)


@lru_cache(maxsize=_COSTS_KEPT)
def _usd(cost: int) -> Decimal:
    return Decimal(usd_text(cost))


@lru_cache(maxsize=_COSTS_KEPT)
def cost_lines(price_picodollars: int, units: Decimal) -> tuple[bytes, ...]:
    """Return the fields that tell a caller what its request cost, with their line ends; none for an absurd cost."""
    cost = cost_ns(units, price_picodollars)
    if cost > MOST_COST_NS:
        return ()
    usd = usd_text(cost).encode()
    return (b"x-gateway-cost-usd: %b\r\n" % usd, b"x-gateway-cost-source: exact\r\n")
