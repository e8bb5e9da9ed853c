"""Watermarks: up to when the journals of every gateway that shares the database are in the ledger."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway.ledger.journal import Journal
from gateway.ledger.spool import Spool
from gateway.ledger.spool_folder import claim_folder
from gateway.ledger.watermarks import ABANDONED_SECONDS
from gateway.ledger.writer import LedgerWriter, Listeners
from tests.ledger.rows import DEAD, ONE, held

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.ledger.entry import Entry
    from gateway.ledger.ledger import Ledger

SECOND_US: Final = 10**6


def deaf(*_: object) -> None:
    """Take what the ledger process tells."""


DEAF: Final = Listeners(deaf, deaf, deaf, deaf, deaf)


def behind(ledger: Ledger) -> int | None:
    """Return how many seconds the slowest gateway is behind, rounded."""
    seconds = ledger.watermarks.seconds_behind()
    return None if seconds is None else round(seconds)


def test_the_slowest_gateway_counts(ledger: Ledger) -> None:
    """The clock is the database's; a gateway that has left counts no more, nor one that is abandoned."""
    marks = ledger.watermarks
    now_us = marks.clock_us()
    assert behind(ledger) is None
    marks.write("quick", now_us)
    marks.write("slow", now_us - 90 * SECOND_US)
    marks.write("lost", now_us - (ABANDONED_SECONDS + 1) * SECOND_US)
    assert behind(ledger) == 90
    marks.write("slow", now_us - 30 * SECOND_US)
    assert behind(ledger) == 30
    marks.remove(["slow"])
    assert behind(ledger) == 0
    marks.remove(["quick"])
    assert behind(ledger) is None


def test_a_gateway_that_lives_and_has_no_watermark_may_lack_anything(url: str, ledger: Ledger) -> None:
    """It has not reached the database since it started, or not for long; a file is not shared."""
    marks = ledger.watermarks
    marks.write("one", marks.clock_us())
    marks.write("late", marks.clock_us() - (ABANDONED_SECONDS + 1) * SECOND_US)
    shares = not url.startswith("sqlite")
    assert (marks.seconds_behind(["one", "other"]) is None) == shares
    seconds = marks.seconds_behind(["one", "late"])
    assert seconds is not None
    assert (seconds > ABANDONED_SECONDS) == shares


def test_a_gateway_that_has_bought_nothing_is_not_behind(ledger: Ledger, spool_folder: Path) -> None:
    """Its workers' journals are there, and empty."""
    own = claim_folder(spool_folder, ONE)
    journal = Journal(own.path, name="w")
    writer = LedgerWriter(ledger, Spool(spool_folder, own.path), listeners=DEAF, may_make=False, gateway=ONE)
    assert writer.work()
    assert behind(ledger) == 0
    journal.close()
    own.close()


def test_a_watermark_waits_for_every_journal(ledger: Ledger, spool_folder: Path) -> None:
    """A journal that may not be read yet holds it back; an adopted one's goes once it is applied, ours at the end."""
    dead = claim_folder(spool_folder, DEAD)
    write(dead.path, held(7))
    dead.close()
    ledger.watermarks.write(DEAD, ledger.watermarks.clock_us() - 100 * SECOND_US)
    own = claim_folder(spool_folder, ONE)
    write(own.path, held(1))
    awaited = {"w"}
    spool = Spool(spool_folder, own.path, is_awaited=awaited.__contains__)
    writer = LedgerWriter(ledger, spool, listeners=DEAF, retention_days=400, may_make=False, gateway=ONE)
    assert writer.work()
    assert behind(ledger) is None, "the adopted one's is deleted, ours is not written yet"
    awaited.clear()
    assert writer.work()
    assert behind(ledger) == 0
    assert ledger.holds(0, 2**52).requests == 0, "ended by its writer's death"
    writer.finish(monotonic() + 5)
    own.close()
    assert behind(ledger) is None


def test_no_watermark_is_written_beside_a_journal_that_cannot_be_read(ledger: Ledger, spool_folder: Path) -> None:
    """Where its reader began is not known either, so what it lacks cannot be counted; the last one stays."""
    own = claim_folder(spool_folder, ONE)
    write(own.path, held(1))
    (own.path / "w.checkpoint").mkdir()
    writer = LedgerWriter(
        ledger, Spool(spool_folder, own.path), listeners=DEAF, retention_days=400, may_make=False, gateway=ONE
    )
    assert not writer.work()
    assert behind(ledger) is None
    (own.path / "w.checkpoint").rmdir()
    assert writer.work()
    assert behind(ledger) == 0
    writer.finish(monotonic() + 5)
    own.close()


def write(folder: Path, entry: Entry) -> None:
    """Write a journal with one line, whose writer is gone."""
    journal = Journal(folder, name="w")
    journal.append(entry.to_line())
    assert journal.flush()
    journal.close()
