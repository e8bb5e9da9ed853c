"""One caller's HTTP/1.1 connection: requests in order, one exchange at a time.

Knows no policy: whoever takes an exchange is found through `Gate`. A request that comes while the one before is being
answered waits (pipeline.py), and the socket is not read meanwhile. The next one is not taken up while the caller is
behind with reading, or unread answers would fill the kernel. An answer that ends before its request ends the
connection, unless what is left of the request is small enough to swallow.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway.http.interfaces import Caller
from gateway.http.message import Fault, RequestHead
from gateway.ingress.framing import CONTINUE, SWALLOWED_BYTES, Framing, stays_in_step
from gateway.ingress.pipeline import PipelinedRequests
from gateway.ingress.presence import Presence
from gateway.ingress.reader import RequestReader
from gateway.ingress.timeouts import CallerTimeouts, Verdict, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.http.interfaces import Gate, Handler
    from gateway.ingress.stream import CallerStream

_LATE: Final = Fault("client_timeout", "The request did not come in time.")


class Connection(Caller):
    """The connection, and the caller of its present exchange."""

    def __init__(
        self,
        stream: CallerStream,
        gate: Gate,
        *,
        peer: str,
        patience: CallerTimeouts,
        on_closed: Callable[[Connection], None],
    ) -> None:
        self._stream = stream
        self._gate = gate
        self._on_closed = on_closed
        self._pipeline = PipelinedRequests(self)
        self._reader = RequestReader(self._pipeline, peer)
        self._watch = Watch(patience)
        self._presence = Presence(stream)
        self._has_ended = False  # the caller sends no more
        self._keeps_alive = True
        self.closing = False  # no request after this one
        self.was_admitted = False  # a request was admitted: the caller has a key, or needs none
        self._forget_exchange()

    def _forget_exchange(self) -> None:
        self._handler: Handler | None = None
        self._request: RequestHead | None = None
        self._request_whole = False
        self._waits_for_continue = False
        self._held = False  # the exchange wants no more content for now
        self._framing: Framing | None = None  # set with the answer's head
        self._answered = False  # the answer is whole

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return self._request is None and self._pipeline.is_empty

    @property
    def has_whole_request(self) -> bool:
        """Whether all of a request has come, and not yet gone all of its answer."""
        return self._request is not None and self._request_whole

    @property
    def waiting_since(self) -> float | None:
        """Since when it waits for a whole head, in monotonic seconds; None while anything else is under way."""
        return self._watch.since if self.is_idle and self._framing is None else None

    # -- from the socket (`StreamOwner`) ------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to read."""
        self._stream.start(self)

    def on_bytes(self, data: bytes) -> None:
        """Take what the caller sent."""
        now = monotonic()
        self._watch.received(len(data), now)
        if self._watch.lingers:
            return
        if self._request is None and not self._reader.in_head:
            self._watch.head_begins(now)
        fault = self._reader.feed(data, now)
        if fault is not None:
            self._pipeline.on_fault(fault)
        if not self._pipeline.is_empty:
            self._stream.pause_reading()

    def on_ended(self) -> None:
        """Take the end of what the caller sends: it has left, or has a whole request and may wait for the answer."""
        self._has_ended = True
        if self._request is None or not self._request_whole or self._watch.lingers:
            self._stream.lose()
        else:
            asyncio.get_running_loop().call_later(self._presence.ended(monotonic()), self._look_for_caller)

    def on_drained(self) -> None:
        """Go on where the caller was slow to read."""
        if self._answered:
            self._finish()
        elif self._handler is not None:
            self._handler.on_drained()

    def on_lost(self) -> None:
        """Tell the exchange that its caller has left; the stream is closed."""
        handler, self._handler = self._handler, None
        self._pipeline.clear()
        self._on_closed(self)
        if handler is not None and not self._answered:
            handler.on_broken(None)

    @property
    def _is_last(self) -> bool:
        """Whether no request can come behind the present one."""
        return self._has_ended and self._pipeline.is_empty

    # -- from the reader, through pipeline.py -------------------------------------------------------------------------

    def on_head(self, head: RequestHead, *, keeps_alive: bool) -> None:
        """Open an exchange."""
        self._keeps_alive = keeps_alive
        self._request = head
        self._waits_for_continue = head.expects_continue
        self._watch.began()
        handler = self._gate.open(head, self)
        if self._stream.is_closed and not self._answered:  # lost before the exchange could be told
            handler.on_broken(None)
        elif not self._answered:  # else its exchange is over, and a caller who leaves is nobody's concern
            self._handler = handler
            self.was_admitted = True

    def on_content(self, piece: bytes) -> None:
        """Pass content on; behind an answer it is swallowed."""
        if self._handler is not None and not self._answered:
            self._handler.on_content(piece)

    def on_end(self) -> None:
        """Note that the request is whole."""
        self._request_whole = True
        if self._answered:
            if not self._stream.falls_behind():
                self._finish()
        elif self._handler is not None:
            self._handler.on_end()

    def on_fault(self, fault: Fault) -> None:
        """Answer what is no request, or went wrong within one."""
        self.closing = True
        if self._answered:
            if not self._stream.falls_behind():
                self._finish()
        elif self._handler is not None:
            self._handler.on_broken(fault)
        else:
            self._gate.reject(fault, self)

    # -- from the exchange (`Caller`) ---------------------------------------------------------------------------------

    def falls_behind(self) -> bool:
        """Return whether the caller takes less than it is sent; then `on_drained` tells when to send more."""
        return self._stream.falls_behind()

    def hold_content(self) -> None:
        """Read no more of the request for now."""
        self._held = True
        self._stream.pause_reading()

    def resume_content(self) -> None:
        """Read the request again."""
        self._held = False
        if self._pipeline.is_empty:
            self._stream.resume_reading()

    def proceed(self) -> None:
        """Tell a caller that waits with its content to send it (RFC 9110 section 10.1.1)."""
        if self._waits_for_continue:
            self._waits_for_continue = False
            self._stream.send((CONTINUE,))

    def respond(self, status: int, lines: Sequence[bytes], length: int | None) -> None:
        """Begin an answer: field lines with their ends; `length` None where it is not known. Sent with what follows."""
        self._framing = Framing(status, lines, length, request=self._request, may_stay=self._may_stay())
        self.closing = self._framing.closes

    def _may_stay(self) -> bool:
        if self.closing or not self._keeps_alive or self._is_last:
            return False
        whole, waits = self._request_whole, self._waits_for_continue
        return stays_in_step(self._request, whole=whole, waits_for_continue=waits)

    def send(self, pieces: Sequence[bytes], *, last: bool) -> None:
        """Send the head if it is still here, content, and with `last` the end of the answer."""
        if self._framing is None:  # cut meanwhile
            return
        out = self._framing.framed(pieces)
        whole = not last or self._framing.end(out)
        self._stream.send(out)
        if not whole:
            self.cut()
        elif last:
            self._answered = True
            if not self._stream.falls_behind():
                self._finish()

    def cut(self) -> None:
        """Break off: the caller sees a reset and cannot take what it has for the whole."""
        self._handler = None
        self.abandon()

    # -- the end of an exchange -------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """The answer has gone out: go on with the next request, wait for the rest of this one, or close."""
        if self._stream.is_closed:
            return
        if self.closing or self._is_last:
            self._close()
        elif self._request_whole:
            self._next()
        else:
            self._watch.swallow(SWALLOWED_BYTES)
            self._stream.resume_reading()

    def _next(self) -> None:
        self._forget_exchange()
        self._watch.idle()
        if not self._pipeline.replay():  # answered at once: the replay goes on
            return
        if self._is_last and not self._request_whole:  # what came of it last is not all of it
            self._stream.lose()
        elif self._held or not self._pipeline.is_empty:
            self._stream.pause_reading()
        else:
            self._stream.resume_reading()

    def _close(self) -> None:
        """Close so that the caller can read the answer: a close with unread bytes would be a reset."""
        if self._request_whole and self._pipeline.is_empty:
            self.close()
            return
        self._pipeline.clear()
        self._handler = None
        self._watch.linger()
        self._stream.finish_sending()
        self._stream.resume_reading()

    def close(self) -> None:
        """Close now."""
        self._pipeline.clear()
        self._stream.close()
        self._on_closed(self)

    # -- looked at twice a second -------------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Act on what takes too long, and on a caller who has left unseen; `now` in monotonic seconds."""
        verdict = self._judge(now)
        if verdict is Verdict.CLOSE:
            self.close()
        elif verdict is Verdict.LATE and self._framing is None:
            self._pipeline.on_fault(_LATE)
        elif verdict is not Verdict.FINE:
            self.abandon()
        else:
            self._look_for_caller()

    def _look_for_caller(self) -> None:
        """Find out whether one that sends no more has left."""
        request = self._request
        if self._handler is not None and not self._stream.is_closed:
            self._presence.look(may_probe=self._framing is None and request is not None and not request.is_http_10)

    def _judge(self, now: float) -> Verdict:
        if self._stream.backlog or self._stream.waits:
            return self._watch.sending(now, progress=self._stream.acknowledged)
        if self._request is None or self._answered:
            return self._watch.resting(now, in_head=self._reader.in_head)
        if not self._request_whole:
            return self._watch.uploading(now, held=self._held or self._waits_for_continue)
        return Verdict.FINE

    def abandon(self) -> None:
        """Cut, and tell the exchange that its caller is gone."""
        self._stream.reset()
        self.on_lost()
