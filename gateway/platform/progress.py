"""Progress of what takes long, on a terminal: one line, rewritten, and removed at the end.

The decision: a thread writes it, so that what is waited for (a query, a page of fal's bill) need not be cut into
pieces. Nothing is written where standard error is no terminal, and nothing within the first second.
"""

from __future__ import annotations

import sys
import threading
from time import monotonic
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from typing import TextIO

FIRST_SECONDS: Final = 1.0
EVERY_SECONDS: Final = 0.25
_ERASE: Final = "\r\x1b[K"


class Progress:
    """A context within which the line is shown: what is done, how far it is, and for how many seconds."""

    def __init__(self, words: str, *, to: TextIO | None = None, first_seconds: float = FIRST_SECONDS) -> None:
        """Show `words` on a terminal, standard error unless another stream is given."""
        self._words = words
        self._stream = to or sys.stderr
        self._first_seconds = first_seconds
        self._state = ""
        self._began = monotonic()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._stream is not None and self._stream.isatty():  # it is None where it was closed at the start
            self._thread = threading.Thread(target=self._keep, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def show(self, done: int, of: int | None = None) -> None:
        """Show how far it is: a count, or a share where it is known how many there are."""
        self._state = f" {done:,}" if of is None else f" {done * 100 // max(of, 1)} %"

    def _keep(self) -> None:
        pause, is_shown = self._first_seconds, False
        while not self._ended.wait(pause):
            seconds = int(monotonic() - self._began)
            self._write(f"{_ERASE}{self._words}:{self._state} {seconds} s")
            pause, is_shown = EVERY_SECONDS, True
        if is_shown:
            self._write(_ERASE)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # the terminal is gone, or the stream was closed
            self._ended.set()
