"""The origin says what its path asks for, and counts what the figures rest on."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import pytest

from benchmarks.load.events import EventStreams
from benchmarks.load.leaving import PHASES, leave
from benchmarks.load.stale import CUT, PostIds, fail_on_dying, post
from benchmarks.load.transfers import connect, json_content, run_transfers

if TYPE_CHECKING:
    from benchmarks.origin import Origin
    from benchmarks.route import Route

PATIENCE_SECONDS = 10.0
CHUNK_BYTES = 65536


@pytest.mark.parametrize("length", [0, 1, CHUNK_BYTES, 1_000_000])
def test_download_has_the_length_asked_for(direct: Route, length: int) -> None:
    """A `down` answers with exactly so many bytes."""
    done = run_transfers(direct, [(direct.head("GET", f"/x/down/{length}"), b"")], patience_seconds=PATIENCE_SECONDS)
    assert done.received_bytes == length


def test_chunked_download_comes_in_whole_chunks(direct: Route) -> None:
    """A `chunked` of 100,000 bytes is two chunks of 64 KiB with their framing, and its last chunk."""
    done = run_transfers(direct, [(direct.head("GET", "/x/chunked/100000"), b"")], patience_seconds=PATIENCE_SECONDS)
    assert done.received_bytes == 2 * (CHUNK_BYTES + len(b"10000\r\n\r\n")) + len(b"0\r\n\r\n")


def test_content_is_counted_whole(origin: Origin, direct: Route) -> None:
    """Every byte of eight uploads at once arrives, and each is one request."""
    content = json_content(300_000)
    before = origin.counters()
    head = direct.head("POST", "/x/sink", content_length=len(content))
    run_transfers(direct, [(head, content)] * 8, patience_seconds=PATIENCE_SECONDS)
    after = origin.counters()
    assert after.content_bytes - before.content_bytes == 8 * len(content)
    assert after.requests - before.requests == 8


def test_chunked_content_is_read_to_its_end(origin: Origin, direct: Route) -> None:
    """Chunked content counts without its framing, and is answered behind its last chunk."""
    head = direct.head("POST", "/x/sink").replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
    before = origin.counters()
    run_transfers(direct, [(head, b"3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n")], patience_seconds=PATIENCE_SECONDS)
    assert origin.counters().content_bytes - before.content_bytes == 13


def test_events_come_at_their_pace_with_their_time(direct: Route) -> None:
    """A stream of an event each 50 ms brings about 10 in half a second, each stamped no later than it came."""
    with EventStreams(direct, "/x/events/1000/50", number=4, spread_seconds=0.1) as streams:
        streams.wait_open(PATIENCE_SECONDS)
        streams.delays_ns.clear()
        streams.watch(0.5)
        assert streams.opened == 4
    assert 4 * 5 <= len(streams.delays_ns) <= 4 * 12
    assert min(streams.delays_ns) >= 0


@pytest.mark.parametrize("phase", sorted(PHASES))
def test_a_caller_that_leaves_is_seen(origin: Origin, direct: Route, phase: str) -> None:
    """With nothing in between, the origin sees a caller's leaving at once, in every phase."""
    assert leave(direct, origin, phase) < 1.0


def test_a_repeated_id_is_counted(origin: Origin, direct: Route) -> None:
    """The same id seen again counts as sent twice; a new one does not."""
    assert [post(direct, path) for path in ("/x/post?id=7", "/x/post?id=8", "/x/post?id=7")] == [200] * 3
    assert origin.counters().twice == 1


def test_a_dying_connection_gives_no_answer(origin: Origin, direct: Route) -> None:
    """A `die` reads the request, counts it, and resets: all such POSTs fail, and none was sent twice."""
    assert post(direct, "/x/die") == CUT
    assert fail_on_dying(direct, PostIds(), posts=3) == 3
    assert origin.counters().twice == 0


@pytest.mark.parametrize("milliseconds", [0, 5])
def test_a_stale_connection_answers_and_is_closed(origin: Origin, direct: Route, milliseconds: int) -> None:
    """A `stale` gives a whole answer that does not say `close`, and the connection ends behind it."""
    with closing(connect(direct.port)) as sock:
        sock.settimeout(PATIENCE_SECONDS)
        sock.sendall(direct.head("GET", f"/x/stale/{milliseconds}"))
        said = b"".join(iter(partial(sock.recv, 65536), b""))
    assert said.startswith(b"HTTP/1.1 200 OK")
    assert b"close" not in said.lower()
    assert origin.counters().closed == 1
