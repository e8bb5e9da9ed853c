"""A request's whole way: admitted or refused, relayed both ways, ended once, counted and logged once.

Read `Intake.begin` first (upload.py). Everything is a callback, from the caller's side (`on_content` ... `on_broken`)
or from the origin's (`on_answer` ...), so that a small request costs no task, no Future and no timer. Either side may
end while the other is being told, hence the looks at `record.closed` behind calls that write.

The decisions about money live here. fal bills a synchronous run even if nobody receives the answer, and its clients
repeat whatever looks like a broken connection, so a paid JSON answer is held until it is whole, a paid
request that may have been executed ends as 500, and a caller who leaves does not stop a paid run.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway.fal.refusals import FIRST_REFUSED, UNAUTHORIZED, UPSTREAM_UNAUTHORIZED, Refused, refused
from gateway.http.problem import Problem, origin_problem, refusal
from gateway.proxy.upload import Intake

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.http.interfaces import Caller
    from gateway.http.message import Fault
    from gateway.proxy.authorization import Admission
    from gateway.proxy.capacity import Capacity
    from gateway.proxy.services import Cancellable, Services
    from gateway.telemetry.record import ExchangeRecord, Outcome
    from gateway.upstream.interface import OriginFailure

HELD_BYTES: Final = 262_144
READ_ON_BYTES: Final = 64 * 1024 * 1024
READ_ON_SECONDS: Final = 300.0
_NO_SUCCESS_FROM: Final = 300
_LONG_SUBMIT: Final = origin_problem(
    "origin_failed",
    f"The origin's answer to a submit is longer than {HELD_BYTES} bytes, so its job is not known.",
    paid=True,
)


class Exchange(Intake):
    """One request between its caller and the origin (`Handler` of the ingress, `Answer` of the relay)."""

    def __init__(
        self,
        services: Services,
        admission: Admission,
        caller: Caller,
        *,
        record: ExchangeRecord,
        capacity: Capacity,
    ) -> None:
        super().__init__(services, admission, caller, record=record)
        self._capacity = capacity
        self._is_unsent = False  # the origin's fault came before it was sent
        self._held: list[bytes] | None = None  # a paid JSON answer, until it is whole
        self._held_bytes = 0
        self._is_binding = False  # it names a job, of which other gateways are being told
        self._is_whole = False  # it has ended, while they are
        self._refused: Refused | None = None  # fal will not serve us
        self._patience: Cancellable | None = None

    def _answer_to(self) -> Exchange:
        return self

    # -- the answer -------------------------------------------------------------------------------------------------

    def on_answer(self, head: tuple[int, list[bytes]] | None, pieces: Sequence[bytes], *, whole: bool) -> None:
        """Take what came from the origin."""
        if not self._responded:
            self._busy_since = monotonic()
        if head is not None:
            self._on_head(*head)
            if self.record.closed:
                return
        if self._refused is not None:
            self._refused.take(pieces)
        if self._is_binding:
            self._end_held(whole=whole)
        elif self._gone:
            self._read_on(pieces, whole=whole)
        elif self._held is not None:
            self._hold(pieces, whole=whole)
        else:
            self._send(pieces, whole=whole)

    def _on_head(self, status: int, raw: list[bytes]) -> None:
        answer = self._note_head(status, raw, self._admission)
        if status >= FIRST_REFUSED:
            self._refused = refused(status)
            if status == UNAUTHORIZED:
                self._on_unauthorized()
                return
        if self._paid and (answer.is_json or self._is_submit()) and (answer.length or 0) <= HELD_BYTES:
            self._held = []
        elif self._is_submit() and status < _NO_SUCCESS_FROM and not self._gone:
            self.give_up(_LONG_SUBMIT, "origin_failed")
        elif not self._gone:
            self._respond(answer.length)

    def _is_submit(self) -> bool:
        """Say whether the answer names a job, whatever it calls itself."""
        return self._purchase is not None and self._purchase.call.action == "submit"

    def _on_unauthorized(self) -> None:
        """End a request that fal refused for the credential that the gateway sent with it."""
        self.record.error_type = UPSTREAM_UNAUTHORIZED.error_type
        if self._gone:
            self.let_go()
        else:
            self.give_up(UPSTREAM_UNAUTHORIZED, "origin_failed")

    def _hold(self, pieces: Sequence[bytes], *, whole: bool) -> None:
        held = self._held or []
        held.extend(pieces)
        size = self._held_bytes = self._held_bytes + sum(map(len, pieces))
        announced = self._answer.length if self._answer is not None else None
        has_all = whole or (size == announced and size > 0)  # the upload may go on all the same
        if not has_all and size <= HELD_BYTES:
            self._held = held
            return
        self._held = held
        status = self._answer.status if self._answer is not None else 0
        if not has_all and self._is_submit() and status < _NO_SUCCESS_FROM:
            self.give_up(_LONG_SUBMIT, "origin_failed")
            return
        if has_all and self._purchase is not None:
            self._is_binding = self._services.bind(self._purchase, status, held, self._on_bound)
        self._end_held(whole=whole)
        if not self._is_binding:
            self._send_held()

    def _end_held(self, *, whole: bool) -> None:
        """Note whether the origin has nothing more to send."""
        self._is_whole = whole
        if whole:
            self._transfer = None
            self._is_answered = True

    def _on_bound(self) -> None:
        """Go on with the answer to a submit: every gateway can say whose job it is."""
        self._is_binding = False
        if self.record.closed:
            return
        if self._gone:
            self.let_go()
        else:
            self._send_held()

    def _send_held(self) -> None:
        """Send an answer that was held, with its length, where that is known by now."""
        held, self._held = self._held or [], None
        size = self._held_bytes
        announced = self._answer.length if self._answer is not None else None
        self._respond(size if self._is_whole and (size > 0 or announced == 0) else announced)
        self._send(held, whole=self._is_whole)

    def _send(self, pieces: Sequence[bytes], *, whole: bool) -> None:
        self.record.response_bytes += sum(map(len, pieces))
        if whole:
            self._transfer = None
            self._is_answered = True
        self._caller.send(pieces, last=whole)
        if whole:
            self._close("ok")
        elif self._caller.falls_behind() and self._transfer is not None and not self._gone:
            self._transfer.hold()

    def _has_all_content(self) -> bool:
        """Say whether as much of an answer has come as its head announced."""
        if self._answer is None or self._answer.length is None:
            return False
        return self._answer.length == (self.record.response_bytes if self._held is None else self._held_bytes)

    def on_drained(self) -> None:
        """The caller has taken everything: go on reading from the origin."""
        if self._transfer is not None:
            self._transfer.resume()

    # -- ends -------------------------------------------------------------------------------------------------------

    def on_failure(self, failure: OriginFailure) -> None:
        """Take the origin's fault."""
        if failure.error_type != "gateway_error" and self._has_all_content():
            self.on_answer(None, (), whole=True)  # it came before the upload had ended, which broke or stood still then
            return
        self._transfer = None
        self._is_unsent = not failure.sent
        problem = origin_problem(failure.error_type, failure.detail, paid=self._paid)
        self.record.error_type = problem.error_type
        if self._gone:
            self._close("client_gone")
        else:
            self.give_up(problem, "gateway_failed" if problem.error_type == "gateway_error" else "origin_failed")

    def on_broken(self, fault: Fault | None) -> None:
        """Take the caller's leaving (None), or the end of a request that went wrong."""
        if self.record.closed or self._gone:
            return
        if fault is not None:
            self.give_up(refusal(fault.error_type, fault.detail), "refused")
        elif self._transfer is None:
            self._close("client_gone")
        elif self._paid and self._request_whole:
            self._gone = True
            self._patience = self._services.later(READ_ON_SECONDS, self.let_go)
            self._transfer.resume()
            self._capacity.leave(self)
        else:
            self.let_go()

    def _read_on(self, pieces: Sequence[bytes], *, whole: bool) -> None:
        """Take a paid answer that nobody waits for any more, within bounds: for its units, and for a job's id."""
        self.record.response_bytes += sum(map(len, pieces))
        if self._held is not None and self.record.response_bytes <= HELD_BYTES:
            self._held.extend(pieces)
            self._held_bytes += sum(map(len, pieces))
        if whole:
            self._is_answered = True
            if self._purchase is not None and self._held is not None and self._answer is not None:
                self._services.bind(self._purchase, self._answer.status, self._held, _nothing)
        if whole or self.record.response_bytes > READ_ON_BYTES:
            self.let_go()

    def let_go(self) -> None:
        """End it behind a caller who has left, without the rest of the answer."""
        self._drop_transfer()
        self._close("client_gone")

    def stop(self, stopped: Problem, lost: Problem) -> None:
        """End what has not run out when the gateway stops; `lost` is told where the answer may have been paid for."""
        if self._is_binding:
            self._on_bound()
        if self.record.closed:
            return
        if self._gone:
            self.let_go()
        elif self._paid and self._transfer is not None:
            self.give_up(lost, "gateway_failed")
        else:
            self.give_up(stopped, "refused")

    def give_up(self, problem: Problem, outcome: Outcome) -> None:
        """End a request that went wrong: a clean answer while it can still be given, else a cut."""
        self._drop_transfer()
        if self._responded:
            self.record.error_type = problem.error_type
            self._caller.cut()
            self._close("cut")
        else:
            self._reply(problem)
            self._close(outcome)

    def refuse(self, problem: Problem) -> None:
        """Answer with a refusal."""
        self._reply(problem)
        self._close("refused")

    def _drop_transfer(self) -> None:
        transfer, self._transfer = self._transfer, None
        if transfer is not None:
            transfer.abort()

    def _close(self, outcome: Outcome) -> None:
        record = self.record
        if record.closed:
            return
        if self._patience is not None:
            self._patience.cancel()
        if self._purchase is not None:
            self._account(self._purchase, was_sent=self._is_sent and self._request_whole and not self._is_unsent)
        if self._refused is not None:
            self._services.meter.count_upstream_refusal(self._refused.reason)
        record.outcome = outcome
        record.duration_seconds = monotonic() - self._request.received_at
        self._services.meter.close(record)
        if self._permit is not None:
            self._permit.end(used=self._is_sent)
        self._capacity.end(self)


def _nothing() -> None:
    """Do nothing: the caller has left, so no answer waits."""
