"""Names of 128 bits in hexadecimal, which no two requests or spans share.

The decision: a request's begins with its moment, so that one that is newer is greater (as UUIDv7 has it): rows named so
lie next to each other in the ledger's indexes, which takes two thirds of the writing. What follows is random. The last
half of the name is wholly so, because a trace that begins here bears it, and is drawn for sampling by that half.

Made after the fork: no two processes may share one.
"""

from __future__ import annotations

import os
from typing import Final

ID_DIGITS: Final = 32
_BYTES_AT_ONCE: Final = 2_048  # one call to the kernel for a hundred names
_MOMENT_DIGITS: Final = 12  # milliseconds since the epoch, until the year 10889
_MILLISECONDS: Final = 1_000


class RandomIds:
    """Random digits, drawn in advance."""

    def __init__(self) -> None:
        self._digits = ""
        self._next = 0

    def next(self, count: int = ID_DIGITS) -> str:
        """Return so many digits that were not given out before."""
        begin = self._next
        if begin + count > len(self._digits):
            self._digits = os.urandom(_BYTES_AT_ONCE).hex()
            begin = 0
        self._next = begin + count
        return self._digits[begin : begin + count]


class RequestIds:
    """Names of requests: the moment, then random digits."""

    def __init__(self) -> None:
        self._random: Final = RandomIds()
        self._millisecond = -1
        self._moment = ""

    def next(self, now: float) -> str:
        """Return a name for a request that came at `now`, in seconds since the epoch."""
        millisecond = int(now * _MILLISECONDS)
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            self._moment = f"{millisecond:0{_MOMENT_DIGITS}x}"
        return self._moment + self._random.next(ID_DIGITS - _MOMENT_DIGITS)
