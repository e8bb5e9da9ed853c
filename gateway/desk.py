"""What every exchange of one worker works with, put together by the composition root, once for each policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from gateway.policy.address import caller_address
from gateway.policy.credential import CREDENTIAL_INVALID
from gateway.policy.job import Job, submitted_id
from gateway.relay.upstream import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.admission import Admission, Door
    from gateway.metering.meter import Meter
    from gateway.policy.address import Network
    from gateway.protocol.fields import CallerFields, OriginFields
    from gateway.protocol.message import RequestHead
    from gateway.protocol.problem import Problem
    from gateway.protocol.reply import Replies
    from gateway.protocol.sender import Sender
    from gateway.relay.upstream import Upstream
    from gateway.turnstile import Ticket, Turnstile

_SUBMITTED: Final = 200


class Cancellable(Protocol):
    """A call to come that can be called off."""

    def cancel(self) -> None:
        """Call it off."""


class Desk:
    """The parts; a plain class, since each request looks into it a dozen times.

    `origins` maps a host to the base URL to connect to in its place. `remember_job` binds a queue request id to its
    submitter. `trusted_proxies` are believed about addresses. `later(seconds, call)` calls back. `wall` gives seconds
    since the epoch.
    """

    def __init__(  # noqa: PLR0913 (put together in one place, by name)
        self,
        *,
        door: Door,
        upstream: Upstream,
        meter: Meter,
        to_origin: OriginFields,
        sender: Sender,
        to_caller: CallerFields,
        replies: Replies,
        origins: Mapping[str, str],
        remember_job: Callable[[str, Job], None],
        turnstile: Turnstile,
        trusted_proxies: Sequence[Network],
        later: Callable[[float, Callable[[], None]], Cancellable],
        wall: Callable[[], float],
    ) -> None:
        self.door: Final = door
        self.upstream: Final = upstream
        self.meter: Final = meter
        self.to_origin: Final = to_origin
        self.sender: Final = sender
        self.to_caller: Final = to_caller
        self.replies: Final = replies
        self.origins: Final = origins
        self.remember_job: Final = remember_job
        self.turnstile: Final = turnstile
        self.trusted_proxies: Final = trusted_proxies
        self.later: Final = later
        self.wall: Final = wall

    def judged(self, admission: Admission) -> Problem | None:
        """Return an admission's problem; guesses at keys are limited by address, and no valid key with them."""
        problem = admission.problem
        if problem is CREDENTIAL_INVALID:
            return self.turnstile.miss(self.address_of(admission.head)) or problem
        return problem

    def enter(self, admission: Admission, request_id: str, told: Callable[[], None]) -> Ticket:
        """Return the ticket of an admitted request; where it waits, `told` is called when that is over."""
        principal, call = admission.principal, admission.call
        if principal is None or call is None:
            raise AssertionError("entered without an admission")
        limits = principal.paid if call.billing == "paid" else principal.free
        address = self.address_of(admission.head) if principal.by_address and limits.limits else ""
        return self.turnstile.enter(principal, limits, lease=request_id, address=address, told=told)

    def address_of(self, head: RequestHead) -> str:
        """Return the address that a request is counted by."""
        return caller_address(head.peer, head.fields, self.trusted_proxies)

    def note_answer(self, admission: Admission, status: int, content: Sequence[bytes]) -> None:
        """Read what a whole JSON answer says about later requests: a submit's request id, bound to who paid."""
        call, principal = admission.call, admission.principal
        if call is None or principal is None or call.action != "submit" or status != _SUBMITTED:
            return
        job_id = submitted_id(b"".join(content))
        if job_id is not None:
            self.remember_job(job_id, Job(principal.team, principal.key, call.endpoint))

    def forward(
        self, head: RequestHead, admission: Admission, *, length: int | None, content: bytes | None, paid: bool
    ) -> Request:
        """Return what is sent to the origin for an admitted request; see relay/upstream.py for length and content."""
        target, principal = admission.target, admission.principal
        if target is None or principal is None:
            raise AssertionError("forwarded without an admission")
        lines = self.sender.sign(self.to_origin.lines(head.fields), team=principal.team, key=principal.key)
        base = self.origins.get(target.host)
        url = target.url
        if base is not None:
            url = f"{base}{target.path}{target.query}"
            lines.append(b"host: " + target.host.encode())
        repeatable = head.method == "GET" and not paid and length is None
        return Request(head.method, url, lines, length, content, repeatable=repeatable)
