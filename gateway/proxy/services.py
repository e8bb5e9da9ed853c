"""What every exchange of one worker works with, put together by the composition root, once for each policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from gateway.http.problem import Problem
from gateway.money.usage_page import account_of
from gateway.policy.address import caller_address
from gateway.policy.credential import CREDENTIAL_INVALID
from gateway.policy.job import submitted_id
from gateway.upstream.interface import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.fal.credential import Sender
    from gateway.http.fields import CallerFields, OriginFields
    from gateway.http.message import RequestHead
    from gateway.http.responses import Replies
    from gateway.limits.limiter import Limiter
    from gateway.limits.permit import Permit
    from gateway.money.accounting import Accounting
    from gateway.money.purchase import Purchase
    from gateway.policy.address import Network
    from gateway.policy.job import FindJob
    from gateway.proxy.authorization import Admission, Authorizer
    from gateway.telemetry.metrics.meter import Meter
    from gateway.telemetry.record import ExchangeRecord
    from gateway.upstream.interface import Upstream

_NO_SUCCESS_FROM: Final = 300
_UNCODED: Final = b"accept-encoding: identity"


class Cancellable(Protocol):
    """A call to come that can be called off."""

    def cancel(self) -> None:
        """Call it off."""


class Services:
    """The parts; a plain class, since each request looks into it a dozen times.

    `origins` maps a host to the base URL to connect to in its place. `trusted_proxies` are believed about addresses.
    `find_job` None: no one is asked for a job that is not in this gateway's table.
    `later(seconds, call)` calls back. `wall` gives seconds since the epoch.
    """

    def __init__(  # noqa: PLR0913 (put together in one place, by name)
        self,
        *,
        authorizer: Authorizer,
        upstream: Upstream,
        meter: Meter,
        to_origin: OriginFields,
        sender: Sender,
        to_caller: CallerFields,
        replies: Replies,
        origins: Mapping[str, str],
        accounting: Accounting,
        find_job: FindJob | None,
        statement: Callable[[], Mapping[str, Any]],
        limiter: Limiter,
        trusted_proxies: Sequence[Network],
        later: Callable[[float, Callable[[], None]], Cancellable],
        wall: Callable[[], float],
    ) -> None:
        self.authorizer: Final = authorizer
        self.upstream: Final = upstream
        self.meter: Final = meter
        self.to_origin: Final = to_origin
        self.sender: Final = sender
        self.to_caller: Final = to_caller
        self.replies: Final = replies
        self.origins: Final = origins
        self.accounting: Final = accounting
        self.find_job: Final = find_job
        self.statement: Final = statement
        self.limiter: Final = limiter
        self.trusted_proxies: Final = trusted_proxies
        self.later: Final = later
        self.wall: Final = wall

    def judged(self, problem: Problem | None, head: RequestHead) -> Problem | None:
        """Return why a head is refused; guesses at keys are limited by address, and no valid key with them."""
        if problem is CREDENTIAL_INVALID:
            return self.limiter.miss(self.address_of(head)) or problem
        return problem

    def account(self, head: RequestHead, record: ExchangeRecord) -> bytes | Problem:
        """Return what the holder of a key may read of itself, as JSON; the record learns whose key it is."""
        who = self.authorizer.identify(head, now=self.wall())
        if isinstance(who, Problem):
            return self.judged(who, head) or who
        record.key, record.team = who.key, who.team
        counted_by = self.address_of(head) if who.by_address else who.key
        return self.limiter.read_account(counted_by) or account_of(who, self.statement())

    def enter(
        self, admission: Admission, request_id: str, purchase: Purchase | None, told: Callable[[], None]
    ) -> Permit:
        """Return the permit of an admitted request; where it waits, `told` is called when that is over."""
        principal, call = admission.principal, admission.call
        if principal is None or call is None:
            raise AssertionError("entered without an admission")
        limits = principal.paid if call.billing == "paid" else principal.free
        address = self.address_of(admission.head) if principal.by_address and limits.limits else ""
        hold = purchase.hold if purchase is not None else None
        return self.limiter.enter(principal, limits, lease=request_id, address=address, hold=hold, told=told)

    def address_of(self, head: RequestHead) -> str:
        """Return the address that a request is counted by."""
        return caller_address(head.peer, head.fields, self.trusted_proxies)

    def bind(self, purchase: Purchase, status: int, content: Sequence[bytes], known: Callable[[], None]) -> bool:
        """Read a whole answer: a submit's request id is bound to who paid for it.

        Returns whether `known` is called, once other gateways know it, or cannot be told now.
        """
        if purchase.call.action != "submit" or status >= _NO_SUCCESS_FROM:
            return False
        job_id = submitted_id(b"".join(content))
        return job_id is not None and self.accounting.bind(purchase, job_id, known)

    def forward(
        self, head: RequestHead, admission: Admission, *, length: int | None, content: bytes | None, paid: bool
    ) -> Request:
        """Return what is sent to the origin for an admitted request; see upstream/interface.py for length and content.

        The answer to a submit must be readable here (`bind`), so the caller does not decide how it is coded.
        """
        target, principal, call = admission.target, admission.principal, admission.call
        if target is None or principal is None or call is None:
            raise AssertionError("forwarded without an admission")
        lines = self.to_origin.lines(head.fields)
        if call.action == "submit":
            lines = [line for line in lines if not line.startswith(b"accept-encoding")]
            lines.append(_UNCODED)
        lines = self.sender.sign(lines, team=principal.team, key=principal.key)
        base = self.origins.get(target.host)
        url = target.url
        if base is not None:
            url = f"{base}{target.path}{target.query}"
            lines.append(b"host: " + target.host.encode())
        repeatable = head.method == "GET" and not paid and length is None
        return Request(head.method, url, lines, length, content, repeatable=repeatable)
