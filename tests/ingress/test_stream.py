"""A caller's socket by itself: how much waits for one who does not read, and where."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import sys
import termios
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from gateway.ingress.stream import CallerStream, prepare_listener
from gateway.platform.asyncio_selector import run
from gateway.upstream.transfer import WINDOW_BYTES
from tests.harness.ports import LOOPBACK

if TYPE_CHECKING:
    from gateway.platform.poller import Poller

PIECE: Final = b"x" * 65_536
FLOWED_PIECES: Final = 20
RECEIVED_BYTES: Final = 524_288  # the kernel's own count of what was asked for
MOST_BYTES: Final = 1_500_000  # the receiver's buffer, half a megabyte unsent, and what is on its way
KERNEL_BYTES: Final = 196_608
SO_MEMINFO: Final = 55  # include/uapi/asm-generic/socket.h
MEMINFO_WRITE_QUEUE: Final = 5  # SK_MEMINFO_WMEM_QUEUED, include/uapi/linux/sock_diag.h
PATIENCE_SECONDS: Final = 10


class Owner:
    """Waits for the caller to catch up."""

    def __init__(self) -> None:
        self.drained = asyncio.Event()

    def on_bytes(self, data: bytes) -> None:
        """Expect nothing."""
        raise AssertionError(data)

    def on_drained(self) -> None:
        """Note it."""
        self.drained.set()

    def on_ended(self) -> None:
        """Expect the caller to stay."""
        raise AssertionError

    def on_lost(self) -> None:
        """Expect the caller to stay."""
        raise AssertionError


def test_what_a_caller_does_not_take_is_not_taken_on() -> None:
    """It falls behind while nothing is kept here and little by the kernel, and is told of when it has caught up."""

    async def main(poller: Poller) -> None:
        with socket.create_server((LOOPBACK, 0)) as listener, socket.socket() as caller:
            prepare_listener(listener)
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            caller.connect(listener.getsockname())
            stream, owner = CallerStream(listener.accept()[0], poller), Owner()
            stream.start(owner)
            while not stream.falls_behind():
                stream.send([PIECE])
                assert stream.progress < MOST_BYTES
            assert stream.backlog == 0
            assert stream.falls_behind()
            caller.setblocking(False)  # noqa: FBT003 (the standard library's signature)
            loop, left = asyncio.get_running_loop(), stream.progress
            while left:
                left -= len(await asyncio.wait_for(loop.sock_recv(caller, left), PATIENCE_SECONDS))
            await asyncio.wait_for(owner.drained.wait(), PATIENCE_SECONDS)
            assert not stream.falls_behind()
            stream.close()

    run(main)


def test_what_a_caller_does_not_read_is_bounded_in_the_kernel() -> None:
    """The kernel counts at most 192 KiB for a caller who stalls, however much is there for him at once."""

    async def main(poller: Poller) -> None:
        with socket.create_server((LOOPBACK, 0)) as listener, socket.socket() as caller:
            prepare_listener(listener)
            caller.connect(listener.getsockname())
            accepted = listener.accept()[0]
            stream = CallerStream(accepted, poller)
            stream.start(Owner())
            while not stream.falls_behind():
                stream.send([PIECE * (WINDOW_BYTES // len(PIECE))])
            counts = accepted.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 4 * MEMINFO_WRITE_QUEUE + 4)
            assert int.from_bytes(counts[-4:], sys.byteorder) <= KERNEL_BYTES
            stream.close()

    run(main)


def test_what_a_caller_sends_and_nobody_takes_is_bounded() -> None:
    """Content that waits for its origin stays at the caller, also where it flowed before and the buffer might grow."""
    with socket.create_server((LOOPBACK, 0)) as listener, socket.socket() as caller:
        prepare_listener(listener)
        caller.connect(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            for _ in range(FLOWED_PIECES):
                caller.sendall(PIECE * 8)
                left = len(PIECE) * 8
                while left:
                    left -= len(accepted.recv(left))
            caller.settimeout(0.2)
            with suppress(TimeoutError):
                while True:
                    caller.sendall(PIECE)
            waiting = fcntl.ioctl(accepted.fileno(), termios.FIONREAD, bytes(4))
            assert int.from_bytes(waiting, sys.byteorder) <= RECEIVED_BYTES
