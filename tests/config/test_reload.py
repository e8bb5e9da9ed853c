"""Reloading by itself: what counts as a change, what is told and how often, and what stays in force."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from gateway.config.file_watch import STILL_EMPTY_SECONDS, STILL_SECONDS, FileWatch
from gateway.config.policy_file import load_policy
from gateway.config.reload import Reloads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, MutableMapping
    from pathlib import Path

    from gateway.config.policy_snapshot import PolicySnapshot

BROKEN = "teams: [{id: NO}]"


class Bench:
    """A reloader over real files, with a clock that is set."""

    def __init__(self, folder: Path, text: str, environ: dict[str, str] | None = None) -> None:
        self.file = folder / "policy.yaml"
        self.file.write_text(text, encoding="utf-8")
        self.environ = environ or {}
        self.in_force: list[PolicySnapshot] = []
        self.errors = 0
        self.now = 0.0
        first = load_policy(self.file, self.environ).edition
        self.reloads = Reloads(
            first, path=self.file, environ=self.environ, put_in_force=self._put, count_error=self._count
        )
        self.pass_time()

    def _put(self, edition: PolicySnapshot) -> int:
        self.in_force.append(edition)
        return len(self.in_force) + 1

    def _count(self) -> None:
        self.errors += 1

    def write(self, text: str) -> None:
        """Change the file, and let the reloader see it."""
        self.file.write_text(text, encoding="utf-8")
        self.pass_time()

    def pass_time(self, seconds: float = 3.0) -> None:
        """Let so much time pass, with a look every 50 ms."""
        for _ in range(round(seconds / 0.05)):
            self.now += 0.05
            self.reloads.look(self.now)


@pytest.fixture
def told() -> Iterator[list[MutableMapping[str, Any]]]:
    """Return the list of events that are told."""
    with capture_logs() as events:
        yield events


def names(events: list[MutableMapping[str, Any]]) -> list[str]:
    """Return the names of events."""
    return [event["event"] for event in events]


def test_an_unchanged_file_is_left_alone(tmp_path: Path, told: list[MutableMapping[str, Any]]) -> None:
    """Neither the first look nor a touch nor the same text written anew is a reload."""
    bench = Bench(tmp_path, "teams: [{id: a}]")
    os.utime(bench.file)
    bench.pass_time()
    bench.write("teams: [{id: a}]")
    assert (bench.in_force, told, bench.errors) == ([], [], 0)


def test_a_broken_content_is_told_once(tmp_path: Path, told: list[MutableMapping[str, Any]]) -> None:
    """It is told and counted for each distinct content, not for each look or touch; the old one stays in force."""
    bench = Bench(tmp_path, "teams: [{id: a}]")
    bench.write(BROKEN)
    os.utime(bench.file)
    bench.pass_time()
    assert (names(told), bench.errors, bench.in_force) == (["policy_reload_failed"], 1, [])
    bench.write("teams: 1\nkeys: 1\nxyzzy: 1")
    assert [len(event["errors"]) for event in told] == [1, 3]
    bench.write("teams: [{id: a}]")
    assert (names(told)[2:], len(bench.in_force), bench.errors) == (["policy_reloaded"], 1, 2)


def test_a_file_that_is_gone_is_a_failed_reload(tmp_path: Path, told: list[MutableMapping[str, Any]]) -> None:
    """Missing for a moment is nothing; missing for longer is told once; it is taken up again when it is back."""
    bench = Bench(tmp_path, "teams: [{id: a}]")
    bench.file.rename(tmp_path / "away")
    bench.pass_time(STILL_SECONDS / 2)
    (tmp_path / "away").rename(bench.file)
    bench.pass_time()
    assert told == []
    bench.file.unlink()
    bench.pass_time()
    assert (names(told), bench.errors, bench.in_force) == (["policy_reload_failed"], 1, [])
    assert told[0]["errors"] == ["cannot be read: No such file or directory"]
    bench.write("teams: [{id: a}]")
    assert (names(told)[1:], len(bench.in_force)) == (["policy_reloaded"], 1)


def test_a_reload_that_is_asked_for_is_done(tmp_path: Path, told: list[MutableMapping[str, Any]]) -> None:
    """SIGHUP reloads an unchanged file, and tells of a broken one again."""
    bench = Bench(tmp_path, "teams: [{id: a}]")
    bench.reloads.reload()
    assert (names(told), told[0]["generation"], told[0]["teams"]) == (["policy_reloaded"], 2, 1)
    bench.write(BROKEN)
    bench.reloads.reload()
    assert (names(told)[1:], bench.errors) == (["policy_reload_failed"] * 2, 2)


def test_a_policy_that_lacks_a_credential_waits_for_it(tmp_path: Path, told: list[MutableMapping[str, Any]]) -> None:
    """It is refused and told once, and taken up when its file has come, though the policy has not changed since."""
    bench = Bench(tmp_path, "teams: [{id: a}]")
    secret = tmp_path / "secret"
    bench.write(f"teams: [{{id: a, fal_key_file: {secret}}}, {{id: b, fal_key_env: NOT_SET}}]")
    assert told[0]["errors"] == [
        "teams[0].fal_key_file: cannot be read: No such file or directory",
        "teams[1].fal_key_env: names a variable that is not set",
    ]
    bench.write(f"teams: [{{id: a, fal_key_file: {secret}}}]")
    assert (names(told), bench.in_force) == (["policy_reload_failed"] * 2, [])
    secret.write_text("two words", encoding="utf-8")
    bench.pass_time()
    assert told[2]["errors"] == ["teams[0].fal_key_file: should be one word of printable ASCII characters"]
    secret.write_text("id:good", encoding="utf-8")
    bench.pass_time()
    assert names(told)[3:] == ["policy_reloaded"]
    assert bench.in_force[-1].team_keys == {"a": "id:good"}
    assert bench.errors == 3


def test_a_credential_follows_its_file(tmp_path: Path, told: list[MutableMapping[str, Any]]) -> None:
    """A new one is in force without a change of the policy; an unfit one leaves the old, and is told once."""
    secret = tmp_path / "secret"
    secret.write_text("id:one\n", encoding="utf-8")
    bench = Bench(tmp_path, f"teams: [{{id: a, fal_key_file: {secret}}}, {{id: b, fal_key_env: B}}]", {"B": "id:b"})
    secret.write_text("id:two\n", encoding="utf-8")
    bench.pass_time()
    assert [edition.team_keys for edition in bench.in_force] == [{"a": "id:two", "b": "id:b"}]
    secret.write_text("not fit", encoding="utf-8")
    bench.pass_time()
    os.utime(secret)
    bench.pass_time()
    assert (names(told), bench.errors) == (["credential_reloaded", "credential_reload_failed"], 1)
    assert (told[1]["place"], len(bench.in_force)) == ("teams[0].fal_key_file", 1)
    secret.write_text("id:three", encoding="utf-8")
    bench.pass_time()
    assert (names(told)[2:], bench.in_force[-1].team_keys["a"]) == (["credential_reloaded"], "id:three")
    assert not any(word in str(told) for word in ("id:one", "id:two", "id:three", "not fit"))


def test_without_a_file_there_is_nothing_to_reload(tmp_path: Path, told: list[MutableMapping[str, Any]]) -> None:
    """Looking does nothing, and who asks is told why."""
    edition = Bench(tmp_path, "").reloads._edition
    alone = Reloads(edition, path=None, environ={}, put_in_force=lambda _edition: 0, count_error=lambda: None)
    alone.look(1.0)
    alone.reload()
    assert names(told) == ["policy_reload_skipped"]


# -- what counts as a change ------------------------------------------------------------------------------------------


def renamed(file: Path) -> None:
    """Replace a file by another."""
    new = file.with_suffix(".new")
    new.write_text("other", encoding="utf-8")
    new.rename(file)


def rewritten(file: Path) -> None:
    """Write into the same file."""
    file.write_text("other", encoding="utf-8")


def with_the_old_time(file: Path) -> None:
    """Change a file's size and set its time back."""
    before = file.stat()
    file.write_text("longer than before", encoding="utf-8")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def gone(file: Path) -> None:
    """Take a file away."""
    file.unlink()


@pytest.mark.parametrize("change", [renamed, rewritten, with_the_old_time, gone])
def test_a_change_is_seen_once_it_stands_still(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """However a file changes: told once, not before it has stood still, and not again."""
    file = tmp_path / "file"
    file.write_text("first", encoding="utf-8")
    watch = FileWatch(file)
    assert [watch.look(now) for now in (0.0, STILL_SECONDS, 1.0)] == [False, True, False]
    change(file)
    assert [watch.look(2.0), watch.look(2.0 + STILL_SECONDS / 2)] == [False, False]
    assert [watch.look(now) for now in (2.0 + STILL_SECONDS * 1.01, 3.0, 9.0)] == [True, False, False]


def test_a_swapped_symlink_above_the_file_is_seen(tmp_path: Path) -> None:
    """A ConfigMap: the file is a link through `..data`, which is replaced as a whole; stat follows both."""
    for name in ("..2026_1", "..2026_2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "policy.yaml").write_text("same", encoding="utf-8")
    (tmp_path / "..data").symlink_to("..2026_1")
    (tmp_path / "policy.yaml").symlink_to("..data/policy.yaml")
    watch = FileWatch(tmp_path / "policy.yaml")
    assert [watch.look(0.0), watch.look(1.0)] == [False, True]
    (tmp_path / "..tmp").symlink_to("..2026_2")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    assert [watch.look(2.0), watch.look(3.0)] == [False, True]


def test_a_file_of_no_bytes_is_given_longer(tmp_path: Path) -> None:
    """It is nearly always being written; an empty policy would revoke every key."""
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    watch = FileWatch(file)
    assert [watch.look(now) for now in (0.0, 0.5, STILL_EMPTY_SECONDS)] == [False, False, True]
