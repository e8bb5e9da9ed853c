"""A request's whole way: admitted or refused, relayed both ways, ended once, counted and logged once.

Read `Exchange.begin` first. Everything is a callback, from the caller's side (`on_content` ... `on_broken`) or from the
origin's (`on_answer` ...), so that a small request costs no task, no Future and no timer. Either side may end while the
other is being told, hence the looks at `record.closed` behind calls that write.

The decisions about money live here. fal bills a synchronous run even if nobody receives the answer, and its clients
repeat whatever looks like a broken connection (PROTOCOL 3), so a paid JSON answer is held until it is whole, a paid
request that may have been executed ends as 500, and a caller who leaves does not stop a paid run.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway.admission import LONGEST_TOKEN_REQUEST_BYTES, Admission, too_large
from gateway.delivery import Delivery
from gateway.protocol.problem import Problem, origin_problem, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.desk import Cancellable, Desk
    from gateway.metering.meter import Exchanged, Outcome
    from gateway.protocol.caller import Caller
    from gateway.protocol.message import Fault
    from gateway.relay.upstream import OriginFailure, Transfer

SMALL_BYTES: Final = 65_536  # content up to here is gathered and sent in one piece
HELD_BYTES: Final = 262_144
READ_ON_BYTES: Final = 64 * 1024 * 1024
READ_ON_SECONDS: Final = 300.0


class Exchange(Delivery):
    """One request between its caller and the origin (`Handler` of the ingress, `Answer` of the relay)."""

    def __init__(
        self,
        desk: Desk,
        admission: Admission,
        caller: Caller,
        *,
        record: Exchanged,
        ended: Callable[[Exchange], None],
    ) -> None:
        super().__init__(desk, admission.head, caller, record=record)
        self._ended = ended
        self._admission = admission
        self._kept: list[bytes] = []  # content, until it may be sent, or to be sent in one piece
        self._most_bytes = 0
        self._request_whole = False
        self._is_sent = False  # to the origin, or begun to be
        self._transfer: Transfer | None = None
        self._held: list[bytes] | None = None  # a paid JSON answer, until it is whole
        self._gone = False  # the caller has left; the answer is read on for its units
        self._patience: Cancellable | None = None

    # -- the request ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Take an admitted request; content that may be refused is looked at before anything is taken for it."""
        admission, door = self._admission, self._desk.door
        call, principal = admission.call, admission.principal
        if call is None or principal is None:
            raise AssertionError("begun without an admission")
        self._paid = call.billing == "paid"
        self._most_bytes = door.most_bytes(principal)
        if door.checks_apps(admission):
            self._most_bytes = min(self._most_bytes, LONGEST_TOKEN_REQUEST_BYTES)
            self._caller.proceed()
        else:
            self._enter()

    def _enter(self) -> None:
        ticket = self._ticket = self._desk.enter(self._admission, self.record.request_id, self._on_turn)
        if ticket.waits:
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
        problem = self._ticket.problem if self._ticket is not None else None
        if problem is not None:
            self.give_up(problem, "refused")
        elif self._request_whole:
            self._open_whole()
        else:
            length = self._request.length
            if length is not None and not 0 <= length <= SMALL_BYTES:
                self._open(length, None)
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
        if self._ticket is not None and self._ticket.counts_bytes:
            self._ticket.count(len(piece))
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
        if self._ticket is None:  # a token request, which its content decides about
            problem = self._desk.door.admit_apps(self._admission, b"".join(self._kept))
            if problem is not None:
                self.give_up(problem, "refused")
            else:
                self._enter()
        elif not self._ticket.waits:
            self._open_whole()

    def _open_whole(self) -> None:
        if self._request.length is None and self._request.method not in ("POST", "PUT"):
            self._open(None, None)
            return
        content = b"".join(self._kept)  # these methods say their length, also when there is none
        self._kept = []
        if self._ticket is not None and self._ticket.counts_bytes:
            self._ticket.count(len(content))
        self._open(len(content), content)

    def on_room(self) -> None:
        """The origin has taken what was queued."""
        if not self.record.closed:
            self._caller.resume_content()

    def _open(self, length: int | None, content: bytes | None) -> None:
        forwarded = self._desk.forward(self._request, self._admission, length=length, content=content, paid=self._paid)
        self._is_sent = True
        self._transfer = self._desk.upstream.open(forwarded, self)
        self._rest()

    # -- the answer -------------------------------------------------------------------------------------------------

    def on_answer(self, head: tuple[int, list[bytes]] | None, pieces: Sequence[bytes], *, whole: bool) -> None:
        """Take what came from the origin."""
        if not self._responded:
            self._busy_since = monotonic()
        if head is not None:
            self._on_head(*head)
        if self._gone:
            self._read_on(pieces, whole=whole)
        elif self._held is not None:
            self._hold(pieces, whole=whole)
        else:
            self._send(pieces, whole=whole)

    def _on_head(self, status: int, raw: list[bytes]) -> None:
        answer = self._note_head(status, raw)
        if self._gone:
            return
        if self._paid and answer.content_type.startswith(b"application/json") and (answer.length or 0) <= HELD_BYTES:
            self._held = []
        else:
            self._respond(answer.length)

    def _hold(self, pieces: Sequence[bytes], *, whole: bool) -> None:
        held = self._held or []
        held.extend(pieces)
        size = sum(map(len, held))
        if not whole and size <= HELD_BYTES:
            self._held = held
            return
        self._held = None
        has_content = self._answer is not None and (size > 0 or self._answer.length == 0)
        self._respond(size if whole and has_content else self._answer.length if self._answer else None)
        if whole:
            self._desk.note_answer(self._admission, self.record.status, held)
        self._send(held, whole=whole)

    def _send(self, pieces: Sequence[bytes], *, whole: bool) -> None:
        self.record.response_bytes += sum(map(len, pieces))
        if whole:
            self._transfer = None
        self._caller.send(pieces, last=whole)
        if whole:
            self._close("ok")
        elif self._caller.falls_behind() and self._transfer is not None and not self._gone:
            self._transfer.hold()

    def on_drained(self) -> None:
        """The caller has taken everything: go on reading from the origin."""
        if self._transfer is not None:
            self._transfer.resume()

    # -- ends -------------------------------------------------------------------------------------------------------

    def on_failure(self, failure: OriginFailure) -> None:
        """Take the origin's fault."""
        self._transfer = None
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
            self._held = None
            self._patience = self._desk.later(READ_ON_SECONDS, self._let_go)
            self._transfer.resume()
        else:
            self._let_go()

    def _read_on(self, pieces: Sequence[bytes], *, whole: bool) -> None:
        """Take a paid answer that nobody waits for any more, for its head and within bounds."""
        self.record.response_bytes += sum(map(len, pieces))
        if whole or self.record.response_bytes > READ_ON_BYTES:
            self._let_go()

    def _let_go(self) -> None:
        self._drop_transfer()
        self._close("client_gone")

    def stop(self, stopped: Problem, lost: Problem) -> None:
        """End what has not run out when the gateway stops; `lost` is told where the answer may have been paid for."""
        if self._gone:
            self._let_go()
        elif self._paid and self._transfer is not None:
            self.give_up(lost, "gateway_failed")
        else:
            self.give_up(stopped, "refused")

    def give_up(self, problem: Problem, outcome: Outcome) -> None:
        """End a request that went wrong: the clean answer of CONTRACT 4 while it can still be given, else a cut."""
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
        record.outcome = outcome
        record.duration_seconds = monotonic() - self._request.received_at
        self._desk.meter.close(record)
        if self._ticket is not None:
            self._ticket.end(used=self._is_sent)
        self._ended(self)
