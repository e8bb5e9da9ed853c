"""One request on its way through libcurl, without libcurl: bounded queues both ways and the phase it is in.

Callbacks out of libcurl end here: they append and mark, and the engine tells the exchange afterwards.
Content towards the origin is queued between two marks; content from the origin is gathered within one turn of the
engine, bounded by a window, then told in one batch.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.upstream.interface import Answer, OriginFailure, Request
    from gateway.upstream.transfers import Engine

HIGH_MARK_BYTES: Final = 262_144
LOW_MARK_BYTES: Final = 65_536
WINDOW_BYTES: Final = 262_144
"""What one turn takes from the origin before it stops, and libcurl in one read (handle.py).

Larger windows cost memory for callers on slow links, smaller ones time: 64 KiB carry two thirds as much per CPU-second.
"""

_HALF_WINDOW_BYTES: Final = WINDOW_BYTES // 2
PIECE_BYTES: Final = 16_384
"""CURL_MAX_WRITE_SIZE: a smaller piece ends a read, and a pause there leaves nothing behind in libcurl."""

_PAUSE_RECV: Final = 1  # CURLPAUSE_RECV
_PAUSE_SEND: Final = 4  # CURLPAUSE_SEND
_SWITCHING_PROTOCOLS: Final = 101
_FINAL_FROM: Final = 200
_MOST_TRAILER_BYTES: Final = 65_536


class Transfer:
    """State of one request; `Transfer` of the seam (interface.py)."""

    __slots__ = (
        "_clock",
        "_engine",
        "_lines",
        "_trailer_bytes",
        "active",
        "answer",
        "attempted",
        "choked",
        "dirty",
        "failure",
        "full",
        "given",
        "head",
        "head_told",
        "held",
        "pieces",
        "queue",
        "queued",
        "received",
        "request",
        "retried",
        "room",
        "send_paused",
        "stale",
        "touched",
        "upload_whole",
        "whole",
        "window",
    )

    def __init__(self, engine: Engine, request: Request, answer: Answer) -> None:
        self._engine = engine
        self._clock = engine.clock
        self.request = request
        self.answer = answer
        self.active = True  # False once it was ended by either side
        self.retried = False
        self.queue: deque[bytes | memoryview] = deque()
        self.queued = 0  # bytes in the queue
        self.upload_whole = request.content is not None or request.length is None
        self.choked = False  # the producer was asked to stop
        self.dirty = False
        self.restart(0.0)

    def restart(self, now: float) -> None:
        """Forget what an attempt left behind; `now` in monotonic seconds."""
        self.attempted = False  # the head was handed to the socket: the origin may execute from here on
        self.stale = False  # the pooled connection was found closed before anything was sent
        self.given = 0  # content bytes given to libcurl
        self.send_paused = False  # nothing to give: libcurl waits for us
        self.held = False  # the exchange wants no more for now
        self.full = False  # this turn's window is full
        self._lines: list[bytes] = []
        self._trailer_bytes = 0
        self.head: tuple[int, list[bytes]] | None = None
        self.head_told = False
        self.pieces: list[bytes] = []
        self.window = 0
        self.received = 0  # content bytes taken from libcurl
        self.whole = False
        self.room = False
        self.failure: OriginFailure | None = None
        self.touched = now  # when the origin last took or gave something

    # -- the exchange's side ---------------------------------------------------------------------------------------

    def feed(self, piece: bytes) -> bool:
        """Queue request content; False asks to stop until `on_room`."""
        if not self.active or not piece:  # nothing would be taken for the end
            return True
        self.queue.append(piece)
        self.queued += len(piece)
        self._wake_sender()
        self.choked = self.queued >= HIGH_MARK_BYTES
        return not self.choked

    def feed_end(self) -> None:
        """Say that the request content is whole."""
        self.upload_whole = True
        if self.active:
            self._wake_sender()

    def hold(self) -> None:
        """Take no more from the origin for now."""
        if self.active and not self.held:
            self.held = True
            self._engine.repause(self)

    def resume(self) -> None:
        """Take from the origin again."""
        if self.active and self.held:
            self.held = False
            self.touched = self._clock.now  # up to here it was the caller's time
            self._engine.repause(self)

    def abort(self) -> None:
        """End it at once; nothing more is told."""
        if self.active:
            self.active = False
            self.queue.clear()
            self._engine.drop(self)

    def _wake_sender(self) -> None:
        if self.send_paused:
            self.send_paused = False
            self.touched = self._clock.now
            self._engine.repause(self)

    # -- libcurl's side --------------------------------------------------------------------------------------------

    @property
    def pauses(self) -> int:
        """Return the whole wanted mask for libcurl's pause(): it takes a direction that is not named as resumed."""
        return (_PAUSE_SEND if self.send_paused else 0) | (_PAUSE_RECV if self.held or self.full else 0)

    @property
    def sent_whole(self) -> bool:
        """Whether the request was handed over to its last byte (libcurl does not always ask for it)."""
        if not self.attempted:
            return False
        if self.request.length is None or self.request.content is not None:
            return True
        return self.upload_whole and not self.queue

    def take(self, most: int) -> bytes | memoryview | None:
        """Return at most `most` bytes of content for the origin, b"" at the end, None where it has to wait."""
        self.touched = self._clock.now
        if not self.queue:
            if self.upload_whole:
                return b""
            self.send_paused = True
            return None
        piece = self.queue.popleft()
        if len(piece) > most:
            self.queue.appendleft(memoryview(piece)[most:])
            piece = piece[:most]
        self.queued -= len(piece)
        self.given += len(piece)
        if self.choked and self.queued <= LOW_MARK_BYTES:
            self.choked = False
            self.room = True
            self._engine.changed(self)
        return piece

    def put_line(self, line: bytes) -> bool:
        """Take a line of the origin's head, its end included; False where it is no head that may be passed on.

        Interim heads (1xx) and trailers are dropped, and are no progress: an origin that sends nothing else is silent.
        """
        if self.head is not None:
            self._trailer_bytes += len(line)
            return self._trailer_bytes <= _MOST_TRAILER_BYTES
        if line not in (b"\r\n", b"\n"):
            self._lines.append(line)
            return True
        lines, self._lines = self._lines, []
        status = _status_of(lines)
        if 100 <= status < _FINAL_FROM and status != _SWITCHING_PROTOCOLS:  # noqa: PLR2004 (RFC 9110 section 15.2)
            return True
        if not _FINAL_FROM <= status <= 599:  # noqa: PLR2004 (section 15; 101 was not asked for)
            return False
        self.touched = self._clock.now
        self.head = (status, lines[1:])
        self._engine.changed(self)
        return True

    def put(self, piece: bytes) -> bool:
        """Keep content of the origin's for this turn; True asks to stop reading."""
        self.touched = self._clock.now
        self.pieces.append(piece)
        self.window += len(piece)
        self.received += len(piece)
        if not self.dirty:
            self._engine.changed(self)
        if self.full or self.window < (WINDOW_BYTES if len(piece) == PIECE_BYTES else _HALF_WINDOW_BYTES):
            return False
        self.full = True
        return True

    def tell(self) -> None:
        """Tell the exchange what has come since the last time. The engine calls this outside of libcurl."""
        self.dirty = False
        if self.room:
            self.room = False
            self.answer.on_room()
        if self.active and (self.whole or self.pieces or (self.head is not None and not self.head_told)):
            self._tell_answer()
        if self.active and self.failure is not None:
            self.active = False
            self.answer.on_failure(self.failure)

    def _tell_answer(self) -> None:
        head = None if self.head_told else self.head
        self.head_told = True
        pieces, self.pieces, self.window = self.pieces, [], 0
        self.active = not self.whole
        self.answer.on_answer(head, pieces, whole=self.whole)
        if self.full:
            self.full = False
            if self.active and not self.held:
                self._engine.repause(self)


def _status_of(lines: list[bytes]) -> int:
    """Return the status in a head's first line (`HTTP/1.1 200 OK`), 0 where there is none."""
    words = lines[0].split(None, 2) if lines else []
    return int(words[1]) if len(words) > 1 and len(words[1]) == 3 and words[1].isdigit() else 0  # noqa: PLR2004
