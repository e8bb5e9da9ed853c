"""`fal-gateway backup`: the ledger of one moment while it is written to, whole or not at all; and a downgrade's end."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest
from sqlalchemy import text

from gateway.ledger import backup
from gateway.ledger.backup import BackupError, back_up
from gateway.ledger.database import Database
from gateway.ledger.ledger import Ledger
from gateway.ledger.tables import RELEASE, VERSION_TABLE
from tests.harness.gateway import Gateway
from tests.harness.policy import policy_text
from tests.harness.postgres import CANARY
from tests.harness.process import GatewayProcess
from tests.ledger.rows import settled

if TYPE_CHECKING:
    from pathlib import Path

ROWS: Final = 2_000


def made(folder: Path, rows: int = ROWS) -> str:
    """Make a ledger with so many rows; return its URL."""
    url = f"sqlite:///{folder}/ledger.db"
    ledger = Ledger(url)
    ledger.migrate()
    ledger.apply([settled(number, cost_ns=1) for number in range(rows)])
    ledger.close()
    return url


def spent(file: Path) -> int:
    """Return what a ledger has in all."""
    ledger = Ledger(f"sqlite:///{file}")
    ledger.require_schema()
    found = sum(ledger.spent_since(0).teams.values())
    ledger.close()
    return found


def run(folder: Path, url: str, *arguments: str) -> tuple[int, str, str]:
    """Run the command to its end; return exit code, stdout and stderr."""
    process = GatewayProcess(["backup", *arguments], folder=folder, env={"FALGW_DATABASE_URL": url})
    return process.wait(60), process.stdout(), process.stderr()


def test_a_copy_is_the_ledger_of_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits between its steps are not in it, do not make it begin again, and wait for none of them."""
    monkeypatch.setattr(backup, "STEP_PAGES", 1)
    url = made(tmp_path)
    writer = Ledger(url)
    steps: list[int] = []

    def write(done: int, _of: int) -> None:
        steps.append(done)
        writer.apply([settled(ROWS + len(steps), cost_ns=1)])

    size = back_up(tmp_path / "ledger.db", tmp_path / "copy.db", shown=write)
    writer.close()
    assert steps == sorted(set(steps)), "it began again"
    assert len(steps) > 50
    assert spent(tmp_path / "copy.db") == ROWS
    assert spent(tmp_path / "ledger.db") == ROWS + len(steps)
    assert (tmp_path / "copy.db").stat().st_size == size


def test_a_copy_is_one_file_for_its_owner(tmp_path: Path) -> None:
    """Without a log beside it, and readable for nobody else: it says who bought what."""
    url = made(tmp_path)
    code, out, err = run(tmp_path / "run", url, str(tmp_path / "copy.db"))
    assert (code, err) == (0, "")
    assert str(tmp_path / "copy.db") in out
    assert sorted(path.name for path in tmp_path.glob("copy*")) == ["copy.db"]
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("PRAGMA journal_mode").fetchone() == ("delete",)


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link", "the ledger"])
def test_nothing_is_written_over(kind: str, tmp_path: Path) -> None:
    """What is there stays as it is, also where it is the ledger itself."""
    url = made(tmp_path, rows=1)
    target = tmp_path / ("ledger.db" if kind == "the ledger" else "there")
    if kind == "file":
        target.write_text("precious", encoding="utf-8")
    elif kind == "folder":
        target.mkdir()
    elif kind == "dangling link":
        target.symlink_to(tmp_path / "nowhere")
    code, out, err = run(tmp_path / "run", url, str(target))
    assert (code, out) == (1, "")
    assert "exists already" in err
    assert kind != "file" or target.read_text(encoding="utf-8") == "precious"
    assert not (tmp_path / "nowhere").exists()
    assert spent(tmp_path / "ledger.db") == 1


def test_a_copy_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    """No file of the name, none of a part of it."""
    made(tmp_path)

    def stop(_done: int, _of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_up(tmp_path / "ledger.db", tmp_path / "copy.db", shown=stop)
    assert list(tmp_path.glob("copy*")) == []
    with pytest.raises(BackupError, match="No such file"):
        back_up(tmp_path / "ledger.db", tmp_path / "no" / "copy.db", shown=lambda _done, _of: None)


def test_one_of_two_at_once_gets_the_name(tmp_path: Path) -> None:
    """The file is one of them, whole; the other says that it exists."""
    made(tmp_path)
    faults: list[BaseException] = []
    target = tmp_path / "copy.db"

    def other(done: int, of: int) -> None:
        if done == of:
            target.write_text("of another", encoding="utf-8")

    try:
        back_up(tmp_path / "ledger.db", target, shown=other)
    except BackupError as fault:
        faults.append(fault)
    assert "File exists" in str(faults)
    assert target.read_text(encoding="utf-8") == "of another"
    assert [path.name for path in tmp_path.glob("copy*")] == ["copy.db"]


def test_a_damaged_ledger_makes_no_backup(tmp_path: Path) -> None:
    """A copy of it would be found to be none on the day that it is needed."""
    made(tmp_path)
    file = tmp_path / "ledger.db"
    with closing(sqlite3.connect(file)) as ledger:
        ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with file.open("r+b") as raw:
        raw.seek(8 * 4096)
        raw.write(os.urandom(20 * 4096))
    code, _, err = run(tmp_path / "run", f"sqlite:///{file}", str(tmp_path / "copy.db"))
    assert code == 1
    assert "damaged" in err or "malformed" in err
    assert list(tmp_path.glob("copy*")) == []


def test_it_says_where_there_is_no_ledger(tmp_path: Path) -> None:
    """And makes none."""
    code, out, err = run(tmp_path / "run", f"sqlite:///{tmp_path}/nowhere.db", "copy.db")
    assert (code, out) == (1, "")
    assert "there is no ledger at" in err
    assert not (tmp_path / "nowhere.db").exists()


def test_postgresql_has_its_own(tmp_path: Path) -> None:
    """A sentence, exit code 2, and no password."""
    code, out, err = run(tmp_path, f"postgresql://u:{CANARY}@h/d", "copy.db")
    assert (code, out) == (2, "")
    assert "pg_dump" in err
    assert CANARY not in err


def test_a_backup_is_restored_under_a_gateway(tmp_path: Path) -> None:
    """As docs/backup.md says: stop, put the file in place, start; taken while the gateway before ran."""
    url = made(tmp_path)
    file = tmp_path / "ledger.db"
    with Gateway(tmp_path / "first", policy=policy_text(), env={"FALGW_DATABASE_URL": url}).wait_ready():
        assert run(tmp_path / "run", url, str(tmp_path / "copy.db"))[0] == 0
    for name in (file, *(file.with_name(file.name + end) for end in ("-wal", "-shm"))):
        name.unlink(missing_ok=True)
    (tmp_path / "copy.db").rename(file)
    with Gateway(tmp_path / "second", policy=policy_text(), env={"FALGW_DATABASE_URL": url}).wait_ready() as gateway:
        assert gateway.metrics().value("ledger_up") == 1
    assert spent(file) == ROWS


def newer(url: str) -> None:
    """Make a ledger one of a newer release."""
    database = Database(url)
    with database.writing() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))  # noqa: S608
    database.close()


def test_a_newer_database_ends_every_command_with_78(tmp_path: Path) -> None:
    """One sentence with both schemas; `serve` says it once, in its log, and stops at once."""
    url = made(tmp_path, rows=1)
    newer(url)
    env = {"FALGW_DATABASE_URL": url, "FAL_ADMIN_KEY": "any:admin", "FAL_KEY": "any:key"}
    for command in ("usage", "reconcile"):
        process = GatewayProcess([command], folder=tmp_path / command, env=env)
        assert process.wait(60) == os.EX_CONFIG
        assert "made by a newer release than this one" in process.stderr()
        assert "Traceback" not in process.stderr()
    gateway = Gateway(tmp_path / "serve", policy=policy_text(), env=env)
    try:
        assert gateway.process.wait(30) == os.EX_CONFIG
    finally:
        gateway.close(expected=None)
    [told] = gateway.events("ledger_unusable")
    assert "9999" in told["reason"]
    assert not gateway.events("process_failed")
    assert len(gateway.events("gateway_draining")) == 1


def test_a_database_that_becomes_newer_is_one_that_is_away(tmp_path: Path) -> None:
    """Another replica was upgraded first: this one goes on, says it once, and keeps its journals."""
    url = made(tmp_path, rows=1)
    with Gateway(tmp_path / "run", policy=policy_text(), env={"FALGW_DATABASE_URL": url}).wait_ready() as gateway:
        newer(url)
        ledger = next(event["pid"] for event in gateway.events("process_started") if event["role"] == "ledger")
        os.kill(ledger, 9)
        told = gateway.wait_for_event("ledger_down", lambda event: "newer release" in event["reason"])
        assert gateway.ask_ops("/readyz").status == 200
        database = Database(url)
        with database.writing() as connection:
            connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '{RELEASE}'"))  # noqa: S608
        database.close()
        gateway.wait_for_event("ledger_up", lambda event: event["timestamp"] > told["timestamp"])
        assert len(gateway.events("ledger_down")) == 1


def test_a_migration_is_an_event(tmp_path: Path) -> None:
    """From which schema, to which, and how long it took."""
    url = made(tmp_path, rows=1)
    database = Database(url)
    with database.writing() as connection:
        for table in connection.execute(text("SELECT name FROM sqlite_schema WHERE type = 'table'")).scalars().all():
            if table not in ("fal_gateway_purchases", "fal_gateway_warnings", VERSION_TABLE):
                connection.execute(text(f"DROP TABLE {table}"))
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0002'"))  # noqa: S608
    database.close()
    with Gateway(tmp_path / "run", policy=policy_text(), env={"FALGW_DATABASE_URL": url}).wait_ready() as gateway:
        told = gateway.wait_for_event("ledger_migrated", lambda _event: True)
    assert (told["from_schema"], told["to_schema"]) == ("0002", RELEASE)
    assert told["seconds"] >= 0
