"""Places: up to where the ledger has each journal, as of the same moment as its sums."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.ledger.daily_totals import DAY_US
from gateway.ledger.journal import Journal
from gateway.ledger.journal_places import Places
from gateway.ledger.spool import Spool
from gateway.ledger.writer import LedgerWriter
from tests.ledger.rows import NOON_US, ONE, held, settled
from tests.ledger.test_watermarks import DEAF

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.ledger.ledger import Ledger

MIDNIGHT_US: Final = NOON_US // DAY_US * DAY_US


def places(ledger: Ledger) -> dict[tuple[str, str], int]:
    """Return them."""
    return ledger.cut_since(MIDNIGHT_US).places


def test_places_never_go_back_and_end_with_their_journals(ledger: Ledger) -> None:
    """A ledger process that was killed reads some lines again, whose rows are there already."""
    reached = {("one", "worker-0-1"): 500, ("one", "worker-1-2"): 7}
    ledger.apply([settled(1, cost_ns=3)], places=Places(reached, ()))
    ledger.apply([], places=Places({("one", "worker-0-1"): 300}, ()))
    cut = ledger.cut_since(MIDNIGHT_US)
    assert (cut.sums.spent.keys, cut.places) == ({"web-prod": 3}, reached)
    ledger.apply([], places=Places({}, [("one", "worker-1-2")]))
    assert places(ledger) == {("one", "worker-0-1"): 500}


def test_places_of_gateways_without_a_watermark_go(ledger: Ledger) -> None:
    """Of those that have ended, and of those that were given up."""
    ledger.watermarks.write("one", ledger.watermarks.clock_us())
    for gateway in ("one", "gone"):
        ledger.apply([], places=Places({(gateway, "worker-0-1"): 1}, ()))
    ledger.watermarks.remove(())
    assert places(ledger) == {("one", "worker-0-1"): 1}


def test_a_ledger_process_writes_down_how_far_it_has_come(ledger: Ledger, spool_folder: Path) -> None:
    """Exactly where the last line ends that the rows tell of; a journal that has ended is taken out."""
    own = spool_folder / ONE
    own.mkdir(parents=True)
    journal, spool = Journal(own, name="worker-0-9"), Spool(spool_folder, own)
    writer = LedgerWriter(ledger, spool, listeners=DEAF, retention_days=10_000, may_make=True, gateway=ONE)
    for number in range(3):
        journal.append(held(number).to_line())
        journal.flush()
        assert writer.work()
        assert places(ledger) == {(ONE, "worker-0-9"): journal.end}
    journal.close()
    assert writer.work()
    assert places(ledger) == {}
