"""Everything that one emulator remembers, in one place, so that two emulators in a process share nothing.

Decision: time is brought in here, and only here: `wall` for records and bills, `now` for durations.
"""

from __future__ import annotations

import time

from gateway.emulator.behaviour import Behaviour
from gateway.emulator.files import Files
from gateway.emulator.jobs import Jobs
from gateway.emulator.ledger import Ledger


class World:
    """The state behind every handler; `own_url` is the emulator's own address without a last slash."""

    __slots__ = ("behaviour", "files", "jobs", "key", "ledger", "own_url")

    def __init__(self, *, own_url: str, key: str | None) -> None:
        self.own_url = own_url
        self.key = key
        self.behaviour = Behaviour()
        self.ledger = Ledger()
        self.jobs = Jobs()
        self.files = Files()

    def now(self) -> float:
        """Return the seconds of a clock that never jumps."""
        return time.monotonic()

    def wall(self) -> float:
        """Return the seconds since the epoch."""
        return time.time()

    def reset(self) -> None:
        """Go back to the state at start."""
        self.behaviour = Behaviour()
        self.ledger.clear()
        self.jobs.clear()
        self.files.clear()

    def knows(self, authorization: str) -> bool:
        """Return whether an Authorization field holds a key of the account: `Key id:secret`, or `Key` and any text."""
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "key" or not key.strip():
            return False
        return self.key is None or key.strip() in {self.key, self.behaviour.admin_key}
