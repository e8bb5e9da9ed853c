"""Signals: which ones a process acts on, and how it waits for them.

The decision: only the supervisor acts on signals from outside. A terminal, systemd, supervisord and `kill -- -PGID`
signal every process at once, so a child ignores SIGTERM, SIGINT and SIGHUP, and the supervisor asks it to stop with
`STOP`, a real-time signal that no one else sends; two of them are two, because real-time signals queue.

Waiting goes by a pipe into which the interpreter writes the number of each signal (`signal.set_wakeup_fd`).
`signal.sigtimedwait` returns uninitialised memory when a stop and a continue (SIGSTOP, `docker pause`) interrupt it
past its time: to its caller that looks like any signal at all.
"""

from __future__ import annotations

import math
import os
import select
import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterable

STOP: Final = signal.Signals(signal.SIGRTMIN)
"""From the supervisor to a child: stop; a second one: at once. Blocked in a child until something takes it."""

RELOAD: Final = signal.Signals(signal.SIGRTMAX)
"""From the supervisor to the process that follows the policy: read it again."""

FROM_OUTSIDE: Final = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
_OF_SUPERVISOR: Final = FROM_OUTSIDE | {signal.SIGCHLD}
_TO_CHILDREN: Final = frozenset((STOP, RELOAD))
_READ_BYTES: Final = 4096


def guard_start() -> None:
    """Let SIGTERM and SIGINT end a gateway that has started nothing yet with exit code 0, and SIGHUP do nothing.

    To be called first of all: without it SIGHUP ends a start, and the first process of a container, to which the
    kernel delivers no signal that it has no handler for, misses SIGTERM.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)


def _exit(_number: int, _frame: object) -> None:
    os._exit(0)


def block_in_fork() -> None:
    """Hold back all signals that parent and child treat differently; before a fork, in the parent."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _OF_SUPERVISOR | _TO_CHILDREN)


def unblock_in_parent() -> None:
    """Take signals again, after a fork."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_SUPERVISOR | _TO_CHILDREN)


def ignore_in_child() -> None:
    """Ignore what reaches the whole group, after a fork; `STOP` and `RELOAD` stay blocked, so that none is lost."""
    for number in FROM_OUTSIDE:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_SUPERVISOR)


def call_on_stop(loop: AbstractEventLoop, call: Callable[[], None]) -> None:
    """Call within the loop at each `STOP`, also at one that has come before."""
    loop.add_signal_handler(STOP, call)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (STOP,))


class SignalPipe:
    """The signals of some numbers, in the order in which they came; for the main thread of a process without a loop."""

    def __init__(self, numbers: Iterable[signal.Signals], *, call: Callable[[], None] = lambda: None) -> None:
        """Take these signals from now on, also those that were blocked; `call` is called at each, wherever it comes."""
        self._numbers = frozenset(numbers)
        self._reader, self._writer = os.pipe()
        for fd in (self._reader, self._writer):
            os.set_blocking(fd, False)
        self._poll = select.poll()
        self._poll.register(self._reader, select.POLLIN)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in self._numbers:
            signal.signal(number, lambda _number, _frame: call())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._numbers)

    def wait(self, seconds: float) -> list[int]:
        """Return what has come, as soon as something has; nothing after the time."""
        if not self._poll.poll(math.ceil(seconds * 1000)):
            return []
        return [number for number in os.read(self._reader, _READ_BYTES) if number in self._numbers]

    def close(self) -> None:
        """Close the pipe, in a child to which it does not belong."""
        signal.set_wakeup_fd(-1)
        os.close(self._reader)
        os.close(self._writer)


def supervisor_signals() -> SignalPipe:
    """Return the pipe of the supervisor: signals from outside, and the end of children."""
    return SignalPipe(_OF_SUPERVISOR)


class Stop:
    """Whether this process is to end. Once it is, the alarm is set: it kills what has not ended in time by itself."""

    def __init__(self, number: signal.Signals, *, last_seconds: int) -> None:
        """Take this signal from here on, and no SIGINT: a Ctrl-C goes to all, and workers have last lines to write.

        `last_seconds` is how long this process may take once it is asked.
        """
        self.is_asked = False
        self._last_seconds = last_seconds
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        self._signals = SignalPipe((number,), call=self.ask)

    def ask(self) -> None:
        """Ask this process to end; the first time counts."""
        if not self.is_asked:
            self.is_asked = True
            signal.alarm(self._last_seconds)

    def comes_within(self, seconds: float) -> bool:
        """Wait so long for it to be asked."""
        if not self.is_asked and self._signals.wait(seconds):
            self.ask()
        return self.is_asked
