"""The home of the state that replicas share: Redis or Valkey, behind a breaker that no request waits for.

The decisions it carries:

* A call has 50 ms. Five that failed in a row, or a connection that broke or sent garbage, open the breaker: all that is
  under way fails at once, nothing is asked any more, and whoever would ask decides by itself (`is_up`).
* Only a probe in the background closes it, about once a second: connected, PING answered in time, scripts loaded,
  registered among the replicas. Then what is held is said again and what is owed is freed, before the first request.
* A line in the log at each transition, and none for a request.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import OrderedDict
from time import time
from typing import TYPE_CHECKING, Final

import structlog

from gateway.policy.quota import Decision
from gateway.state.memory.worker_budgets import NoLines
from gateway.state.redis import commands as redis_commands
from gateway.state.redis.address import parse_redis_url
from gateway.state.redis.budget_scripts import CLOSE, REMEMBERS, STATE
from gateway.state.redis.budgets import RedisBudgets
from gateway.state.redis.calls import AcquireCall, BeatCall, FreeCall, LastCall, living
from gateway.state.redis.connection import Link, LinkError
from gateway.state.redis.jobs import RedisJobs
from gateway.state.redis.leases import Leases
from gateway.state.redis.pipeline import Call, Pipeline
from gateway.state.redis.scripts import ASK, MOVE, RENEW

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.state.interface import Acquire
    from gateway.state.memory.worker_budgets import Lines
    from gateway.state.redis.commands import Command

PATIENCE_SECONDS: Final = 0.05
ATTEMPT_SECONDS: Final = 1.0
PROBE_SECONDS: Final = (0.75, 1.25)
BEAT_SECONDS: Final = (5.0, 7.0)
"""Two heartbeats fit into a replica's 15 s, four renewals into a lease's 30."""

_SCRIPTS: Final = (ASK, MOVE, RENEW, STATE, CLOSE, REMEMBERS)
_MOST_SPARED: Final = 4_096


class RedisStore:
    """The store of one worker process, on its running loop."""

    def __init__(  # noqa: PLR0913 (put together in one place, by name)
        self,
        url: str,
        *,
        replica: str,
        on_change: Callable[[bool], None],
        on_error: Callable[[], None],
        patience_seconds: float = PATIENCE_SECONDS,
        wall: Callable[[], float] = time,
        lines: Lines | None = None,
    ) -> None:
        """`replica` is the same for all workers of one gateway. ValueError where the URL is wrong, without its text.

        `on_change(up)` is called with the first attempt's outcome and at each transition; `on_error()` at each failed
        call. `wall` gives seconds since the epoch; `lines` is this process's journal.
        """
        self.is_up = False  # do not ask, decide locally
        self.replicas = 1  # how many gateways share the store, as of the last contact
        self._address = parse_redis_url(url)
        self._replica = replica.encode()
        self._on_change = on_change
        self._on_error = on_error
        self._patience = patience_seconds
        self._plans = redis_commands.Plans()
        self._leases = Leases()
        holder = b"%b:%d" % (self._replica, os.getpid())
        self.purses: Final = RedisBudgets(holder, wall, lines or NoLines())
        """What is held of budgets (`BudgetStore`)."""
        self.jobs: Final = RedisJobs(holder)
        """Queue jobs that all gateways know."""
        self._spared: OrderedDict[str, list[int]] = OrderedDict()  # what shadow limits did not take, by lease
        self._was_up: bool | None = None
        self._link: Link | None = None
        self._pipeline: Pipeline | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._beat_timer: asyncio.TimerHandle | None = None
        self._events = structlog.get_logger()

    # -- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Try to connect for at most a second, and keep connected from then on, whatever came of it."""
        self._link = Link(self._address)
        await self._attempt(self._link)
        self._keeper = asyncio.create_task(self._keep(self._link))

    async def close(self) -> None:
        """Give back what is held, within the time that any call has, and disconnect; harmless when done twice."""
        if self.is_up and self._pipeline is not None:
            self._leases.give_back()
            self._settle_leases(self._pipeline)
            await self._last_answer(self._pipeline)  # of jobs that were closed the accounting is told by now
            self.purses.leave()
            await self._last_answer(self._pipeline)
            self.jobs.fall()
        self.is_up = False
        self._stop_beating()
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        if self._pipeline is not None:
            self._pipeline.abandon("closed")
        if self._link is not None:
            await self._link.close()

    async def _last_answer(self, pipeline: Pipeline) -> None:
        last = LastCall(self._replica)
        pipeline.add(last)
        await last.done

    async def _keep(self, link: Link) -> None:
        while True:
            if self.is_up and self._pipeline is not None:
                self._fall(await link.run(self._pipeline.answered))
            await asyncio.sleep(random.uniform(*PROBE_SECONDS))  # noqa: S311 (that replicas do not come at once)
            await self._attempt(link)

    async def _attempt(self, link: Link) -> None:
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                await link.connect()
                await self._probe(link)
        except (LinkError, TimeoutError) as fault:
            await link.drop()
            known = fault if isinstance(fault, LinkError) else LinkError("no_answer")
            self._tell(up=False, reasons=[known.kind], detail=known.detail)
        else:
            self._rise(link)

    async def _probe(self, link: Link) -> None:
        async with asyncio.timeout(self._patience):
            answer = await link.request(redis_commands.plain(b"PING").packed())
        if answer != b"PONG":
            raise LinkError("garbage")
        await link.request(redis_commands.room_probe().packed())
        for script in _SCRIPTS:
            await link.request(redis_commands.plain(b"SCRIPT", b"LOAD", script.text).packed())
        try:
            self.replicas = living(await link.request(redis_commands.beat(self._replica).packed()))
        except ValueError:
            raise LinkError("garbage") from None

    def _rise(self, link: Link) -> None:
        self._pipeline = Pipeline(
            link, patience_seconds=self._patience, on_error=self._on_error, give_up=self._open_breaker
        )
        self.purses.rise(self._pipeline)
        self.jobs.rise(self._pipeline)
        self._settle_leases(self._pipeline)
        self.is_up = True
        self._beat_later()
        self._tell(up=True)

    def _open_breaker(self) -> None:
        """Give the connection up in the midst of a call of it; the keeper notices on its next step."""
        fault = LinkError("failures")
        if self._link is not None:
            self._link.end(fault)
        self._fall(fault)

    def _fall(self, fault: LinkError) -> None:
        if not self.is_up or self._pipeline is None:
            return
        self.is_up = False
        self._stop_beating()
        self.purses.fall()
        self.jobs.fall()
        kinds = self._pipeline.kinds | ({fault.kind} if fault.kind != "failures" else set())
        reasons = sorted(kinds)
        self._pipeline.abandon(fault.kind)
        self._tell(up=False, reasons=reasons, detail=fault.detail)

    def _tell(self, *, up: bool, reasons: Sequence[str] = (), detail: str = "") -> None:
        if up == self._was_up:
            return
        self._was_up = up
        if up:
            self._events.info("state_store_up", store=self._address.shown, replicas=self.replicas)
        else:
            self._events.error("state_store_down", store=self._address.shown, reasons=reasons, detail=detail)
        self._on_change(up)

    # -- heartbeats -------------------------------------------------------------------------------------------------

    def _beat_later(self) -> None:
        seconds = random.uniform(*BEAT_SECONDS)  # noqa: S311 (that replicas do not come at once)
        self._beat_timer = asyncio.get_running_loop().call_later(seconds, self._beat)

    def _beat(self) -> None:
        self._beat_later()
        if self._pipeline is not None:
            self._settle_leases(self._pipeline)
            self.jobs.pay()
            self._pipeline.add(Call(redis_commands.room_probe()))  # a store without memory takes the heartbeat itself
            self._pipeline.add(BeatCall(self._replica, self._count))

    def _stop_beating(self) -> None:
        if self._beat_timer is not None:
            self._beat_timer.cancel()
            self._beat_timer = None

    def _settle_leases(self, pipeline: Pipeline) -> None:
        """Give back slots that are owed, and renew those that are held."""
        for key, names in self._leases.owed():
            pipeline.add(FreeCall(key, names, leases=self._leases))
        for key, names in self._leases.held():
            pipeline.add(Call(redis_commands.renew(key, names)))

    def _count(self, replicas: int) -> None:
        self.replicas = replicas

    # -- limits -----------------------------------------------------------------------------------------------------

    def ask(self, ask: Acquire, told: Callable[[Decision | None], None]) -> Decision | None:
        """Judge and take in one step; `told` comes later, exactly once, with None where there is no answer in time."""
        if not ask.limits.limits and ask.hold is None:
            return Decision()
        if not self.is_up or self._pipeline is None:
            asyncio.get_running_loop().call_soon(told, None)
            return None
        plan = self._plans.plan(ask.limits, ask.address, ask.hold)
        noted = self._noting(ask, told) if plan.has_shadow else told
        call = AcquireCall(ask, plan, noted, leases=self._leases, purses=self.purses, undo=self._undo_late)
        self._pipeline.add(call)
        return None

    def release(self, ask: Acquire) -> None:
        """Free the slots that a granted ask holds; a second time does nothing."""
        self._spared.pop(ask.lease, None)
        self._free(ask)

    def undo(self, ask: Acquire) -> None:
        """Give back all that a granted ask took: its slots, a unit of each limit on requests, and its hold."""
        if ask.hold is not None and ask.hold.starts:
            self.purses.settle(ask.hold, 0)
        self._give_back(ask)

    def _give_back(self, ask: Acquire) -> None:
        spared = self._spared.pop(ask.lease, ())
        self._free(ask)
        self._send(self._plans.plan(ask.limits, ask.address).undo(spared))

    def charge(self, ask: Acquire, count: int) -> None:
        """Count so many bytes against the ask's limits in bytes."""
        if count > 0:
            self._send(self._plans.plan(ask.limits, ask.address).charge(count))

    def _free(self, ask: Acquire) -> None:
        lease = ask.lease.encode()
        for key in self._leases.take(lease):
            if self.is_up and self._pipeline is not None:
                self._pipeline.add(FreeCall(key, (lease,), leases=self._leases))
            else:
                self._leases.owe(lease, (key,))

    def _undo_late(self, ask: Acquire, verdict: Decision) -> None:
        self._spare(ask, verdict)
        self._give_back(ask)

    def _noting(self, ask: Acquire, told: Callable[[Decision | None], None]) -> Callable[[Decision | None], None]:
        """Return `told`, after a note of what a shadow limit spared; `undo` must not give that back."""

        def noted(verdict: Decision | None) -> None:
            if verdict is not None and verdict.granted:
                self._spare(ask, verdict)
            told(verdict)

        return noted

    def _spare(self, ask: Acquire, verdict: Decision) -> None:
        if verdict.shadowed:
            self._spared[ask.lease] = verdict.shadowed
            if len(self._spared) > _MOST_SPARED:
                self._spared.popitem(last=False)

    # -- sending ----------------------------------------------------------------------------------------------------

    def _send(self, command: Command | None) -> None:
        if command is not None and self.is_up and self._pipeline is not None:
            self._pipeline.add(Call(command))
