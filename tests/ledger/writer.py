"""A worker that only buys: one hold after another, each settled at once but those that are to be left open.

`python -m tests.ledger.writer FOLDER NAME FIRST COUNT OPEN`: purchases FIRST to FIRST + COUNT, of which the first OPEN
stay held; then it tells `written` and waits to be ended. COUNT 0: it goes on until it is killed, telling each number
that is in the file.
"""

from __future__ import annotations

import itertools
import signal
import sys
import time
from pathlib import Path

from gateway.ledger.journal import Journal
from tests.ledger.rows import held, settled, tell


def main(folder: str, name: str, first: str, count: str, left_open: str) -> None:
    """Write as the arguments say."""
    journal = Journal(Path(folder), name=name, segment_bytes=16_384)
    numbers = range(int(first), int(first) + int(count)) if int(count) else itertools.count(int(first))
    for number in numbers:
        journal.append(held(number).to_line())
        journal.flush()
        if not int(count):
            time.sleep(0.001)  # a pace that a database keeps up with
        if number >= int(first) + int(left_open):
            journal.append(settled(number).to_line())
            if not journal.flush():
                raise AssertionError("the journal is full")
            if not int(count):
                tell("bought", number)
    tell("written", int(count))
    signal.pause()


main(*sys.argv[1:])
