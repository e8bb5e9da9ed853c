"""A libcurl multi handle that has died is replaced: what was under way is lost once, what comes next passes."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, NoReturn

from gateway.platform.asyncio_selector import run
from gateway.upstream.curl import CurlRelay
from gateway.upstream.interface import OriginFailure, Request
from gateway.upstream.options import CurlOptions
from gateway.upstream.timeouts import OriginTimeouts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.platform.poller import Poller
    from tests.harness.origin import StartOrigin

PATIENCE_SECONDS = 5


class FullSet:
    """An epoll set that takes no more sockets, as the kernel's does beyond max_user_watches."""

    def __init__(self, real: object) -> None:
        self._real = real

    def modify(self, _fd: int, _events: int) -> NoReturn:
        """Find no room."""
        raise OSError(errno.ENOSPC, "no room")

    register = modify

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


class Listener:
    """Waits for the end of a transfer."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[int | OriginFailure] = asyncio.get_running_loop().create_future()
        self._status = 0

    def on_answer(self, head: tuple[int, list[bytes]] | None, _pieces: Sequence[bytes], *, whole: bool) -> None:
        """Take an answer."""
        self._status = head[0] if head else self._status
        if whole:
            self.ended.set_result(self._status)

    def on_failure(self, failure: OriginFailure) -> None:
        """Take a failure."""
        self.ended.set_result(failure)

    def on_room(self) -> None:
        """Note nothing."""


def test_a_socket_that_cannot_be_watched_costs_one_request_and_not_the_gateway(start_origin: StartOrigin) -> None:
    """The fault is alarmed, its request ends as one that may have been executed, and the next one passes."""
    origin = start_origin()
    alarms: list[str] = []

    async def ask(relay: CurlRelay) -> int | OriginFailure:
        listener = Listener()
        url = f"http://127.0.0.1:{origin.port}/"
        relay.engine.open(Request("POST", url, [], 2, b"{}", repeatable=False), listener)
        return await asyncio.wait_for(listener.ended, PATIENCE_SECONDS)

    async def story(poller: Poller) -> list[int | OriginFailure]:
        options = CurlOptions(phases=OriginTimeouts(2, 2, 2), ca_file=None, max_transfers=10)
        relay = CurlRelay(force_instance=True, poller=poller, options=options, alarm=alarms.append, before=list)
        answers = [await ask(relay)]
        driver = relay.carrier.driver
        driver._epoll = FullSet(driver._epoll)  # type: ignore[assignment]
        answers += [await ask(relay), await ask(relay)]
        relay.close()
        return answers

    before, hit, after = run(story)
    assert before == after == 200
    assert isinstance(hit, OriginFailure)
    assert (hit.error_type, hit.sent) == ("origin_failed", True)
    assert alarms == ["relay_rebuilt"]
