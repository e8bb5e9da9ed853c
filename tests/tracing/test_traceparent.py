"""W3C Trace Context to the letter: which `traceparent` is one, by the cases of the recommendation's own test suite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.traceparent import Trace, read_traceparent, retraced, traceparent_of
from tests.harness.messages import proxy_request
from tests.harness.origin import answering

if TYPE_CHECKING:
    from tests.harness.scene import Scene

TRACE_ID: Final = "12345678901234567890123456789012"
SPAN_ID: Final = "1234567890123456"
IDS: Final = f"{TRACE_ID}-{SPAN_ID}"
VALID: Final = (
    f"00-{IDS}-00",
    f"00-{IDS}-01",
    f"00-{IDS}-ff",
    f"cc-{IDS}-01",
    f"cc-{IDS}-01-what-the-future-will-be-like",
    f"01-{IDS}-01-",
    f"00-abcdef{TRACE_ID[6:]}-abcdef{SPAN_ID[6:]}-01",
)
INVALID: Final = (
    "",
    "00",
    f"ff-{IDS}-01",
    f"00-{IDS}-01.",
    f"00-{IDS}-01-",
    f"00-{IDS}-01-what-the-future-will-be-like",
    f"cc-{IDS}-01.what-the-future-will-not-be-like",
    f".0-{IDS}-01",
    f"0.-{IDS}-01",
    f"000-{IDS}-01",
    f"0000-{IDS}-01",
    f"0-{IDS}-01",
    f"CC-{IDS}-01",
    f"00-{'0' * 32}-{SPAN_ID}-01",
    f"00-.{TRACE_ID[1:]}-{SPAN_ID}-01",
    f"00-{TRACE_ID[:-1]}.-{SPAN_ID}-01",
    f"00-ABCDEF{TRACE_ID[6:]}-{SPAN_ID}-01",
    f"00-{TRACE_ID}3-{SPAN_ID}-01",
    f"00-{TRACE_ID[:-1]}-{SPAN_ID}-01",
    f"00-{TRACE_ID}-{'0' * 16}-01",
    f"00-{TRACE_ID}-.{SPAN_ID[1:]}-01",
    f"00-{TRACE_ID}-ABCDEF{SPAN_ID[6:]}-01",
    f"00-{TRACE_ID}-{SPAN_ID}7-01",
    f"00-{TRACE_ID}-{SPAN_ID[:-1]}-01",
    f"00-{IDS}-.0",
    f"00-{IDS}-0.",
    f"00-{IDS}-0A",
    f"00-{IDS}-001",
    f"00-{IDS}-1",
    f"00-{IDS}",
    f"00-{IDS}-01, 00-{IDS}-01",
    f"00-{IDS}-01\n",
    f"\N{FULLWIDTH DIGIT ZERO}0-{IDS}-01",
)


@pytest.mark.parametrize("value", VALID)
def test_what_is_valid_is_read(value: str) -> None:
    """Version 00, and later ones as far as they are like it; of the flags the two that are known."""
    parent = read_traceparent(value.encode())
    assert parent is not None
    assert (parent.trace_id, parent.span_id) == (value[3:35], value[36:52])
    assert parent.flags == int(value[53:55], 16) & 3


@pytest.mark.parametrize("value", INVALID)
def test_what_is_not_valid_is_none(value: str) -> None:
    """Another length, alphabet or separator, ids of zeros, version ff, and whatever follows in version 00."""
    assert read_traceparent(value.encode()) is None


@given(st.binary(max_size=80))
def test_no_bytes_break_the_reader(value: bytes) -> None:
    """Whatever a caller sends is a trace of valid ids, or none."""
    parent = read_traceparent(value)
    assert parent is None or (len(parent.trace_id), len(parent.span_id)) == (32, 16)


def test_of_several_none_counts() -> None:
    """Two fields contradict each other, also where they are alike; the name counts, and no other."""
    field = (b"traceparent", VALID[0].encode())
    assert traceparent_of([(b"accept", b"*/*"), field]) == field[1]
    assert traceparent_of([field, field]) is None
    assert traceparent_of([(b"trace-parent", field[1])]) is None


@pytest.mark.parametrize("goes_on", [True, False])
def test_the_origins_fields_name_the_gateways_span(*, goes_on: bool) -> None:
    """One `traceparent`, ours; the caller's state stays as it came where its trace goes on, else it goes."""
    trace = Trace(TRACE_ID, SPAN_ID if goes_on else "", span_id="a" * 16, client_id="b" * 16, flags=1)
    state = [(b"tracestate", b"a=1"), (b"tracestate", b"b=2")]
    fields = [(b"traceparent", b"x"), state[0], (b"accept", b"*/*"), state[1]]
    kept = [state[0], (b"accept", b"*/*"), state[1]] if goes_on else [(b"accept", b"*/*")]
    assert retraced(fields, trace) == [*kept, (b"traceparent", f"00-{TRACE_ID}-{'b' * 16}-01".encode())]


@pytest.mark.parametrize("value", [VALID[1], INVALID[2]], ids=["valid", "version ff"])
def test_without_tracing_the_field_passes_as_it_came(scene: Scene, value: str) -> None:
    """The gateway is no part of the trace then; the log names a valid one, so that both can be found together."""
    scene.play(answering())
    fields = [("TraceParent", f" {value}\t"), ("tracestate", "a=1")]
    scene.ask(proxy_request(key=scene.key, fields=fields))
    (event,) = scene.settled()
    (received,) = scene.origin.executions
    assert dict(received.head.fields)[b"traceparent"] == value.encode()
    assert dict(received.head.fields)[b"tracestate"] == b"a=1"
    named = {name: event[name] for name in ("trace_id", "span_id") if name in event}
    assert named == ({"trace_id": TRACE_ID, "span_id": SPAN_ID} if value == VALID[1] else {})
