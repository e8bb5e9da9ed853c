"""What Python prints on stderr by itself, as events: its log is JSON, a line an event, whatever goes wrong.

An exception that ends a thread, one that nobody can be told of (raised while an object goes, or in a callback of C),
and one that ends the process.
"""

from __future__ import annotations

import sys
import threading
import traceback
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from types import TracebackType


def catch() -> None:
    """Route them to the log from now on, in this process and in those that it forks."""
    threading.excepthook = _thread_failed
    sys.unraisablehook = _ignored
    sys.excepthook = _process_failed


def _thread_failed(args: threading.ExceptHookArgs, /) -> None:
    name = args.thread.name if args.thread is not None else None
    structlog.get_logger().error("thread_failed", thread=name, exception=_text(args.exc_value))


def _ignored(args: sys.UnraisableHookArgs, /) -> None:
    place = f"{args.err_msg or 'Exception ignored in'}: {args.object!r}"
    structlog.get_logger().error("exception_ignored", place=place, exception=_text(args.exc_value))


def _process_failed(kind: type[BaseException], error: BaseException, trace: TracebackType | None, /) -> None:
    if isinstance(error, KeyboardInterrupt):  # a person's wish, and no fault
        sys.__excepthook__(kind, error, trace)
        return
    structlog.get_logger().error("process_failed", exception=_text(error))


def _text(error: BaseException | None) -> str:
    return "".join(traceback.format_exception(error)).rstrip() if error is not None else ""
