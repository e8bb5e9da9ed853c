"""The carrier on a loop of its own, before a real socket, without a gateway around it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from gateway.platform.asyncio_selector import run
from gateway.upstream.curl import CurlRelay
from gateway.upstream.interface import OriginFailure, Request
from gateway.upstream.options import CurlOptions
from gateway.upstream.timeouts import OriginTimeouts
from tests.harness.messages import http_response
from tests.harness.ports import refused_port
from tests.upstream.carriers import Listener

if TYPE_CHECKING:
    from gateway.platform.poller import Poller
    from gateway.upstream.transfer import Transfer
    from tests.harness.origin import OriginConnection, ScriptedOrigin, StartOrigin

WAIT_SECONDS: Final = 5.0
OPTIONS: Final = CurlOptions(phases=OriginTimeouts(connect=5, first_byte=5, idle=5), ca_file=None, max_transfers=10)

Story = Callable[[CurlRelay], Awaitable[None]]


class Exchange(Listener):
    """A listener that can be waited for."""

    __slots__ = ("ended",)

    def __init__(self) -> None:
        super().__init__()
        self.ended = asyncio.Event()

    def on_answer(self, head: object, pieces: object, *, whole: bool) -> None:
        """Note a part."""
        super().on_answer(head, pieces, whole=whole)  # type: ignore[arg-type]
        if whole:
            self.ended.set()

    def on_failure(self, failure: OriginFailure) -> None:
        """Note the failure."""
        super().on_failure(failure)
        self.ended.set()

    async def wait(self) -> Exchange:
        """Wait for the end."""
        await asyncio.wait_for(self.ended.wait(), WAIT_SECONDS)
        return self


def tell(story: Story) -> list[str]:
    """Run a story with a relay; return the alarms that it raised."""
    alarms: list[str] = []

    async def story_told(poller: Poller) -> None:
        relay = CurlRelay(force_instance=True, poller=poller, options=OPTIONS, alarm=alarms.append, before=list)
        try:
            await story(relay)
        finally:
            relay.close()

    run(story_told)
    return alarms


def opened(relay: CurlRelay, port: int, path: str = "/", content: bytes = b"{}") -> tuple[Transfer, Exchange]:
    """Open a small POST."""
    exchange = Exchange()
    asked = Request("POST", f"http://127.0.0.1:{port}{path}", [], len(content), content, repeatable=False)
    return relay.engine.open(asked, exchange), exchange


async def answered(relay: CurlRelay, port: int) -> int:
    """Ask, and return the status."""
    _, exchange = opened(relay, port)
    await exchange.wait()
    assert exchange.failures == []
    return exchange.heads[0][0]


@pytest.fixture
def release() -> threading.Event:
    """Return what lets the held answers go."""
    return threading.Event()


@pytest.fixture
def origin(start_origin: StartOrigin, release: threading.Event) -> ScriptedOrigin:
    """Return an origin that holds the answers to `/held`."""

    def script(connection: OriginConnection) -> None:
        while (received := connection.read_request()) is not None:
            if received.target == b"/held":
                assert release.wait(10)
            connection.send(http_response(received.target))

    return start_origin(script)


async def reached(origin: ScriptedOrigin, count: int) -> None:
    """Wait until so many requests have arrived whole."""
    await asyncio.to_thread(origin.wait_for_requests, count)


def test_a_set_of_sockets_that_is_gone_costs_what_was_under_way(
    origin: ScriptedOrigin, release: threading.Event
) -> None:
    """The epoll set is closed underneath: what had been sent fails once, with an alarm, and all that follows passes."""

    async def story(relay: CurlRelay) -> None:
        _, lost = opened(relay, origin.port, "/held")
        await reached(origin, 1)
        relay.carrier.driver._epoll.close()
        _, next_one = opened(relay, origin.port)
        for exchange in (lost, next_one):
            await exchange.wait()
        assert [(f.error_type, f.sent) for f in lost.failures] == [("origin_failed", True)]
        assert [await answered(relay, origin.port) for _ in range(3)] == [200] * 3
        release.set()

    assert tell(story) == ["relay_rebuilt"]


def test_an_aborted_transfer_does_not_reach_the_next_on_its_handle(
    origin: ScriptedOrigin, release: threading.Event
) -> None:
    """Handles are kept: what belongs to an exchange that was given up is never told to another."""

    async def story(relay: CurlRelay) -> None:
        for turn in range(10):
            transfer, aborted = opened(relay, origin.port, "/held")
            handle = relay.carrier.handles[transfer]
            await reached(origin, 2 * turn + 1)
            transfer.abort()
            transfer, exchange = opened(relay, origin.port, f"/{turn}")
            assert relay.carrier.handles[transfer] is handle
            await exchange.wait()
            assert b"".join(exchange.pieces) == b"/%d" % turn
            assert aborted.batches == len(aborted.failures) == 0
        release.set()

    assert tell(story) == []


def test_a_transfer_aborted_before_it_is_sent_leaves_nothing_behind(origin: ScriptedOrigin) -> None:
    """Opened and aborted within one turn: no request, and the handle is good for the next."""

    async def story(relay: CurlRelay) -> None:
        for _ in range(20):
            opened(relay, origin.port, "/aborted")[0].abort()
        assert await answered(relay, origin.port) == 200

    assert tell(story) == []
    assert [request.target for request in origin.executions] == [b"/"]


def test_aborting_one_leaves_the_others(origin: ScriptedOrigin, release: threading.Event) -> None:
    """Of many under way at once, every second one is given up; the rest get their own answers."""

    async def story(relay: CurlRelay) -> None:
        both = [opened(relay, origin.port, "/held", b"%d" % number) for number in range(20)]
        await reached(origin, 20)
        for transfer, _ in both[::2]:
            transfer.abort()
        release.set()
        for _, exchange in both[1::2]:
            await exchange.wait()
            assert exchange.pieces == [b"/held"]
        assert all(exchange.batches == len(exchange.failures) == 0 for _, exchange in both[::2])

    assert tell(story) == []
    assert len(origin.executions) == 20


def test_closing_the_relay_ends_its_transfers_without_a_word(origin: ScriptedOrigin, release: threading.Event) -> None:
    """Who closes it has told everybody before."""
    exchanges: list[Exchange] = []

    async def story(relay: CurlRelay) -> None:
        exchanges.extend(opened(relay, origin.port, "/held")[1] for _ in range(3))
        await reached(origin, 3)

    assert tell(story) == []
    assert all(exchange.batches == len(exchange.failures) == 0 for exchange in exchanges)
    release.set()


def test_the_environments_proxies_are_not_for_a_gateway(
    origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests go straight to the origin, whatever proxies the process was started with."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{refused_port()}")

    async def story(relay: CurlRelay) -> None:
        assert await answered(relay, origin.port) == 200

    assert tell(story) == []


def test_more_than_libcurls_usual_ten_run_at_once(origin: ScriptedOrigin, release: threading.Event) -> None:
    """The eleventh request does not wait for the first."""

    async def story(relay: CurlRelay) -> None:
        exchanges = [opened(relay, origin.port, "/held")[1] for _ in range(40)]
        await reached(origin, 40)
        release.set()
        for exchange in exchanges:
            await exchange.wait()

    assert tell(story) == []


def test_what_is_written_down_goes_before_whatever_is_sent(start_origin: StartOrigin) -> None:
    """An action for one socket may begin a request that was opened in the same turn, so `before` is called ahead."""
    may_go, gone = threading.Event(), threading.Event()

    def script(connection: OriginConnection) -> None:
        while (received := connection.read_request()) is not None:
            assert received.target != b"/held" or may_go.wait(10)
            connection.send(http_response(received.target))
            gone.set()

    origin, steps = start_origin(script), list[str]()

    async def story(poller: Poller) -> None:
        before = partial(steps.append, "before")
        relay = CurlRelay(force_instance=True, poller=poller, options=OPTIONS, alarm=steps.append, before=before)
        act = relay.carrier.act

        def watched(fd: int, selected: int) -> None:
            steps.append("act")
            act(fd, selected)

        relay.carrier.act = watched  # type: ignore[method-assign]
        _, held = opened(relay, origin.port, "/held")
        await reached(origin, 1)
        may_go.set()
        assert gone.wait(10)  # its answer is in our socket by now, and this loop has not looked
        steps.append("open")
        _, next_one = opened(relay, origin.port)
        await held.wait()
        await next_one.wait()
        relay.close()

    run(story)
    behind = steps[steps.index("open") :]
    assert behind.index("before") < behind.index("act")
    assert "relay_rebuilt" not in steps


@pytest.mark.parametrize("last_word", [http_response(b"stolen"), b"\r\n", b""], ids=["answer", "line end", "end"])
def test_what_comes_just_before_a_request_is_no_answer_to_it(start_origin: StartOrigin, last_word: bytes) -> None:
    """The origin writes, or closes, after the last look at its socket: the request has not left, and goes elsewhere."""
    may_write, written = threading.Event(), threading.Event()

    def script(connection: OriginConnection) -> None:
        while (received := connection.read_request()) is not None:
            connection.send(http_response(received.target))
            if connection.number == 1:
                assert may_write.wait(10)
                connection.send(last_word)
                if not last_word:
                    connection.close()
                written.set()

    origin = start_origin(script)

    async def story(relay: CurlRelay) -> None:
        assert await answered(relay, origin.port) == 200
        may_write.set()
        assert written.wait(10)
        relay.carrier.driver.pooled.clear()  # as if there had been no look
        _, exchange = opened(relay, origin.port, "/next")
        await exchange.wait()
        assert (exchange.failures, exchange.pieces) == ([], [b"/next"])

    assert tell(story) == []
    first, following = origin.executions
    assert (first.connection, following.target) == (1, b"/next")
    assert following.connection != 1


def test_tornados_own_driving_never_runs(origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take the end of a transfer for one of its own requests: the exchange would wait for its timeout."""
    calls: list[str] = []
    monkeypatch.setattr(CurlRelay, "_handle_timeout", lambda _: calls.append("timeout"))

    async def story(relay: CurlRelay) -> None:
        for _ in range(3):
            assert await answered(relay, origin.port) == 200

    assert tell(story) == []
    assert calls == []
