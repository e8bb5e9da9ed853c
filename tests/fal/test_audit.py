"""The ledger, a real one, corrected by the emulator's bill: by a call, by the command, and every hour by itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import pytest

from gateway.ledger.entry import Entry
from gateway.ledger.ledger import Ledger
from gateway.ledger.report_query import Span
from gateway.money.reconcile.hourly import Auditor, Timetable
from gateway.money.reconcile.run import audit, compare, microseconds
from tests.fal.stand import ENDPOINT, KEY, Gathered, buy, named, page
from tests.harness.origin import answering
from tests.harness.ports import refused_port
from tests.harness.process import GatewayProcess
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gateway.fal.api.client import FalApi
    from gateway.money.reconcile.run import Audit
    from tests.harness.emulator import Emulator
    from tests.harness.origin import StartOrigin

HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
PRICE_NS: Final = 25_000_000
NUMBERS: Final = count(1)
FOREVER: Final = (0, 2**53)


@pytest.fixture
def database(tmp_path: Path) -> str:
    """Return the URL of a database that is the test's own."""
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
def ledger(database: str) -> Iterator[Ledger]:
    """Return an empty ledger in that database."""
    made = Ledger(database)
    made.migrate()
    yield made
    made.close()


def put(
    ledger: Ledger, fal_request_id: str | None, *, ago: timedelta = timedelta(minutes=5), **changed: object
) -> Entry:
    """Put a purchase into the ledger, settled for a cent; return it."""
    at_us = microseconds(datetime.now(UTC) - ago)
    usual = {
        "id": f"{next(NUMBERS):032x}",
        "status": "settled",
        "team": "design",
        "key": "web",
        "endpoint": ENDPOINT,
        "kind": "run",
        "fal_request_id": fal_request_id,
        "admitted_at_us": at_us,
        "changed_at_us": at_us,
        "units": "1",
        "unit": "megapixels",
        "unit_price": "0.01",
        "estimate_ns": 10**7,
        "cost_ns": 10**7,
        "source": "exact",
    }
    entry = Entry(**{**usual, **changed})  # type: ignore[arg-type]
    ledger.apply([entry])
    return entry


def span(*, since: timedelta = DAY, until: timedelta = timedelta()) -> Span:
    """Return a span that is told by how long ago it began and ended."""
    now = datetime.now(UTC)
    return Span(now - since, now - until)


def audited(fal: Emulator, open_api: Callable[..., FalApi], ledger: Ledger, asked: Span | None = None) -> Audit:
    """Compare and correct, the last day unless another span is asked for."""
    return audit(open_api(fal.port), ledger, asked or span(), now=datetime.now(UTC))


def test_the_ledger_becomes_what_fal_billed(
    fal: Emulator, open_api: Callable[..., FalApi], ledger: Ledger, database: str
) -> None:
    """Settled, unknown, held and released rows; and those that it should not touch, it does not."""
    fal.settings(percent_discount="10")
    states = ("settled", "unknown", "held", "released")
    bought = [put(ledger, buy(fal), status=status) for status in states]
    unbilled = put(ledger, "nobody's", ago=2 * HOUR)
    lost = put(ledger, None, status="unknown", source="unknown", endpoint="fal-ai/another")
    past = buy(fal)
    done = audited(fal, open_api, ledger)
    assert sorted(change.new.id for change in done.changes) == sorted(one.id for one in bought)
    assert {(one.new.status, one.new.cost_ns, one.new.unit_price) for one in done.changes} == {
        ("reconciled", PRICE_NS * 9 // 10, "0.025")
    }
    assert [event.request_id for event in done.found.unknown_events] == [past]
    assert done.found.unbilled == (unbilled,)
    again = Ledger(database)
    assert again.spent_since(0).teams == {"design": 4 * PRICE_NS * 9 // 10 + 2 * 10**7}
    assert again.overdue(FOREVER[1]) == []
    again.close()
    assert lost.id not in {one.new.id for one in done.changes}


def test_a_lost_answer_is_matched_with_its_bill_once(
    fal: Emulator, open_api: Callable[..., FalApi], ledger: Ledger
) -> None:
    """The row gets fal's id, figures and the source `reconciled`; another audit finds it by that id."""
    lost = put(ledger, None, status="unknown", source="unknown", ago=timedelta(minutes=1))
    billed = buy(fal, faults="units=2")
    done = audited(fal, open_api, ledger)
    [match] = done.found.matches
    assert (match.old.id, done.found.corrections, done.found.unknown_events) == (lost.id, (), ())
    [change] = done.changes
    assert (change.new.fal_request_id, change.new.status, change.new.source) == (billed, "reconciled", "reconciled")
    assert (change.new.cost_ns, change.new.units) == (2 * PRICE_NS, "2.0")
    assert done.found.total.drift_ns == 2 * PRICE_NS - 10**7
    again = audited(fal, open_api, ledger)
    assert (again.changes, again.found.matches, again.found.agreeing) == ([], (), 1)


def test_a_bill_that_makes_no_sense_leaves_its_request_alone(
    open_api: Callable[..., FalApi], ledger: Ledger, start_origin: StartOrigin
) -> None:
    """A negative line, and lines that come to more than a request may cost: rows and sums stay, and it is counted."""
    rows = [put(ledger, name) for name in ("fal-negative", "fal-absurd", "fal-fine")]
    at = datetime.now(UTC).isoformat()
    usual = {"endpoint_id": ENDPOINT, "timestamp": at, "output_units": 1, "cost_estimate_nano_usd": 5}
    lines = [
        usual | {"request_id": "fal-fine"},
        usual | {"request_id": "fal-negative"},
        usual | {"request_id": "fal-negative", "cost_estimate_nano_usd": -5, "cost_total": 0.01},
        *(usual | {"request_id": "fal-absurd", "cost_estimate_nano_usd": 10**15 - number} for number in range(20)),
    ]
    origin = start_origin(answering(page("billing_events", lines)))
    done = audit(open_api(origin.port), ledger, span(), now=datetime.now(UTC))
    assert [change.new.fal_request_id for change in done.changes] == ["fal-fine"]
    assert (done.found.unreadable, done.found.unknown_events, done.found.unbilled) == (21, (), ())
    assert ledger.spent_since(0).teams == {"design": 2 * rows[0].cost_ns + 5}  # type: ignore[operator]


def test_a_second_audit_changes_nothing(fal: Emulator, open_api: Callable[..., FalApi], ledger: Ledger) -> None:
    """What agrees is counted; a bill that changed afterwards is told."""
    put(ledger, buy(fal))
    assert len(audited(fal, open_api, ledger).changes) == 1
    again = audited(fal, open_api, ledger)
    assert (again.changes, again.found.unknown_events, again.found.agreeing) == ([], (), 1)
    fal.settings(prices={ENDPOINT: {"unit": "megapixels", "usd": "1"}})
    last = audited(fal, open_api, ledger)
    assert (last.changes, [one.cost_ns for one in last.found.amendments]) == ([], [10**9])


def test_a_dry_comparison_changes_nothing(fal: Emulator, open_api: Callable[..., FalApi], ledger: Ledger) -> None:
    """It tells what would be."""
    put(ledger, buy(fal))
    found = compare(open_api(fal.port), ledger, span(), now=datetime.now(UTC))
    assert len(found.corrections) == 1
    assert len(ledger.unreconciled(*FOREVER)) == 1


def test_a_bill_that_is_not_there_yet_is_found_later(
    fal: Emulator, open_api: Callable[..., FalApi], ledger: Ledger
) -> None:
    """The bill lags; a row that is young is not even told of."""
    put(ledger, buy(fal))
    fal.settings(billing_delay_ms=3_600_000)
    first = audited(fal, open_api, ledger)
    assert (first.changes, first.found.unbilled) == ([], ())
    fal.settings(billing_delay_ms=0)
    assert len(audited(fal, open_api, ledger).changes) == 1


def test_a_bill_behind_the_span_belongs_to_the_row_in_it(
    fal: Emulator, open_api: Callable[..., FalApi], ledger: Ledger
) -> None:
    """A row admitted in the span and billed hours, or days, after its end; others' bills from there are no news."""
    put(ledger, buy(fal), ago=timedelta(hours=5))
    put(ledger, buy(fal), ago=timedelta(days=5))
    put(ledger, buy(fal))
    buy(fal)
    near = audited(fal, open_api, ledger, span(since=timedelta(hours=6), until=timedelta(hours=4)))
    far = audited(fal, open_api, ledger, span(since=timedelta(days=6), until=timedelta(days=4)))
    assert [len(done.changes) for done in (near, far)] == [1, 1]
    assert near.found.unknown_events == far.found.unknown_events == ()


def test_a_bill_in_the_span_finds_a_row_from_before_it(
    fal: Emulator, open_api: Callable[..., FalApi], ledger: Ledger
) -> None:
    """A job that waited long; and one that was reconciled already is no unknown line of the bill."""
    put(ledger, buy(fal), ago=timedelta(days=3))
    put(ledger, buy(fal), ago=timedelta(days=3), status="reconciled", source="reconciled", cost_ns=PRICE_NS)
    done = audited(fal, open_api, ledger)
    assert (len(done.changes), done.found.unknown_events, done.found.agreeing) == (1, (), 1)


def test_many_purchases_in_pages(fal: Emulator, open_api: Callable[..., FalApi], ledger: Ledger) -> None:
    """More rows than the ledger gives at once, more events than a page of a small size has."""
    for _ in range(30):
        put(ledger, buy(fal))
    one = put(ledger, "nobody's")
    others = [one._replace(id=f"f{number:031x}", fal_request_id=f"nobody's-{number}") for number in range(1_500)]
    ledger.apply(others)
    done = audited(fal, open_api, ledger)
    assert (len(done.changes), done.found.total.true_ns) == (30, 30 * PRICE_NS)


def test_half_a_bill_changes_nothing(fal: Emulator, open_api: Callable[..., FalApi], ledger: Ledger) -> None:
    """An answer that breaks off is a failure and not a short bill."""
    put(ledger, buy(fal))
    fal.settings(faults={"api.fal.ai": "cut=200"})
    with pytest.raises(Exception, match="not reached"):
        audited(fal, open_api, ledger)
    assert len(ledger.unreconciled(*FOREVER)) == 1


def settings_of(fal_port: int, database: str, **changed: str) -> dict[str, str]:
    """Return an environment of the command."""
    return {
        "FAL_ADMIN_KEY": KEY,
        "FALGW_DATABASE_URL": database,
        "FALGW_ORIGIN_OVERRIDES": f"api.fal.ai=http://127.0.0.1:{fal_port}",
        "FALGW_LOG_FORMAT": "json",
        **changed,
    }


def ran(folder: Path, env: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    """Run the command to its end; return exit code, stdout and stderr, in which the key never is."""
    process = GatewayProcess(["reconcile", *arguments], folder=folder, env=env)
    try:
        code = process.wait(60)
    finally:
        process.kill()
    assert "canary" not in process.stdout() + process.stderr()
    return code, process.stdout(), process.stderr()


def test_the_command_tells_and_corrects(fal: Emulator, ledger: Ledger, database: str, tmp_path: Path) -> None:
    """JSON has everything, money as exact text; a dry run before it changes nothing; the table after it agrees."""
    fal.settings(admin_key=KEY)
    billed = buy(fal, faults="units=1.5")
    row = put(ledger, billed)
    late = put(ledger, "nobody's", ago=2 * HOUR)
    past = buy(fal)
    env, since = settings_of(fal.port, database), f"--since={(datetime.now(UTC) - DAY).date()}"
    code, out, err = ran(tmp_path / "dry", env, since, "--format", "json", "--dry-run")
    assert (code, err) == (0, "")
    dry = json.loads(out)
    code, out, _ = ran(tmp_path / "json", env, since, "--format", "json")
    told = json.loads(out)
    assert code == 0
    assert (dry.pop("dry_run"), told.pop("dry_run")) == (True, False)
    dry.pop("until")
    told.pop("until")
    assert dry == told
    [corrected] = told["corrected"]
    assert (corrected["id"], corrected["cost_usd"], corrected["true_cost_usd"]) == (row.id, "0.01", "0.0375")
    assert corrected["true_units"] == "1.5"
    assert [one["fal_request_id"] for one in told["only_fal"]] == [past]
    assert [one["id"] for one in told["only_ours"]] == [late.id]
    assert told["total"] == {
        "purchases": 1,
        "unknown": 0,
        "charged_usd": "0.01",
        "billed_usd": "0.0375",
        "drift_usd": "0.0275",
        "drift_ratio": "2.750000",
    }
    code, out, _ = ran(tmp_path / "table", env, since)
    assert code == 0
    assert "0 purchases corrected" in out
    assert "1 purchases agreed already" in out
    assert past in out


def test_the_command_marks_what_it_matched(fal: Emulator, ledger: Ledger, database: str, tmp_path: Path) -> None:
    """In JSON and in the table; a dry run says what would be; the policy says which teams have other credentials."""
    fal.settings(admin_key=KEY)
    put(ledger, None, status="unknown", source="unknown", ago=timedelta(minutes=1))
    billed = buy(fal)
    policy = tmp_path / "policy.yaml"
    env, since = settings_of(fal.port, database), f"--since={(datetime.now(UTC) - DAY).date()}"
    policy.write_text("teams: [{id: design, fal_key_env: ANOTHER}]", encoding="utf-8")
    code, out, err = ran(tmp_path / "other", env | {"FALGW_POLICY": str(policy)}, since, "--format", "json")
    assert (code, err, json.loads(out)["matched"]) == (0, "", [])
    _, out, _ = ran(tmp_path / "dry", env, since, "--dry-run")
    assert "1 purchases whose answer was lost would be matched with a bill" in out
    policy.write_text("teams: [{id: design}]", encoding="utf-8")
    _, out, _ = ran(tmp_path / "json", env | {"FALGW_POLICY": str(policy)}, since, "--format", "json")
    told = json.loads(out)
    assert [one["fal_request_id"] for one in told["matched"]] == [billed]
    assert (told["corrected"], told["only_fal"], told["unreadable"]) == ([], [], 0)


def test_a_table_cuts_long_lists_short(fal: Emulator, ledger: Ledger, database: str, tmp_path: Path) -> None:
    """A person reads the first lines, and that there are more; an end in the future is now."""
    for _ in range(25):
        put(ledger, buy(fal))
    asked = (f"--since={(datetime.now(UTC) - DAY).date()}", "--until=9999-12-31", "--dry-run")
    code, out, _ = ran(tmp_path, settings_of(fal.port, database), *asked)
    assert code == 0
    assert "25 purchases would be corrected" in out
    assert "and 5 more" in out


@pytest.mark.parametrize(
    ("changed", "arguments", "code", "words"),
    [
        ({"FAL_ADMIN_KEY": ""}, (), 78, "FAL_ADMIN_KEY: no key"),
        ({"FAL_ADMIN_KEY": "canary two"}, (), 78, "FAL_ADMIN_KEY: should be one word"),
        ({"FALGW_PROT": "1"}, (), 78, "FALGW_PROT"),
        ({}, ("--since", "2026-02-02", "--until", "2026-01-01"), 2, "the span begins"),
        ({}, ("--since", "soon"), 2, "no ISO date"),
        ({}, ("--since", "2020-01-01"), 1, "more than 90 days ago"),
        ({}, ("--since", "9000-01-01", "--until", "9999-12-31"), 1, "lies in the future"),
        ({"FALGW_DATABASE_URL": "sqlite:///nowhere.db"}, (), 1, "no ledger"),
        (
            {"FAL_ADMIN_KEY": "canary-of-another"},
            (),
            1,
            "reconcile: fal's API answered 403: This needs a key of the scope",
        ),
        ({"FALGW_ORIGIN_OVERRIDES": f"api.fal.ai=http://127.0.0.1:{refused_port()}"}, (), 1, "was not reached"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_command_says_what_stands_in_its_way(  # noqa: PLR0913 - a table of what can be wrong
    changed: dict[str, str],
    arguments: tuple[str, ...],
    code: int,
    words: str,
    *,
    fal: Emulator,
    ledger: Ledger,
    database: str,
    tmp_path: Path,
) -> None:
    """One sentence on stderr, nothing on stdout, and the exit codes of the other commands."""
    put(ledger, "fal-1")
    fal.settings(admin_key=KEY)
    ended, out, err = ran(tmp_path / "run", settings_of(fal.port, database, **changed), *arguments)
    assert (ended, out) == (code, "")
    assert words in err
    assert "Traceback" not in err


def test_by_itself_it_compares_again_and_again(
    fal: Emulator, open_api: Callable[..., FalApi], ledger: Ledger, database: str, events: list[dict[str, Any]]
) -> None:
    """Each run is an event and a call with what changed; an outage is told once, and leaves nothing behind."""
    put(ledger, buy(fal))
    audits = Gathered()
    timetable = Timetable(first_seconds=0, every_seconds=0.02)
    auditor = Auditor(open_api(fal.port), lambda: Ledger(database), on_audit=audits, timetable=timetable)
    auditor.start()
    try:
        until(audits.all, "the first comparison")
        fal.settings(faults={"api.fal.ai": "status=503"})
        until(lambda: named(events, "bill_not_compared"), "the outage")
        seen = fal.requests_total()
        until(lambda: fal.requests_total() > seen + 6, "several questions in vain")
        put(ledger, buy(fal))
        fal.settings(faults={})
        until(lambda: sum(len(one.changes) for one in audits.all()) == 2, "the second purchase")
    finally:
        auditor.close(20)
    assert len(named(events, "bill_not_compared")) == 1
    assert sum(one.found.total.drift_ns for one in audits.all()) == 2 * (PRICE_NS - 10**7)
    assert named(events, "bill_compared")[0]["drift_ns"] == PRICE_NS - 10**7
    assert ledger.unreconciled(*FOREVER) == []
