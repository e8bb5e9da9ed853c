"""A writer whose disk is full for a while: the kernel lets its files grow to a limit, and cuts the write that meets it.

`python -m tests.ledger.full_disk FOLDER`: writes 10 holds, meets the limit 7 bytes into the next ones, tries again in
vain, then gets room. What it tells: whether the flush was whole, whether the journal is full, the file's size; and
after each try the offset at which the journal would end if the writer died, and the size it has then.
"""

from __future__ import annotations

import resource
import sys
from array import array
from pathlib import Path

from gateway.ledger.journal import Journal
from gateway.ledger.segments import MARK_CELLS, seal
from tests.ledger.rows import held, tell


def limit(most_bytes: int) -> None:
    """Let no file of this process grow beyond so many bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))


def write(journal: Journal, first: int, count: int) -> bool:
    """Append so many holds, and say whether all are in the file."""
    for number in range(first, first + count):
        journal.append(held(number).to_line())
    return journal.flush()


def main(folder: str) -> None:
    """Write as the head says."""
    output = Path(folder) / "w-000001.journal"
    line_bytes = len(held().to_line())
    mark = memoryview(array("q", bytes(8 * MARK_CELLS)))
    journal = Journal(Path(folder), name="w", segment_bytes=10 * line_bytes + 3, mark=mark)  # full, but within a line
    start = journal.reach
    write(journal, 0, 10)
    limit(output.stat().st_size + 7)
    is_whole = write(journal, 10, 2)
    tell("sealed", [seal(Path(folder), "w", mark) - start, output.stat().st_size])
    tell("cut", [is_whole, journal.is_full, output.stat().st_size])
    tell("sealed", [seal(Path(folder), "w", mark) - start, output.stat().st_size])
    tell("refused", [write(journal, 12, 4), journal.is_full, output.stat().st_size])
    tell("sealed", [seal(Path(folder), "w", mark) - start, output.stat().st_size])
    limit(resource.RLIM_INFINITY)
    tell("room", [journal.is_full, write(journal, 16, 1)])
    journal.close()


main(*sys.argv[1:])
