"""Whether a caller that sends no more still reads its answer.

The end of a caller's sending half (FIN) says either that it has left, or that it has nothing more to send and waits for
the answer (`shutdown(SHUT_WR)`, as `nc -N` does); TCP does not tell the two apart. The decision: ask. While the
answer has not begun, a `100 Continue` is sent, which a caller has to skip wherever it comes (RFC 9110, section 15.2):
the kernel of one that has left answers with a reset, which ends the exchange as any reset does. The answer itself asks
in the same way. Where nothing may be sent (to HTTP/1.0, or within an answer that is silent), a caller counts as gone
after some seconds. For nginx and Go every FIN is leaving; that loses answers which were paid for.
"""

from __future__ import annotations

from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway.ingress.framing import CONTINUE
from gateway.ingress.stream import ENDING, OPEN

if TYPE_CHECKING:
    from gateway.ingress.stream import CallerStream

_FIRST_PROBE_SECONDS: Final = 0.1
"""From the end of what a caller sends to the first question: an answer that comes at once needs none."""

_PROBE_SECONDS: Final = 5.0  # between two: one that reads no longer sends nothing that says so
_SILENCE_SECONDS: Final = 10.0


class Finding(Enum):
    """What to do about a caller that sends no more."""

    WAIT = "wait"
    PROBE = "probe"  # send what one that has left answers with a reset
    GONE = "gone"


class Presence:
    """One connection's questions."""

    __slots__ = ("_probe_at", "_progress", "_silent_since", "_stream")

    def __init__(self, stream: CallerStream) -> None:
        self._stream = stream
        self._probe_at = 0.0
        self._progress = -1
        self._silent_since = 0.0

    def ended(self, now: float) -> float:
        """Note the end of what the caller sends; return the seconds until the first question."""
        self._probe_at = now + _FIRST_PROBE_SECONDS
        return _FIRST_PROBE_SECONDS

    def look(self, *, may_probe: bool) -> None:
        """Ask whether a caller whose request is being answered is still there; `may_probe`: no answer has begun."""
        stream = self._stream
        state = stream.state()
        if state == OPEN:
            return
        if state != ENDING:
            stream.lose()
        elif not stream.backlog and not stream.waits:
            finding = self.judge(monotonic(), progress=stream.progress, may_probe=may_probe)
            if finding is Finding.PROBE:
                stream.send((CONTINUE,))
            elif finding is Finding.GONE:
                stream.lose()

    def judge(self, now: float, *, progress: int, may_probe: bool) -> Finding:
        """Judge a caller that takes all it is sent; `now` in monotonic seconds, `progress` in bytes sent in all."""
        if may_probe:
            if now < self._probe_at:
                return Finding.WAIT
            self._probe_at = now + _PROBE_SECONDS
            return Finding.PROBE
        if progress != self._progress:
            self._progress, self._silent_since = progress, now
        return Finding.GONE if now - self._silent_since > _SILENCE_SECONDS else Finding.WAIT
