"""Where a request stands in a distributed trace: W3C Trace Context, `traceparent` read and written.

The decision: what is not valid to the letter is no trace. Level 1 (sections 3.2 and 4.2) and level 2 of the
recommendation agree on what that means; of level 2 the flag `random` is taken over and given, too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.http.fields import Fields

TRACEPARENT: Final = b"traceparent"
TRACESTATE: Final = b"tracestate"

SAMPLED: Final = 1
RANDOM: Final = 2
_KNOWN_FLAGS: Final = SAMPLED | RANDOM

_TRACEPARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_VERSION: Final = b"00"
_NO_VERSION: Final = b"ff"
_NO_TRACE: Final = b"0" * 32
_NO_SPAN: Final = b"0" * 16


class Parent:
    """The caller's span: `trace_id` in 32 and `span_id` in 16 lower-case hexadecimal digits, and the known flags."""

    __slots__ = ("flags", "span_id", "trace_id")

    def __init__(self, trace_id: str, span_id: str, flags: int) -> None:
        self.trace_id: Final = trace_id
        self.span_id: Final = span_id
        self.flags: Final = flags


class Trace:
    """The spans of one exchange; `parent_id` is empty where the trace begins here.

    `span_id` names the gateway's answering of its caller, `client_id` its own call to the origin.
    """

    __slots__ = ("client_id", "flags", "parent_id", "span_id", "trace_id")

    def __init__(self, trace_id: str, parent_id: str, *, span_id: str, client_id: str, flags: int) -> None:
        self.trace_id: Final = trace_id
        self.parent_id: Final = parent_id
        self.span_id: Final = span_id
        self.client_id: Final = client_id
        self.flags: Final = flags

    @property
    def is_sampled(self) -> bool:
        """Whether the spans are to be recorded."""
        return self.flags & SAMPLED != 0

    def traceparent(self) -> bytes:
        """Return the field's value for the origin, whose parent is the gateway's call."""
        return f"00-{self.trace_id}-{self.client_id}-{self.flags:02x}".encode()


def read_traceparent(value: bytes) -> Parent | None:
    """Return what a field's value says, None where it is not valid.

    A version that is not known yet is read as far as it is that of version 00 (section 4.2); `ff` is none.
    """
    found = _TRACEPARENT.fullmatch(value)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == _NO_VERSION or (version == _VERSION and more is not None):
        return None
    if trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return Parent(trace_id.decode(), span_id.decode(), int(flags, 16) & _KNOWN_FLAGS)


def traceparent_of(fields: Fields) -> bytes | None:
    """Return the value of the only `traceparent`, None without one or with several, of which none can be believed."""
    found: bytes | None = None
    for name, value in fields:
        if name == TRACEPARENT:
            if found is not None:
                return None
            found = value
    return found


def retraced(fields: Fields, trace: Trace) -> Fields:
    """Return the fields with a `traceparent` of this trace's.

    The caller's `tracestate` stays where its trace goes on, and goes with what could not be read (section 3.3).
    """
    is_begun_here = not trace.parent_id
    kept = [
        (name, value) for name, value in fields if name != TRACEPARENT and not (is_begun_here and name == TRACESTATE)
    ]
    kept.append((TRACEPARENT, trace.traceparent()))
    return kept
