"""fal.run: an endpoint run at once, answered with JSON or with a stream of events.

Decision: any path is an endpoint, as any team may have deployed one; what is known of its input is echoed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.emulator.answers import Answer, as_json, event, events
from gateway.emulator.models import paint
from gateway.emulator.paid import Paid

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class Run(Paid):
    """`POST` or `GET` /{endpoint}: the picture that the input asks for."""

    kind = "run"

    async def produce(self) -> Answer:
        """Return the picture's JSON after the run's time."""
        await self.wire.pause(self.world.behaviour.run_ms / 1000)
        visit = self.visit
        output = paint(self.inputs(), own_url=self.world.own_url, sha256=visit.sha256, length=visit.bytes)
        output["timings"] = {"inference": self.world.behaviour.run_ms / 1000}
        return as_json(200, output)

    get = post = Paid.respond


class Stream(Paid):
    """`POST` or `GET` /{endpoint}/stream: partial results as server-sent events, the last one whole."""

    kind = "stream"

    async def produce(self) -> Answer:
        """Return the stream of events."""
        return events(self._events)

    async def _events(self) -> AsyncGenerator[bytes, None]:
        total = self.world.behaviour.events if self.faults.events is None else self.faults.events
        for index in range(total):
            if index and not self.faults.pace:
                await self.wire.pause(self.world.behaviour.event_ms / 1000)
            yield event(self._progress(index, total))

    def _progress(self, index: int, total: int) -> dict[str, object]:
        """`emitted_at` (seconds since the epoch) lets a tester see how long an event was on its way."""
        progress: dict[str, object] = {"index": index, "of": total, "emitted_at": self.world.wall()}
        if index + 1 < total:
            return progress
        visit = self.visit
        return progress | paint(self.inputs(), own_url=self.world.own_url, sha256=visit.sha256, length=visit.bytes)

    def units_shown(self, status: int) -> str | None:
        """Return the units only where the app sets them before its first event; most do not."""
        set_early = self.world.behaviour.stream_units or self.faults.units is not None
        return super().units_shown(status) if set_early or status >= 300 else None  # noqa: PLR2004 - no success

    get = post = Paid.respond
