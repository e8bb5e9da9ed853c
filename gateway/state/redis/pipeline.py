"""What is under way on one connection: who waits for which answer, until when, and when it has failed too often.

The decisions: the store answers in order, so that the oldest call is the one that an answer is for; one timer serves
all deadlines, since they come in the same order; and a call that was told of failure stays in its place, so that an
answer that comes after all can be made undone. Five failures in a row are enough.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from gateway.state.redis.connection import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.state.redis.commands import Command
    from gateway.state.redis.connection import Link

MOST_FAILURES: Final = 5
MOST_PENDING: Final = 10_000
_FORGOTTEN: Final = "NOSCRIPT"
_NO_MEMORY: Final = "OOM"  # which does not pass by itself, and which some of the scripts are spared: once is enough


class Call:
    """A command under way. Nobody waits for what becomes of this one; those who do override."""

    __slots__ = ("by_text", "command", "deadline", "is_over")

    def __init__(self, command: Command) -> None:
        self.command: Final = command
        self.deadline = 0.0
        self.is_over = False
        self.by_text = False

    def accept(self, answer: object) -> None:
        """Take the answer that came in time; ValueError where it makes no sense."""

    def fail(self) -> None:
        """Take it that there is no answer in time. Instead of `accept`, or after a ValueError of it."""

    def late(self, answer: object) -> None:
        """Take the answer that came after `fail`; ValueError where it makes no sense."""

    def lose(self) -> None:
        """Take it that after `fail` no answer will come, and what became of the command is not known."""


class Pipeline:
    """The calls on one connection, from its first to its last."""

    def __init__(
        self,
        link: Link,
        *,
        patience_seconds: float,
        on_error: Callable[[], None],
        give_up: Callable[[], None],
    ) -> None:
        """`on_error` is called at each failed call, `give_up` once, when there were too many in a row."""
        self.kinds: Final[set[str]] = set()
        """Why calls failed, one word for each kind."""
        self._link = link
        self._patience = patience_seconds
        self._on_error = on_error
        self._give_up = give_up
        self._loop = asyncio.get_running_loop()
        self._pending: deque[Call] = deque()
        self._waiting: deque[Call] = deque()  # by deadline; what is over leaves when it comes to the front
        self._timer: asyncio.Handle | None = None
        self._failures = 0  # in a row

    def add(self, call: Call) -> None:
        """Send a call; it is told later, exactly once. One beyond all bounds fails."""
        if len(self._pending) >= MOST_PENDING:
            self._fail(call, "full")
            return
        call.deadline = self._loop.time() + self._patience
        self._pending.append(call)
        self._waiting.append(call)
        if self._timer is None:
            self._timer = self._loop.call_at(call.deadline, self._due)
        self._link.send(call.command.packed())

    def answered(self, answer: object) -> None:
        """Take the next answer; ValueError where it makes no sense."""
        if not self._pending:
            raise ValueError("an answer that nobody asked for")
        call = self._pending.popleft()
        if isinstance(answer, Refused):
            self._refused(call, answer.kind)
        elif call.is_over:
            call.late(answer)
        else:
            self._accepted(call, answer)

    def abandon(self, kind: str) -> None:
        """Let all fail that are under way; the pipeline is of no use after it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting.clear()
        pending, self._pending = self._pending, deque()
        for call in pending:
            if not call.is_over:
                self._fail(call, kind)
            call.lose()

    def _accepted(self, call: Call, answer: object) -> None:
        try:
            call.accept(answer)
        except ValueError:
            self._fail(call, "garbage")
            call.lose()
            raise
        call.is_over = True
        self._failures = 0

    def _refused(self, call: Call, kind: str) -> None:
        """Send a script again that the store has forgotten; all other refusals are failures."""
        if kind == _FORGOTTEN and not call.by_text and not call.is_over:
            call.by_text = True
            self._pending.append(call)  # its deadline stays where it is
            self._link.send(call.command.packed(by_text=True))
        elif not call.is_over:
            self._fail(call, kind)

    def _fail(self, call: Call, kind: str) -> None:
        call.is_over = True
        self.kinds.add(kind)
        self._failures += 1
        self._on_error()
        call.fail()
        if self._failures == MOST_FAILURES or kind == _NO_MEMORY:
            self._give_up()

    def _due(self) -> None:
        """Look at the deadlines one step later: an answer that has arrived by now is read first."""
        self._timer = self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        waiting = self._waiting
        while waiting and (waiting[0].is_over or waiting[0].deadline <= now):
            call = waiting.popleft()
            if not call.is_over:
                self._fail(call, "no_answer")  # may give up, and so leave nobody waiting
        if self._waiting and self._timer is None:
            self._timer = self._loop.call_at(self._waiting[0].deadline, self._due)
