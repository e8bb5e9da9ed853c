"""The log: JSON lines on stderr, one `exchange` event for each request, and the events of the processes' lives.

The decision: structlog's interface for events that are rare (`structlog.get_logger().info("worker_ready", worker=1)`),
one method for the one that is not (`Log.exchange`), and one way out for both and for the standard library's logging:
the `Writer`. Levels are decided and times are taken at the call, all else in the writer's thread.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any, Final, NoReturn

import structlog

from gateway.telemetry.log import excepthooks as strays
from gateway.telemetry.log.rendering import LEVEL_OF, Event, console_renderer, json_renderer
from gateway.telemetry.log.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import EventDict

    from gateway.telemetry.record import ExchangeRecord

STDERR: Final = 2
_TALKATIVE: Final = ("alembic",)  # tells its every step at `info`, seven of them while it is imported


class Log:
    """One process's log; made before the fork, its writer thread started after it."""

    def __init__(self, *, level: str = "info", console: bool = False, fd: int = STDERR) -> None:
        """Log from `level` (debug, info, warning, error) on to `fd`, as JSON or for the eyes of a person."""
        self._level = logging.getLevelNamesMapping()[level.upper()]
        self._shown = frozenset(outcome for outcome, name in LEVEL_OF.items() if self._shows(name))
        render = console_renderer(colours=os.isatty(fd)) if console else json_renderer()
        self._writer: Writer[ExchangeRecord | Event] = Writer(fd, render=render, count_dropped=_uncounted)

    def install(self) -> None:
        """Route structlog, the standard library's logging, and what Python prints here; once, before any event."""
        structlog.configure(
            processors=[structlog.processors.add_log_level, structlog.processors.format_exc_info, self._take],
            wrapper_class=structlog.make_filtering_bound_logger(self._level),
            cache_logger_on_first_use=False,
        )
        logging.basicConfig(handlers=[LibraryRoute(self._writer.put)], level=self._level, force=True)
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(max(self._level, logging.WARNING))
        logging.captureWarnings(capture=True)
        strays.catch()

    def count_to(self, count_dropped: Callable[[int], None]) -> None:
        """Count lost lines there from now on (a process's `Meter.count_dropped`)."""
        self._writer.count_dropped = count_dropped

    def start_writer(self) -> None:
        """Start the writer thread of this process; until then events are written, or dropped, at once."""
        self._writer.start()

    def stop(self, timeout_seconds: float) -> bool:
        """Write what is left, within the time; False where lines were lost."""
        return self._writer.stop(timeout_seconds)

    def exchange(self, record: ExchangeRecord) -> None:
        """Log a closed record, which nobody may change from here on."""
        if record.outcome in self._shown:
            self._writer.put(record)

    def _shows(self, level_name: str) -> bool:
        return logging.getLevelNamesMapping()[level_name.upper()] >= self._level

    def _take(self, _logger: object, _method: str, event: EventDict) -> NoReturn:
        """End structlog's chain: the event is rendered later, and no logger of structlog's is called."""
        self._writer.put({"timestamp": time.time(), **event})
        raise structlog.DropEvent


class LibraryRoute(logging.Handler):
    """Takes what Tornado, asyncio and others say through `logging`, as an event that names the logger."""

    def __init__(self, put: Callable[[Event], None]) -> None:
        """Hand events to `put`."""
        super().__init__()
        self._put = put

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record; the text is the library's, the shape is ours."""
        event: dict[str, Any] = {
            "timestamp": record.created,
            "level": record.levelname.lower(),
            "event": "library_message",
            "logger": record.name,
            "message": _message(record),
        }
        if record.exc_info:
            event["exception"] = logging.Formatter().formatException(record.exc_info)
        self._put(event)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):  # arguments that do not fit their format string
        return str(record.msg)


def _uncounted(_lines: int) -> None:
    """Stand in until the process has a meter; what is lost before that is lost uncounted."""
