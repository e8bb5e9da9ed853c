"""The reader's end: nothing twice, nothing lost, whoever dies; and what dead gateways leave."""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from gateway.ledger.errors import LedgerUnavailableError
from gateway.ledger.journal import Journal
from gateway.ledger.spool import Spool
from gateway.ledger.spool_folder import FolderTakenError, SpoolFolder, claim_folder
from tests.ledger.rows import DEAD, ONE, TWO, bound, held, settled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gateway.ledger.entry import Entry
    from tests.ledger.rows import Program


@pytest.fixture
def own(spool_folder: Path) -> Iterator[SpoolFolder]:
    """Claim the folder of the gateway under test."""
    folder = claim_folder(spool_folder, "own")
    yield folder
    folder.close()


@pytest.fixture
def spool(spool_folder: Path, own: SpoolFolder) -> Spool:
    """Return a spool of that gateway that has applied nothing."""
    return Spool(spool_folder, own.path)


def write(journal: Journal, *entries: Entry) -> None:
    """Have a worker write these."""
    for entry in entries:
        journal.append(entry.to_line())
    assert journal.flush()


def drain(spool: Spool, most: int = 1_000) -> tuple[list[Entry], list[Entry], int]:
    """Read and apply all that is there; return entries, those finished here, and the lines skipped."""
    entries: list[Entry] = []
    finished: list[Entry] = []
    skipped = 0
    while not (batch := spool.read(most)).is_empty:
        assert len(batch.entries) <= most
        entries += batch.entries
        finished += batch.finished
        skipped += batch.skipped
        spool.applied(batch)
    return entries, finished, skipped


def names(folder: Path) -> list[str]:
    """Return the names of a folder's files."""
    return sorted(path.name for path in folder.iterdir())


def test_what_was_not_applied_comes_again(own: SpoolFolder, spool: Spool) -> None:
    """Reading moves nothing: a database that was away gets the same lines the next time."""
    journal = Journal(own.path, name="w")
    write(journal, held(1), held(2))
    assert spool.read(10).entries == spool.read(10).entries == [held(1), held(2)]
    assert spool.unapplied_bytes() == len(held(1).to_line() * 2)
    assert drain(spool) == ([held(1), held(2)], [], 0)
    assert (spool.unapplied_bytes(), spool.read(10).is_empty) == (0, True)
    journal.close()


def test_a_batch_is_bounded_and_all_journals_have_their_turn(own: SpoolFolder, spool: Spool) -> None:
    """One busy worker does not keep the lines of another from the database."""
    busy, quiet = Journal(own.path, name="a"), Journal(own.path, name="b")
    write(busy, *map(held, range(50)))
    write(quiet, held(99))
    first, second = spool.read(10), spool.read(10)
    assert len(first.entries) == 10
    assert held(99) in first.entries + second.entries
    assert len(drain(spool, most=10)[0]) == 51
    busy.close()
    quiet.close()


def test_applied_segments_are_deleted(own: SpoolFolder, spool: Spool) -> None:
    """Only the last segment of a live writer stays."""
    journal = Journal(own.path, name="w", segment_bytes=1_000)
    for number in range(20):
        write(journal, settled(number))
    before = names(own.path)
    assert [entry.id for entry in drain(spool)[0]] == [settled(number).id for number in range(20)]
    assert len([name for name in before if name.endswith(".journal")]) > 3
    assert names(own.path) == ["gateway.lock", before[-2], "w.checkpoint", "w.lock"]
    journal.close()


def test_garbage_is_skipped_and_counted(own: SpoolFolder, spool: Spool) -> None:
    """A line that tells nothing takes no other with it."""
    journal = Journal(own.path, name="w")
    journal.append(b"\x00\xff garbage\n\n")
    write(journal, held(1))
    journal.append(held(2).to_line()[5:])
    write(journal, held(3))
    assert drain(spool) == ([held(1), held(3)], [], 3)
    journal.close()


def test_garbage_without_end_is_skipped(own: SpoolFolder, spool: Spool) -> None:
    """A megabyte without a line feed holds nobody up."""
    journal = Journal(own.path, name="w", segment_bytes=8 << 20)
    journal.append(b"x" * (1 << 20))
    write(journal, held(1), held(2))
    assert drain(spool) == ([held(1), held(2)], [], 1)
    journal.close()


def test_half_a_line_waits_for_its_other_half(own: SpoolFolder, spool: Spool) -> None:
    """While its writer lives, a line without its line feed is not there yet."""
    journal = Journal(own.path, name="w")
    line = held(1).to_line()
    journal.append(line[:40])
    journal.flush()
    assert drain(spool) == ([], [], 0)
    journal.append(line[40:])
    journal.flush()
    assert drain(spool) == ([held(1)], [], 0)
    journal.close()


def test_the_holds_of_a_dead_writer_are_charged(own: SpoolFolder, spool: Spool) -> None:
    """A hold without fal's id is unknown at its estimate; an unpriced one at no cost; a job stays held at fal."""
    journal = Journal(own.path, name="w")
    write(journal, held(1), settled(1), held(2), held(3, estimate_ns=None), held(4), bound(4))
    journal.close()
    entries, finished, skipped = drain(spool)
    assert [entry.id[-1] for entry in entries] == ["1", "2", "3", "4", "4"]
    assert [(entry.id[-1], entry.status, entry.source, entry.cost_ns) for entry in finished] == [
        ("2", "unknown", "unknown", 25_000_000),
        ("3", "unknown", "unknown", None),
    ]
    assert (skipped, names(own.path)) == (0, ["gateway.lock"])


def test_a_hold_is_passed_over_where_its_end_is_read(own: SpoolFolder, spool: Spool) -> None:
    """The hold of a run whose end stands behind it tells nothing more; where the end is garbage it is all there is."""
    journal = Journal(own.path, name="w")
    journal.append(held(1).to_line() + settled(1).to_line())
    journal.append(held(2).to_line() + settled(2).to_line().replace(b"settled", b"settles"))
    journal.append(held(3, kind="submit").to_line() + settled(3, kind="submit").to_line())
    journal.flush()
    assert drain(spool) == ([settled(1), held(2), held(3, kind="submit"), settled(3, kind="submit")], [], 1)
    journal.close()


def test_a_new_reader_knows_the_holds_of_deleted_segments(own: SpoolFolder, spool_folder: Path, spool: Spool) -> None:
    """The line of a hold may be gone with its segment when its writer dies, and the reader may be another one."""
    journal = Journal(own.path, name="w", segment_bytes=1_000)
    for number in range(20):
        write(journal, *([held(number)] if number == 1 else [held(number), settled(number)]))
    drain(spool)
    assert not (own.path / "w-000001.journal").exists()
    successor = Spool(spool_folder, own.path)
    assert drain(successor) == ([], [], 0)
    journal.close()
    assert [entry.id for entry in drain(successor)[1]] == [held(1).id]


def test_a_new_reader_begins_where_the_last_one_noted(own: SpoolFolder, spool_folder: Path, spool: Spool) -> None:
    """After a note nothing comes again; without one everything that is still there does, which does no harm."""
    journal = Journal(own.path, name="w")
    write(journal, held(1), held(2))
    drain(spool)
    spool.note()
    write(journal, held(3))
    assert drain(Spool(spool_folder, own.path))[0] == [held(3)]
    (own.path / "w.checkpoint").write_bytes(b"lost by the disk")
    assert drain(Spool(spool_folder, own.path))[0] == [held(1), held(2), held(3)]
    journal.close()


def test_a_disk_that_takes_no_note_does_not_keep_segments(own: SpoolFolder, spool: Spool) -> None:
    """A full disk gets its room back all the same, and no old note is left to mislead a new reader."""
    (own.path / ".w.checkpoint").mkdir()  # a draft cannot be written there
    (own.path / "w.checkpoint").write_bytes(b"[1,0,[]]")
    journal = Journal(own.path, name="w", segment_bytes=1_000)
    for number in range(20):
        write(journal, held(number))
    drain(spool)
    assert not (own.path / "w-000001.journal").exists()
    assert not (own.path / "w.checkpoint").exists()
    (own.path / ".w.checkpoint").rmdir()
    journal.close()
    assert len(drain(spool)[1]) == 20


def test_a_killed_writer_loses_nothing_that_it_let_go_out(
    own: SpoolFolder, spool: Spool, start_program: Callable[..., Program]
) -> None:
    """After kill -9 every purchase is there that was in the file, and at most its last one is open or torn."""
    writer = start_program("writer", own.path, "w", 0, 0, 0)
    seen: list[Entry] = []
    while len(writer.told("bought")) < 200:
        seen += drain(spool)[0]
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait(10)
    bought = writer.told("bought")
    entries, finished, skipped = drain(spool)
    ids = {entry.id for entry in seen + entries if entry.status == "settled"}
    assert {settled(number).id for number in bought} <= ids
    assert len(ids) - len(bought) <= 1
    assert len(finished) + skipped <= 2
    assert names(own.path) == ["gateway.lock"]


def test_a_torn_last_line_is_counted(own: SpoolFolder, spool: Spool) -> None:
    """What a killed writer left half-written is skipped, and its journal goes all the same."""
    journal = Journal(own.path, name="w")
    journal.append(held(1).to_line() + settled(1).to_line()[:-20])
    journal.flush()
    journal.close()
    entries, finished, skipped = drain(spool)
    assert (entries, [entry.status for entry in finished], skipped) == ([held(1)], ["unknown"], 1)
    assert names(own.path) == ["gateway.lock"]


def test_a_dead_writer_that_is_awaited_is_left_alone(spool_folder: Path, own: SpoolFolder) -> None:
    """What it was writing may still be cut; one that lives is read, and one of another gateway's folder, too."""
    awaited = {"w", "alive"}
    spool = Spool(spool_folder, own.path, is_awaited=awaited.__contains__)
    dead, alive = Journal(own.path, name="w"), Journal(own.path, name="alive")
    write(dead, held(1))
    write(alive, held(2))
    dead.close()
    other = claim_folder(spool_folder, ONE)
    namesake = Journal(other.path, name="w")
    write(namesake, held(3))
    namesake.close()
    other.close()
    assert spool.adopt() == [other.path]
    entries, finished, _ = drain(spool)
    assert sorted(entries, key=lambda entry: entry.id) == [held(2), held(3)]
    assert [entry.id for entry in finished] == [held(3).id]
    assert spool.unapplied_bytes() == len(held(1).to_line())
    awaited.remove("w")
    entries, finished, _ = drain(spool)
    assert (entries, [entry.id for entry in finished]) == ([held(1)], [held(1).id])
    alive.close()


def test_a_segment_that_ends_within_a_line_is_left_behind(own: SpoolFolder, spool: Spool) -> None:
    """A disk that failed for good in the middle of a segment holds nobody up once there is a later one."""
    journal = Journal(own.path, name="w", segment_bytes=100)
    write(journal, held(1), held(2))
    write(journal, held(3))
    (own.path / "w-000001.journal").write_bytes(held(1).to_line() + held(2).to_line()[:30])
    assert drain(spool) == ([held(1), held(3)], [], 1)
    journal.close()


def test_a_living_gateway_s_folder_is_its_own(spool_folder: Path, own: SpoolFolder, spool: Spool) -> None:
    """It is neither adopted by others nor claimed twice."""
    other = claim_folder(spool_folder, ONE)
    journal = Journal(other.path, name="w")
    write(journal, held(1))
    assert spool.adopt() == []
    assert drain(spool)[0] == []
    with pytest.raises(FolderTakenError):
        claim_folder(spool_folder, own.path.name)
    journal.close()
    other.close()


def test_a_dead_gateway_s_folder_is_adopted_read_and_deleted(spool_folder: Path, spool: Spool) -> None:
    """What it left comes to the database through whoever finds it, and then nothing of it is left."""
    other = claim_folder(spool_folder, ONE)
    journal = Journal(other.path, name="w")
    write(journal, held(1), settled(2))
    journal.close()
    (other.path / ".x.lock").touch()  # of a writer that died at its birth
    other.close()
    assert spool.adopt() == [other.path]
    assert spool.adopt() == []
    assert spool.unapplied_bytes() > 0
    entries, finished, _ = drain(spool)
    assert (entries, [entry.id for entry in finished]) == ([held(1), settled(2)], [held(1).id])
    assert names(spool_folder) == ["own"]


def test_of_two_gateways_one_adopts(spool_folder: Path, own: SpoolFolder, spool: Spool) -> None:
    """Both look at once; the lock decides, and what the adopter has not applied when it goes is there for the next."""
    dead = claim_folder(spool_folder, DEAD)
    journal = Journal(dead.path, name="w")
    write(journal, held(1))
    journal.close()
    dead.close()
    rival_folder = claim_folder(spool_folder, TWO)
    rival = Spool(spool_folder, rival_folder.path)
    assert (spool.adopt(), rival.adopt()) == ([dead.path], [])
    spool.close()
    assert rival.adopt() == [dead.path]
    assert drain(rival)[0] == [held(1)]
    rival_folder.close()
    assert names(spool_folder) == [own.path.name]


def test_the_next_gateway_reads_along_until_it_adopts(spool_folder: Path, own: SpoolFolder) -> None:
    """What orphans write is known at once. Until their folder is free nothing in it is changed; then all is read again.

    The old gateway's own ledger process may be there, or gone.
    """
    old = claim_folder(spool_folder, ONE)
    journal = Journal(old.path, name="w")
    write(journal, held(1), settled(2))
    files = names(old.path)
    spool = Spool(spool_folder, own.path, predecessors=[old.path])
    assert spool.adopt() == []
    assert drain(spool) == ([held(1), settled(2)], [], 0)
    write(journal, bound(3))
    assert drain(spool) == ([bound(3)], [], 0)
    spool.note()
    assert names(old.path) == files
    journal.close()
    assert drain(spool) == ([], [], 0)  # its writer is dead, and the folder is not free yet
    old.close()
    assert spool.adopt() == [old.path]
    entries, finished, _ = drain(spool)
    assert (entries, [entry.id for entry in finished]) == ([held(1), settled(2), bound(3)], [held(1).id])
    assert names(spool_folder) == ["own"]


def test_a_draining_gateway_reads_nothing_of_the_next_one(spool_folder: Path, own: SpoolFolder) -> None:
    """Its successor compares budgets at cuts through its own journals, and alone says what of them is in the ledger."""
    spool = Spool(spool_folder, own.path, predecessors=[spool_folder / TWO])
    successor = claim_folder(spool_folder, ONE)
    journal = Journal(successor.path, name="w")
    write(journal, held(1), settled(2))
    assert spool.adopt() == []
    assert drain(spool) == ([], [], 0)
    assert spool.unapplied_bytes() == 0
    journal.close()
    successor.close()
    assert spool.adopt() == [successor.path]


def test_a_folder_that_goes_away_is_read_along_no_more(spool_folder: Path, own: SpoolFolder) -> None:
    """Its own ledger process has applied all of it, and took it away when the last of its gateway ended."""
    old = claim_folder(spool_folder, ONE)
    journal = Journal(old.path, name="w")
    write(journal, held(1))
    spool = Spool(spool_folder, own.path, predecessors=[old.path])
    spool.adopt()
    assert drain(spool) == ([held(1)], [], 0)
    write(journal, settled(1))
    journal.close()
    assert drain(Spool(spool_folder, old.path))[0] == [settled(1)]
    old.close()
    assert drain(spool) == ([], [], 0)
    assert spool.unapplied_bytes() == 0
    assert spool.adopt() == []


def test_a_gateway_that_comes_back_takes_its_folder_over(spool_folder: Path) -> None:
    """One that always has the same id finds what its last life left."""
    first = claim_folder(spool_folder, "same")
    journal = Journal(first.path, name="w")
    write(journal, held(1))
    journal.close()
    first.close()
    second = claim_folder(spool_folder, "same")
    entries, finished, _ = drain(Spool(spool_folder, second.path))
    assert (len(entries), len(finished)) == (1, 1)
    second.close()
    assert not second.path.exists()


def test_the_lock_outlives_the_process_that_took_it(spool_folder: Path, spool: Spool) -> None:
    """A worker that goes on without its supervisor keeps the folder its gateway's: what is forked holds the lock."""
    other = claim_folder(spool_folder, ONE)
    journal = Journal(other.path, name="w")
    write(journal, held(1))
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        os.read(read_end, 1)
        os._exit(0)
    os.close(other._lock)  # as if the supervisor were gone: its descriptor, without taking leave
    assert spool.adopt() == []
    os.write(write_end, b".")
    os.waitpid(child, 0)
    journal.close()
    assert spool.adopt() == [other.path]
    os.close(read_end)
    os.close(write_end)
    other._lock = -1
    spool.close()


def test_only_what_a_gateway_made_is_touched(spool_folder: Path, own: SpoolFolder, spool: Spool) -> None:
    """A mount's `lost+found`, an operator's copy of a folder, a note within a dead gateway's: all left as they are."""
    dead = claim_folder(spool_folder, DEAD)
    journal = Journal(dead.path, name="w")
    write(journal, held(1))
    journal.close()
    dead.close()
    strangers = {
        spool_folder / "lost+found" / "#12": b"an inode",
        spool_folder / "backup" / "w-000001.journal": held(2).to_line(),
        spool_folder / f"{DEAD}.copy" / "gateway.lock": b"",
        spool_folder / f"{DEAD}.copy" / "w.lock": b"",
        dead.path / "note.txt": b"do not delete",
        dead.path / "old" / "w-000001.journal": held(3).to_line(),
        own.path / "note.txt": b"nor this",
    }
    for path, content in strangers.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    assert spool.adopt() == [dead.path]
    assert drain(spool)[0] == [held(1)]
    spool.close()
    assert {path: path.read_bytes() for path in strangers} == strangers
    assert sorted(path.name for path in (spool_folder / "backup").iterdir()) == ["w-000001.journal"]
    assert names(dead.path) == ["gateway.lock", "note.txt", "old"]


def test_a_journal_that_lost_its_lock_file_is_read(spool_folder: Path, spool: Spool) -> None:
    """Who deletes a dead writer's lock deletes none of its lines."""
    dead = claim_folder(spool_folder, DEAD)
    journal = Journal(dead.path, name="w")
    write(journal, held(1), settled(2))
    journal.close()
    dead.close()
    (dead.path / "w.lock").unlink()
    assert spool.adopt() == [dead.path]
    assert drain(spool)[0] == [held(1), settled(2)]
    assert not dead.path.exists()


def test_a_folder_that_was_deleted_is_made_again(spool_folder: Path, own: SpoolFolder, spool: Spool) -> None:
    """Also with the spool directory itself: the lock is this gateway's again, and the reader says what is wrong."""
    journal = Journal(own.path, name="w")
    write(journal, held(1))
    assert own.is_there()
    shutil.rmtree(spool_folder)
    assert not own.is_there()
    assert (spool.unapplied_bytes(), spool.read(10).is_empty, spool.adopt()) == (0, True, [])
    with pytest.raises(LedgerUnavailableError, match="was deleted or moved"):
        spool.require_folder()
    own.restore()
    assert own.is_there()
    spool.require_folder()
    with pytest.raises(FolderTakenError):
        claim_folder(spool_folder, own.path.name)
    journal.close()


def test_a_journal_that_cannot_be_read_is_no_bug(own: SpoolFolder, spool: Spool) -> None:
    """It is named with the reason, until it can be read; the lines of others go on."""
    journal = Journal(own.path, name="w")
    write(journal, held(1))
    segment = own.path / "w-000001.journal"
    segment.rename(own.path / "kept")
    segment.mkdir()
    other = Journal(own.path, name="x")
    write(other, held(2))
    assert drain(spool) == ([held(2)], [], 0)
    assert spool.unreadable == f"a journal cannot be read: {segment}: Is a directory"
    assert spool.unapplied_bytes() > 0
    segment.rmdir()
    (own.path / "kept").rename(segment)
    assert drain(spool) == ([held(1)], [], 0)
    assert spool.unreadable == ""
    other.close()
    journal.close()


@pytest.mark.parametrize("name", ["w.checkpoint", "w.lock"])
def test_no_file_beside_a_journal_ends_its_reader(spool_folder: Path, own: SpoolFolder, name: str) -> None:
    """A checkpoint or a lock that cannot be read is named; what depends on it waits, and others go on."""
    journal, other = Journal(own.path, name="w"), Journal(own.path, name="x")
    write(journal, held(1))
    (own.path / name).unlink(missing_ok=True)
    (own.path / name).mkdir()
    spool = Spool(spool_folder, own.path)
    write(other, held(2))
    assert drain(spool) == ([held(2)], [], 0)
    assert spool.unreadable == f"a journal cannot be read: {own.path / name}: Is a directory"
    assert not spool.has_dead()
    (own.path / name).rmdir()
    assert held(1) in drain(spool)[0]
    assert spool.unreadable == ""
    other.close()
    journal.close()


def test_an_unreadable_journal_that_is_gone_is_no_fault_any_more(spool_folder: Path, own: SpoolFolder) -> None:
    """Somebody who deletes it has decided; what was in it stays unknown, and nothing waits for it."""
    (own.path / "w.checkpoint").mkdir()
    (own.path / "w.lock").touch()
    spool = Spool(spool_folder, own.path)
    assert drain(spool) == ([], [], 0)
    assert spool.unreadable
    (own.path / "w.lock").unlink()
    assert drain(spool) == ([], [], 0)
    assert spool.unreadable == ""


def test_an_adopted_folder_outlasts_a_journal_that_cannot_be_read(spool_folder: Path, spool: Spool) -> None:
    """It is adopted, and not taken for empty: its lines arrive when its checkpoint is repaired or removed."""
    dead = claim_folder(spool_folder, DEAD)
    journal = Journal(dead.path, name="w")
    write(journal, settled(1))
    journal.close()
    (dead.path / "w.checkpoint").mkdir()
    dead.close()
    assert spool.adopt() == [dead.path]
    assert drain(spool) == ([], [], 0)
    assert spool.unreadable
    assert (dead.path / "w-000001.journal").exists()
    (dead.path / "w.checkpoint").rmdir()
    assert drain(spool) == ([settled(1)], [], 0)
    assert not dead.path.exists()


def test_nothing_is_read_behind_a_place_in_an_earlier_segment(own: SpoolFolder, spool: Spool) -> None:
    """What is applied may lie segments behind the place that is asked for: the lines that come next are behind it."""
    journal = Journal(own.path, name="w", segment_bytes=2 * len(held(1).to_line()))
    write(journal, held(1))
    place = journal.reach
    for number in (2, 3):
        write(journal, held(number))
    drain(spool)
    write(journal, held(4))
    assert spool.read_until({"w": place}, 10).is_empty
    assert spool.read(10).entries == [held(4)]
    journal.close()
