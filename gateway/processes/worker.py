"""One worker process from its first moment to its last: ready, draining, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
from time import monotonic
from typing import TYPE_CHECKING, Final

import structlog

from gateway.platform.asyncio_selector import run
from gateway.platform.signals import call_on_stop
from gateway.processes.composition import Worker
from gateway.telemetry.metrics.loop_lag import LoopLag
from gateway.telemetry.metrics.scoreboard import ProcessSlot, State

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from gateway.config.settings import Settings
    from gateway.platform.poller import Poller
    from gateway.processes.shared import Shared

_LOOK_SECONDS: Final = 0.05
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3)
_KEPT_BYTES: Final = 16 * 1024 * 1024
_LARGE_BYTES: Final = 4 * 1024 * 1024
_COLLECT_AT: Final = (7_000, 10, 10)
"""Objects until the garbage collector looks, ten times Python's: an exchange leaves no cycle, a connection does."""


class Lifeline:
    """A pipe that nobody writes to: its other end closes when the supervisor dies, however it dies."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def hold_end(self) -> None:
        """Keep the child's end only."""
        os.close(self._writer)

    def on_cut(self, call: Callable[[], None]) -> None:
        """Call when the supervisor is gone."""
        loop = asyncio.get_running_loop()

        def cut() -> None:
            loop.remove_reader(self._reader)
            call()

        loop.add_reader(self._reader, cut)


class Stop:
    """How urgently the worker was asked to stop."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._pressed = asyncio.Event()
        self._urged = asyncio.Event()

    def ask(self) -> None:
        """Drain; asked again: at once."""
        if self._asked.is_set():
            self._pressed.set()
            self._urged.set()
        self._asked.set()

    def orphan(self) -> None:
        """Drain without a delay: the supervisor is gone, and the gateway that follows needs the port."""
        self._asked.set()
        self._pressed.set()

    async def wait(self) -> None:
        """Wait to be asked."""
        await self._asked.wait()

    async def delay(self, seconds: float) -> None:
        """Wait, not longer than until there is a reason to hurry."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._pressed.wait(), seconds)

    async def pause(self, seconds: float) -> bool:
        """Wait, not longer than until urged; returns whether it was."""
        try:
            await asyncio.wait_for(self._urged.wait(), seconds)
        except TimeoutError:
            return False
        return True


def run_worker(shared: Shared, slot: ProcessSlot, *, listener: socket.socket, lifeline: Lifeline) -> None:
    """Serve callers on a listening socket until asked to stop, then drain."""

    async def serve(poller: Poller) -> None:
        worker = Worker(poller, shared, slot)
        stop = Stop()
        call_on_stop(asyncio.get_running_loop(), stop.ask)
        lifeline.on_cut(stop.orphan)
        await worker.start()
        pulse = LoopLag(slot.region, callers=lambda: worker.server.connections, origins=worker.relay.count_connections)
        worker.server.listen_on([listener])
        keep_freed_memory()
        gc.freeze()  # what is here by now stays
        gc.set_threshold(*_COLLECT_AT)
        slot.inflight_limit = shared.settings.max_inflight
        slot.state = State.READY
        await stop.wait()
        slot.state = State.DRAINING
        await _drain(worker, shared.settings, stop)
        pulse.stop()
        if worker.tracer is not None:
            worker.tracer.close()

    run(serve)


def keep_freed_memory() -> None:
    """Let glibc keep what a relayed body used for the next one.

    By its own rules it gives a quarter of a megabyte back to the kernel as soon as that is free, and faults it in anew
    for the next window: 70,000 page faults a second, and half of what a download can do. Other allocators have nothing
    of the kind.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)


async def _drain(worker: Worker, settings: Settings, stop: Stop) -> None:
    """Still accept for the delay, then let exchanges run out, then cut what is left."""
    await stop.delay(settings.shutdown_delay)
    worker.drain()
    deadline = monotonic() + settings.drain_timeout
    urged = await stop.pause(0.0)
    while worker.is_busy and not urged and monotonic() < deadline:
        urged = await stop.pause(_LOOK_SECONDS)
    cut = await worker.close()
    if cut:
        structlog.get_logger().warning("exchanges_cut", count=cut)
