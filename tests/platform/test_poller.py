"""The worker's one wait: callers and libcurl told within it, asyncio as on any loop."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.platform.asyncio_selector import run
from gateway.platform.poller import READ, WRITE, Poller

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

PATIENCE_SECONDS = 5


def told(main: Callable[[Poller], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine on such a loop, within a time."""

    async def bounded(poller: Poller) -> None:
        await asyncio.wait_for(main(poller), PATIENCE_SECONDS)

    run(bounded)


def pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets that do not block."""
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)  # noqa: FBT003 (the standard library's signature)
    return ours, theirs


def test_asyncio_reads_and_writes_as_on_any_loop() -> None:
    """Streams, timers and threads' results work: what is watched for asyncio is told to asyncio."""

    async def main(_poller: Poller) -> None:
        ours, theirs = pair()
        reader, writer = await asyncio.open_connection(sock=ours)
        large = b"x" * 1_000_000  # more than a socket takes at once: it has to be told when it may be written again
        receiver, sender = await asyncio.open_connection(sock=theirs)
        writer.write(large)
        assert await receiver.readexactly(len(large)) == large
        await asyncio.sleep(0.01)
        sender.write(await asyncio.to_thread(lambda: b"answer"))
        assert await reader.readexactly(6) == b"answer"
        sender.close()
        assert await reader.read() == b""
        writer.close()

    told(main)


def test_events_come_within_the_wait() -> None:
    """Each change of what is asked for counts from the next turn on."""

    async def main(poller: Poller) -> None:
        ours, theirs = pair()
        events: asyncio.Queue[int] = asyncio.Queue()
        poller.watch(ours.fileno(), WRITE, events.put_nowait)
        assert await events.get() & WRITE
        poller.change(ours.fileno(), READ)
        while not events.empty():
            events.get_nowait()
        theirs.send(b"x")
        assert await events.get() == READ
        poller.forget(ours.fileno())
        ours.close()
        theirs.close()

    told(main)


def test_what_was_closed_in_a_batch_is_not_told() -> None:
    """Of two that are ready at once, the first may end the second."""

    async def main(poller: Poller) -> None:
        pairs = [pair(), pair()]
        heard: list[int] = []

        def end_all(fd: int, _events: int) -> None:
            heard.append(fd)
            for ours, _ in pairs:
                poller.forget(ours.fileno())

        for ours, theirs in pairs:
            poller.watch(ours.fileno(), READ, partial(end_all, ours.fileno()))
            theirs.send(b"x")
        await asyncio.sleep(0.01)
        assert len(heard) == 1
        for both in pairs:
            for sock in both:
                sock.close()

    told(main)


def test_a_bug_behind_one_socket_is_reported_and_stops_nobody() -> None:
    """The loop's handler gets it, and the others of the batch are told theirs."""

    async def main(poller: Poller) -> None:
        bugs: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: bugs.append(context["exception"]))
        pairs = [pair(), pair()]
        heard: list[int] = []

        def fail(fd: int, _events: int) -> None:
            heard.append(fd)
            poller.forget(fd)
            raise ValueError(fd)

        for ours, theirs in pairs:
            poller.watch(ours.fileno(), READ, partial(fail, ours.fileno()))
            theirs.send(b"x")
        await asyncio.sleep(0.01)
        assert sorted(heard) == sorted(ours.fileno() for ours, _ in pairs)
        assert [str(bug) for bug in bugs] == [str(fd) for fd in heard]
        for both in pairs:
            for sock in both:
                sock.close()

    told(main)


def test_the_end_of_a_turn_comes_without_a_wait() -> None:
    """What is begun in a callback of asyncio's goes out before the loop waits, and what that leads to is not missed."""

    async def main(poller: Poller) -> None:
        wanted: list[str] = []
        done = asyncio.Event()

        def finish() -> bool:
            if not wanted:
                return False
            wanted.clear()
            asyncio.get_running_loop().call_soon(done.set)
            return True

        poller.at_end(finish)
        began = asyncio.get_running_loop().time()
        wanted.append("something")
        await done.wait()
        assert asyncio.get_running_loop().time() - began < PATIENCE_SECONDS / 2
        poller.not_at_end(finish)

    told(main)
