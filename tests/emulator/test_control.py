"""Rules of the emulator's own pages, and of its beginning and end as a process."""

from __future__ import annotations

import signal
from pathlib import Path
from tempfile import gettempdir

import pytest

from gateway.emulator.ledger import EXECUTIONS_MOST, VISITS_MOST, Ledger, Visit
from tests.emulator.stand import FAL_KEY, Stand


def test_the_record_can_be_filtered(fal: Stand) -> None:
    """Filters count and show what they name; `limit` shows the latest; `total` counts everything."""
    for endpoint in ("a/b", "a/b", "c/d"):
        fal.ask("fal.run", f"/{endpoint}", content={})
    page = fal.control("executions?endpoint=a/b&limit=1")
    assert (page["total"], page["count"], len(page["executions"])) == (3, 2, 1)


def test_looking_changes_nothing(fal: Stand) -> None:
    """Pages of control are not recorded themselves."""
    fal.control("settings")
    assert fal.control("requests")["total"] == 0


def test_a_reset_forgets_everything(fal: Stand) -> None:
    """After a reset there are no records, no jobs, and the settings of the start."""
    start = fal.control("settings")
    fal.control("settings", {"queued_ms": 5})
    job = fal.ask("queue.fal.run", "/a/b", content={}).json()
    fal.control("reset", {})
    assert fal.control("settings") == start
    assert fal.control("executions")["total"] == 0
    assert fal.ask("queue.fal.run", f"/a/b/requests/{job['request_id']}", method="GET").status == 404


def test_settings_are_all_or_nothing(fal: Stand) -> None:
    """A wrong setting is a 400 that names it, and changes nothing."""
    answer = fal.ask("x", "/_emulator/settings", content={"queued_ms": 5, "nonsense": 1}, fields=())
    assert answer.status == 400
    assert "nonsense" in answer.json()["detail"]
    assert fal.control("settings")["queued_ms"] == 100


def test_a_wrong_limit_is_400(fal: Stand) -> None:
    """A limit that is no number is an error."""
    assert fal.ask("x", "/_emulator/executions?limit=x", method="GET", fields=()).status == 400


def test_the_address_itself_says_what_is_there(fal: Stand) -> None:
    """The index names the hosts."""
    answer = fal.ask("x", "/", method="GET", fields=())
    assert f"{fal.url}/hosts/fal.run" in answer.json()["hosts"]


def test_memory_is_bounded() -> None:
    """At most 100,000 executions are remembered, while the count goes on."""
    ledger = Ledger()
    for _ in range(EXECUTIONS_MOST + 5):
        visit = Visit("id", "run", "POST", "fal.run", "/a/b", "", 1.0)
        ledger.see(visit)
        ledger.execute(visit, units="1")
    assert (ledger.executed_total, len(list(ledger.executions()))) == (EXECUTIONS_MOST + 5, EXECUTIONS_MOST)
    assert len(list(ledger.visits())) == VISITS_MOST
    assert next(iter(ledger.executions())).number == 6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(number: signal.Signals) -> None:
    """SIGTERM and SIGINT end it with 0, also in the midst of an answer, and uploads are deleted."""
    before = set(Path(gettempdir()).glob("fal-emulator-*"))
    running = Stand()
    begun = running.ask(
        "rest.fal.ai", "/storage/upload/initiate", content={"content_type": "a/b", "file_name": "x"}
    ).json()
    running.ask("x", begun["upload_url"].removeprefix(running.url), method="PUT", content=b"x", fields=())
    assert len(set(Path(gettempdir()).glob("fal-emulator-*")) - before) == 1
    with running.running("stall") as client:
        client.read_head()
        assert running.end(number) == 0
        assert client.left_by_peer()
    assert set(Path(gettempdir()).glob("fal-emulator-*")) <= before


def test_without_a_key_of_its_own_any_key_will_do() -> None:
    """An emulator without a key takes every key that is not empty, and still wants one."""
    running = Stand(key=None)
    try:
        assert running.run(fields=(("Authorization", "Key any:thing"),)).status == 200
        assert running.run(fields=(("Authorization", f"Key {FAL_KEY}"),)).status == 200
        assert running.run(fields=()).status == 401
    finally:
        assert running.end() == 0
