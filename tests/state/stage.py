"""What tests of the stores stand on: limits made in a word, verdicts awaited, stores opened and closed."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gateway.policy.quota import Limit, LimitSet
from gateway.state.interface import Acquire
from gateway.state.redis.store import RedisStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from gateway.policy.quota import Decision
    from gateway.state.interface import Store

T = TypeVar("T")
WAIT_SECONDS: Final = 20.0
LOOK_SECONDS: Final = 0.005
_NUMBERS: Final = itertools.count(1)


def requests(quota: int, window: float = 3600.0, *, name: str = "submits", **rest: Any) -> Limit:  # noqa: ANN401 (Limit's)
    """Return a limit on requests of one team; by default one that gives nothing back while a test runs."""
    return Limit(name, "team/design", "requests", quota=quota, window=window, **rest)


def content_bytes(quota: int, window: float = 3600.0, *, name: str = "upload", **rest: Any) -> Limit:  # noqa: ANN401
    """Return a limit on bytes of one team."""
    return Limit(name, "team/design", "content-bytes", quota=quota, window=window, **rest)


def concurrent(quota: int, *, name: str = "parallel", **rest: Any) -> Limit:  # noqa: ANN401 (Limit's)
    """Return a limit on what one team has under way."""
    return Limit(name, "team/design", "concurrent-requests", quota=quota, window=0.0, **rest)


def limit_set(*limits: Limit) -> LimitSet:
    """Return limits that are met together."""
    return LimitSet("design", limits)


def fresh(limits: LimitSet, *, address: str = "") -> Acquire:
    """Return a request's ask with a lease that no other has."""
    return Acquire(f"lease-{next(_NUMBERS)}", limits, address)


def ask_later(store: Store, ask: Acquire) -> asyncio.Future[Decision | None]:
    """Ask, and return what will be told; an assertion of the loop's where it is told twice."""
    future: asyncio.Future[Decision | None] = asyncio.get_running_loop().create_future()
    verdict = store.ask(ask, future.set_result)
    if verdict is not None:
        future.set_result(verdict)
    return future


async def judge(store: Store, ask: Acquire) -> Decision:
    """Return the verdict on an ask; AssertionError where the store gave none."""
    verdict = await ask_later(store, ask)
    assert verdict is not None, "the store did not answer in time"
    return verdict


async def settled(condition: Callable[[], T | None], what: str, *, timeout_seconds: float = WAIT_SECONDS) -> T:
    """Return the first true value of `condition`, looked at beside all else; AssertionError after the time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_seconds
    while not (value := condition()):
        if loop.time() > deadline:
            raise AssertionError(f"waited {timeout_seconds:g} s in vain for {what}; last seen: {value!r}")
        await asyncio.sleep(LOOK_SECONDS)
    return value


class Watched:
    """A Redis store with what it told of itself: `changes` of its state, and how many `errors`."""

    def __init__(self, url: str, *, replica: str = "one", **rest: Any) -> None:  # noqa: ANN401 (RedisStore's)
        self.url = url
        self.changes: list[bool] = []
        self.errors = 0
        self.store = RedisStore(url, replica=replica, on_change=self.changes.append, on_error=self._count, **rest)

    def _count(self) -> None:
        self.errors += 1

    async def up(self) -> None:
        """Wait until it may be asked."""
        await settled(lambda: self.store.is_up, "the store to be up")

    async def down(self) -> None:
        """Wait until it may not be asked."""
        await settled(lambda: not self.store.is_up, "the store to be down")


PATIENT_SECONDS: Final = 5.0
"""Patience of stores whose test is not about patience: a busy machine must not fail it."""


@asynccontextmanager
async def watched(url: str, **rest: Any) -> AsyncIterator[Watched]:  # noqa: ANN401 (RedisStore's)
    """Run a store, and close it in the end."""
    made = Watched(url, **rest)
    await made.store.start()
    try:
        yield made
    finally:
        await made.store.close()


@asynccontextmanager
async def redis_pair(url: str) -> AsyncIterator[Sequence[Store]]:
    """Run two stores of two replicas over one server, both patient."""
    async with AsyncExitStack() as stack:
        pair = [
            await stack.enter_async_context(watched(url, replica=name, patience_seconds=PATIENT_SECONDS))
            for name in ("one", "two")
        ]
        for each in pair:
            await each.up()
        yield [each.store for each in pair]
