"""The writer's end: what is in the file when, what a disk that refuses leaves, and where the bound lies."""

from __future__ import annotations

import fcntl
import os
import stat
from array import array
from typing import TYPE_CHECKING, Final

import pytest

from gateway.ledger.entry import from_line
from gateway.ledger.journal import Journal
from gateway.ledger.journal_reader import JournalReader
from gateway.ledger.segments import MARK_CELLS, WAITING, seal, segments_bytes
from gateway.ledger.spool_folder import is_free
from tests.harness.waiting import until
from tests.ledger.rows import held, released, settled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.ledger.rows import Program

LINE: Final = held().to_line()
SMALL: Final = 4 * len(LINE)


def segment(folder: Path, number: int, name: str = "w") -> Path:
    """Return the path of a segment."""
    return folder / f"{name}-{number:06d}.journal"


def test_a_line_is_in_the_file_after_flush_and_not_before(tmp_path: Path) -> None:
    """Lines of a turn go out together; a flush with nothing to write is true."""
    journal = Journal(tmp_path, name="w")
    assert journal.flush()
    journal.append(held(1).to_line())
    journal.append(settled(1).to_line())
    assert segment(tmp_path, 1).read_bytes() == b""
    assert journal.flush()
    assert segment(tmp_path, 1).read_bytes() == held(1).to_line() + settled(1).to_line()
    journal.close()
    journal.close()


def test_files_are_the_owner_s_alone(tmp_path: Path) -> None:
    """Names of teams and keys stand in them."""
    journal = Journal(tmp_path, name="w")
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w-000001.journal", "w.lock"]
    journal.close()


def test_the_lock_lasts_as_long_as_the_writer(tmp_path: Path) -> None:
    """Others see by the lock whether lines may still follow, also after a close."""
    journal = Journal(tmp_path, name="w")
    assert not is_free(tmp_path / "w.lock")
    journal.close()
    assert is_free(tmp_path / "w.lock")


def test_a_name_is_of_one_life(tmp_path: Path) -> None:
    """A second writer under a name is refused, also after the first one's death, until its lines are applied."""
    first = Journal(tmp_path, name="w")
    with pytest.raises(FileExistsError):
        Journal(tmp_path, name="w")
    first.close()
    with pytest.raises(FileExistsError):
        Journal(tmp_path, name="w")
    JournalReader(tmp_path, "w").delete()
    Journal(tmp_path, name="w").close()


def test_a_full_segment_is_followed_by_the_next(tmp_path: Path) -> None:
    """Each segment holds whole lines only; what was written to the old one stays."""
    journal = Journal(tmp_path, name="w", segment_bytes=SMALL)
    for number in range(9):
        journal.append(held(number).to_line())
        assert journal.flush()
    journal.close()
    parts = [segment(tmp_path, number).read_bytes().splitlines() for number in (1, 2, 3)]
    assert [len(part) for part in parts] == [4, 4, 1]
    assert [from_line(line) for part in parts for line in part] == [held(number) for number in range(9)]


def test_at_the_bound_no_new_hold_is_let_in_but_the_ends_are(tmp_path: Path) -> None:
    """The spare room is for purchases under way; beyond it lines wait, and beyond that they are counted as lost."""
    journal = Journal(tmp_path, name="w", segment_bytes=SMALL, most_bytes=20 * len(LINE), spare_bytes=3 * len(LINE))
    wrote = 0
    while not journal.is_full:
        journal.append(LINE)
        assert journal.flush()
        wrote += 1
    assert wrote == 18
    for _ in range(2):
        journal.append(LINE)
        assert journal.flush()
    for line in (LINE, LINE, LINE, settled(1).to_line()):
        journal.append(line)
        assert not journal.flush()
    assert (journal.is_full, journal.lost_purchases, segments_bytes(str(tmp_path))) == (True, 1, 20 * len(LINE))
    for number in (1, 2):
        segment(tmp_path, number).unlink()  # as the ledger process does once it is applied
    until(lambda: not journal.is_full, "room after a segment was deleted")
    assert (journal.flush(), segments_bytes(str(tmp_path))) == (True, 15 * len(LINE))
    journal.close()


def test_other_writers_of_the_folder_count(tmp_path: Path) -> None:
    """The bound is the gateway's: what one worker has written is room that the others lack."""
    greedy = Journal(tmp_path, name="a", most_bytes=20 * len(LINE), spare_bytes=len(LINE))
    greedy.append(LINE * 20)
    assert greedy.flush()
    modest = Journal(tmp_path, name="b", most_bytes=20 * len(LINE), spare_bytes=len(LINE))
    assert modest.is_full
    greedy.close()
    modest.close()


def test_a_disk_that_refuses_tears_no_line(tmp_path: Path, start_program: Callable[..., Program]) -> None:
    """A write that is cut short goes on where it was cut, once there is room: every line whole, in order, once."""
    program = start_program("full_disk", tmp_path)
    program.wait(30)
    assert program.told("cut") == [[False, True, 10 * len(LINE) + 7]]
    assert program.told("refused") == [[False, True, 10 * len(LINE) + 7]]
    assert program.told("room") == [[False, True]]
    parts = [segment(tmp_path, number).read_bytes().splitlines() for number in (1, 2)]
    assert [len(part) for part in parts] == [16, 1]
    assert [from_line(line) for part in parts for line in part] == [held(number) for number in range(17)]


def test_a_segment_that_cannot_be_opened_refuses_like_a_full_disk(tmp_path: Path) -> None:
    """The old segment stays in use, and writing goes on when the next one can be made."""
    journal = Journal(tmp_path, name="w", segment_bytes=SMALL)
    journal.append(LINE * 4)
    assert journal.flush()
    segment(tmp_path, 2).mkdir()
    journal.append(LINE)
    assert (journal.flush(), journal.is_full) == (False, True)
    segment(tmp_path, 2).rmdir()
    assert (journal.is_full, journal.flush()) == (False, True)
    assert segment(tmp_path, 2).read_bytes() == LINE
    journal.close()


def test_a_refused_lock_leaves_nothing_open(tmp_path: Path) -> None:
    """A journal that cannot be made raises, and holds no lock."""
    segment(tmp_path, 1).mkdir()
    with pytest.raises(FileExistsError):
        Journal(tmp_path, name="w")
    lock = os.open(tmp_path / "w.lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(lock)


# -- where it ends ----------------------------------------------------------------------------------------------------


def unmarked() -> memoryview:
    """Return the mark of a writer that has written nothing."""
    return memoryview(array("q", bytes(8 * MARK_CELLS)))


def test_the_end_of_what_was_appended_is_told_before_it_is_written(tmp_path: Path) -> None:
    """Over the ends of segments; and what comes later ends behind."""
    journal = Journal(tmp_path, name="w", segment_bytes=SMALL, mark=(mark := unmarked()))
    ends = [journal.reach]
    for number in range(9):
        for _ in range(1 + number % 2):
            journal.append(held(number).to_line())
        assert journal.end > journal.reach == ends[-1]
        ends.append(journal.end)
        assert journal.flush()
        assert journal.end == journal.reach == ends[-1] == seal(tmp_path, "w", mark)
    assert ends == sorted(set(ends))
    assert segment(tmp_path, 3).exists()
    journal.close()


def test_what_a_dead_writer_was_writing_is_cut(tmp_path: Path) -> None:
    """A piece of which a part is there goes; one that is whole, or of which nothing is there, leaves it as it is."""
    journal = Journal(tmp_path, name="w", mark=(mark := unmarked()))
    for number in (1, 2):
        journal.append(held(number).to_line())
        assert journal.flush()
    whole = segment(tmp_path, 1).read_bytes()
    begin, end, _ = mark.tolist()
    assert seal(tmp_path, "w", mark) == end
    os.truncate(segment(tmp_path, 1), len(whole) - 1)
    assert seal(tmp_path, "w", mark) == begin
    assert segment(tmp_path, 1).read_bytes() == held(1).to_line()
    assert seal(tmp_path, "w", mark) == begin
    journal.close()


def test_a_piece_cut_in_a_new_segment_goes_whole(tmp_path: Path) -> None:
    """It began at the end of the one before."""
    journal = Journal(tmp_path, name="w", segment_bytes=SMALL, mark=(mark := unmarked()))
    journal.append(LINE * 4)
    assert journal.flush()
    first = journal.reach
    journal.append(LINE * 2)
    assert journal.flush()
    os.truncate(segment(tmp_path, 2), len(LINE))
    assert first < seal(tmp_path, "w", mark) < journal.reach
    assert (segment(tmp_path, 1).read_bytes(), segment(tmp_path, 2).read_bytes()) == (LINE * 4, b"")
    journal.close()


def test_a_part_that_the_disk_took_is_not_cut(tmp_path: Path, start_program: Callable[..., Program]) -> None:
    """Its lines may be in the ledger by now: its writer lived on."""
    program = start_program("full_disk", tmp_path)
    program.wait(30)
    assert program.told("sealed") == [[10 * len(LINE), 10 * len(LINE) + 7]] * 3


def test_a_writer_without_a_journal_has_written_nothing(tmp_path: Path) -> None:
    """It died before it had one, or its folder is gone."""
    assert seal(tmp_path, "w", unmarked()) == -1
    assert seal(tmp_path / "gone", "w", unmarked()) == -1


# -- files that others delete, and lines that find no room ------------------------------------------------------------


@pytest.mark.parametrize("victim", ["w-000001.journal", "w.lock", "."])
def test_deleted_files_are_written_again(tmp_path: Path, victim: str) -> None:
    """A segment, the lock, or the folder: a second later all lines are in a file again, and the lock is held."""
    folder = tmp_path / "own"
    folder.mkdir()
    journal = Journal(folder, name="w")
    journal.append(held(1).to_line())
    assert journal.flush()
    if victim == ".":
        folder.rename(tmp_path / "elsewhere")
        until(lambda: journal.is_full, "the loss to be noticed")
        journal.append(held(2).to_line())
        assert not journal.flush()
        folder.mkdir()  # as the supervisor does
        until(lambda: not journal.is_full, "the journal's return")
    else:
        (folder / victim).unlink()
        journal.append(held(2).to_line())
        assert journal.flush()
        until(lambda: not journal.is_full and journal.restored, "the loss to be noticed")
    assert not is_free(folder / "w.lock")
    assert b"".join(path.read_bytes() for path in sorted(folder.glob("*.journal"))) == b"".join(
        held(number).to_line() for number in (1, 2)
    )
    journal.append(held(3).to_line())
    assert journal.flush()
    assert journal.reach == seal(folder, "w", unmarked())
    assert (journal.restored, journal.lost_purchases) == (1, 0)
    journal.close()


def full_journal(folder: Path, mark: memoryview) -> Journal:
    """Return a journal that takes no more lines into its file, with nothing in memory."""
    most_bytes = 20 * len(LINE)
    journal = Journal(folder, name="w", most_bytes=most_bytes, spare_bytes=4 * len(LINE), mark=mark)
    journal.append(b"x" * (most_bytes - 2) + b"\n")
    assert journal.flush()
    assert journal.is_full
    return journal


def test_what_waits_in_memory_is_known_to_others(tmp_path: Path) -> None:
    """Of how many purchases: that outlives the writer. One that was released costs nothing, and is not counted."""
    journal = full_journal(tmp_path, mark := unmarked())
    for line in (held(1).to_line(), held(2).to_line(), settled(1).to_line()):
        journal.append(line)
        assert not journal.flush()
    assert mark[WAITING] == 2
    journal.append(released(2).to_line())
    assert not journal.flush()
    assert (mark[WAITING], journal.lost_purchases) == (1, 0)
    segment(tmp_path, 1).write_bytes(b"")  # room again
    until(journal.flush, "what waited to be written")
    assert mark[WAITING] == 0
    journal.close()


def test_a_dropped_purchase_is_counted_once(tmp_path: Path) -> None:
    """By its end, and not by its hold; one whose hold was dropped is lost if the writer dies before its end."""
    journal = full_journal(tmp_path, mark := unmarked())
    for number in range(4):
        journal.append(held(number).to_line())
        assert not journal.flush()
    for line in (held(5), settled(5), held(6), released(6), held(7)):
        journal.append(line.to_line())
        assert not journal.flush()
    assert (journal.lost_purchases, mark[WAITING]) == (1, 4 + 1)
    journal.close()


def test_one_key_s_flood_leaves_room_for_others(tmp_path: Path) -> None:
    """Beyond half of the bound a key fills an eighth of it; then its optional lines are dropped, its ends kept."""
    most_bytes = 400 * len(LINE)
    journal = Journal(tmp_path, name="w", most_bytes=most_bytes, spare_bytes=40 * len(LINE))
    journal.append(LINE * 201)
    assert journal.flush()
    until(lambda: journal._is_crowded or journal.is_full, "the spool to be seen as half full")
    wrote = 0
    while not journal.is_full_for("web-prod"):
        journal.append(LINE, None, True)
        assert journal.flush()
        wrote += 1
    assert wrote == 51
    assert not journal.is_full_for("other")
    before = segments_bytes(str(tmp_path))
    journal.append(LINE, None, True)
    journal.append(settled(1).to_line(), None, True)
    assert journal.flush()
    assert (segments_bytes(str(tmp_path)), journal.lost_purchases) == (before, 1)
    journal.append(settled(2).to_line())
    journal.append(held(3, key="other").to_line(), None, True)
    assert journal.flush()
    assert segments_bytes(str(tmp_path)) > before + len(LINE)
    journal.close()
