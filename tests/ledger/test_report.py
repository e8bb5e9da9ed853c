"""`fal-gateway usage`: what it shows in each form, and how it says what is wrong."""

from __future__ import annotations

import csv
import io
import json
import os
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.main import main
from gateway.ledger.daily_totals import DAY_US
from gateway.ledger.ledger import Sum
from gateway.ledger.report import rows_of, usd
from gateway.ledger.report_query import moment, names, span_of
from tests.harness.postgres import CANARY
from tests.harness.process import clean_environment
from tests.ledger.rows import NOON_US, bound, held, released, settled, unknown

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gateway.ledger.ledger import Ledger

NOVEMBER = ("--since", "2026-11-01", "--until", "2026-12-01")
SOLD = (
    settled(1),
    settled(2, units="0.5", cost_ns=12_500_001),
    settled(3, key="batch", endpoint="fal-ai/video", unit="seconds", units="6.25", cost_ns=1_000_000_000_000),
    unknown(4),
    settled(5, key="batch", endpoint="=new", unit=None, units=None, cost_ns=None, unit_price=None),
    settled(6, admitted_at_us=NOON_US + DAY_US, status="reconciled", source="reconciled", cost_ns=49_000_000),
    settled(7, admitted_at_us=NOON_US + 40 * DAY_US),
    settled(8, admitted_at_us=NOON_US - 5 * DAY_US),
    released(9),
    held(10),
    bound(11, estimate_ns=1),
    held(12, estimate_ns=None),
)


@pytest.fixture
def run(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Return `run(*arguments)`: the command over the test's database, its exit code and what it printed."""
    for name in set(os.environ) - set(clean_environment({})):
        monkeypatch.delenv(name)
    monkeypatch.setenv("FALGW_DATABASE_URL", url)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main(["usage", *arguments])
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def sold(ledger: Ledger) -> Ledger:
    """Return the ledger with what was sold in it."""
    ledger.apply(SOLD)
    return ledger


def as_json(answer: tuple[int, str, str]) -> Any:  # noqa: ANN401
    """Return what was printed as JSON; nothing else may have been."""
    code, out, err = answer
    assert (code, err) == (0, "")
    return json.loads(out)


@pytest.mark.usefixtures("sold")
def test_json_tells_every_figure_exactly(run: Callable[..., tuple[int, str, str]]) -> None:
    """Money as decimal text, a row for each source, no dollars where none are known, open holds apart."""
    found = as_json(run(*NOVEMBER, "--format", "json"))
    assert found == {
        "since": "2026-11-01T00:00:00Z",
        "until": "2026-12-01T00:00:00Z",
        "rows": [
            {
                "team": "design",
                "key": "batch",
                "requests": 2,
                "units": "6.25",
                "unit": "seconds",
                "cost_usd": "1000",
                "source": "exact",
                "unpriced": 1,
            },
            {
                "team": "design",
                "key": "web-prod",
                "requests": 2,
                "units": "2.5",
                "unit": "megapixels",
                "cost_usd": "0.062500001",
                "source": "exact",
                "unpriced": 0,
            },
            {
                "team": "design",
                "key": "web-prod",
                "requests": 1,
                "units": "2",
                "unit": "megapixels",
                "cost_usd": "0.049",
                "source": "reconciled",
                "unpriced": 0,
            },
            {
                "team": "design",
                "key": "web-prod",
                "requests": 1,
                "units": "0",
                "unit": None,
                "cost_usd": "0.025",
                "source": "unknown",
                "unpriced": 0,
            },
        ],
        "total_usd": "1000.136500001",
        "held_usd": "0.025000001",
        "held_requests": 3,
    }


@pytest.mark.usefixtures("sold")
def test_rows_are_by_the_names_asked_for(run: Callable[..., tuple[int, str, str]]) -> None:
    """In their order; days are UTC; the end of a span is not in it."""
    found = as_json(run(*NOVEMBER, "--by", "day,endpoint", "--format", "json"))
    assert [(row["day"], row["endpoint"], row["source"], row["cost_usd"]) for row in found["rows"]] == [
        ("2026-11-05", "=new", "exact", None),
        ("2026-11-05", "fal-ai/flux/dev", "exact", "0.062500001"),
        ("2026-11-05", "fal-ai/flux/dev", "unknown", "0.025"),
        ("2026-11-05", "fal-ai/video", "exact", "1000"),
        ("2026-11-06", "fal-ai/flux/dev", "reconciled", "0.049"),
    ]
    assert list(found["rows"][0])[:2] == ["day", "endpoint"]
    narrow = as_json(
        run("--since", "2026-11-06T12:00:00+00:00", "--until", "2026-11-06T12:00:00.000001", "--format=json")
    )
    assert (narrow["total_usd"], len(narrow["rows"])) == ("0.049", 1)


@pytest.mark.usefixtures("sold")
def test_quantities_of_different_units_are_not_added(run: Callable[..., tuple[int, str, str]]) -> None:
    """Seconds and megapixels have no sum; their money has."""
    [exact, *_] = as_json(run(*NOVEMBER, "--by", "team", "--format", "json"))["rows"]
    assert (exact["requests"], exact["units"], exact["unit"], exact["cost_usd"]) == (4, None, None, "1000.062500001")


@pytest.mark.usefixtures("sold")
def test_csv_is_for_sheets(run: Callable[..., tuple[int, str, str]]) -> None:
    """One line a row under its head, nothing where nothing is known, and no cell that a sheet would compute."""
    code, out, err = run(*NOVEMBER, "--by", "endpoint", "--format", "csv")
    assert (code, err) == (0, "")
    head, first, *_ = csv.reader(io.StringIO(out))
    assert head == ["endpoint", "requests", "units", "unit", "cost_usd", "source", "unpriced"]
    assert first == ["'=new", "1", "0", "", "", "exact", "1"]
    assert len(out.splitlines()) == 6


@pytest.mark.usefixtures("sold")
def test_a_table_is_for_people(run: Callable[..., tuple[int, str, str]]) -> None:
    """Columns stand under each other, and the sums behind them."""
    code, out, err = run(*NOVEMBER)
    assert (code, err) == (0, "")
    assert out == (
        "team    key       requests  units  unit                usd  source      unpriced\n"
        "design  batch            2   6.25  seconds            1000  exact              1\n"
        "design  web-prod         2    2.5  megapixels  0.062500001  exact              0\n"
        "design  web-prod         1      2  megapixels        0.049  reconciled         0\n"
        "design  web-prod         1      0  -                 0.025  unknown            0\n"
        "\n"
        "2026-11-01T00:00:00Z to 2026-12-01T00:00:00Z\n"
        "spent 1000.136500001 USD, and 1 requests of unknown cost\n"
        "held 0.025000001 USD for 3 open requests\n"
    )


def test_an_empty_ledger_is_an_empty_report(ledger: Ledger, run: Callable[..., tuple[int, str, str]]) -> None:
    """Nothing was sold this month, which is no error."""
    ledger.require_schema()
    found = as_json(run("--format", "json"))
    assert (found["rows"], found["total_usd"], found["held_usd"]) == ([], "0", "0")
    assert run()[0] == run("--format", "csv")[0] == 0


def test_a_ledger_that_is_not_there_is_said_so(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """One sentence, exit 1, and nothing is made by looking."""
    code, out, err = run()
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "no ledger" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "code", "reason"),
    [
        (f"postgresql://me:{CANARY}@127.0.0.1:1/x", 1, "refused"),
        ("sqlite:////no/such/folder/x.db", 1, "/no/such/folder/x.db"),
        ("sqlite:///", 78, "FALGW_DATABASE_URL"),
        ("oracle://x", 78, "FALGW_DATABASE_URL"),
    ],
)
def test_a_database_that_cannot_be_asked_is_one_sentence(
    url: str, code: int, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr, without the password; the exit codes are those of the other commands."""
    monkeypatch.setenv("FALGW_DATABASE_URL", url)
    assert main(["usage"]) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), reason in err, CANARY in err) == ("", 1, True, False)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--since", "yesterday"), "'yesterday' is no ISO date or time"),
        (("--until", "2026-13-01"), "'2026-13-01' is no ISO date or time"),
        (("--since", "0001-01-01T00:00:00+14:00"), "no ISO date or time"),
        (("--by", "team,colour"), "'colour' is none of team, key, endpoint, day"),
        (("--by", ""), "'' is none of"),
        (("--by", "key,key"), "has a name twice"),
        (("--format", "xml"), "invalid choice"),
        (("--since", "2026-11-02", "--until", "2026-11-01"), "behind its end"),
    ],
)
def test_a_question_that_is_none_is_refused(
    arguments: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2, as for every command line that is none; the reason is the last line on stderr."""
    try:
        code = main(["usage", *arguments])
    except SystemExit as ended:
        code = int(ended.code or 0)
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert reason in err.splitlines()[-1]


def test_a_span_is_this_month_unless_told() -> None:
    """From the first of the month to now; what is told goes first; dates are UTC, also where an offset is given."""
    now = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)
    first = datetime(2026, 11, 1, tzinfo=UTC)
    assert span_of(None, None, now=now) == (first, now)
    assert span_of(moment("2026-01-01"), None, now=now) == (datetime(2026, 1, 1, tzinfo=UTC), now)
    assert span_of(None, moment("2026-10-20"), now=now) == (datetime(2026, 10, 1, tzinfo=UTC), moment("2026-10-20"))
    there = datetime(2026, 11, 5, 1, tzinfo=timezone(timedelta(hours=2)))
    assert moment("2026-11-05T01:00:00+02:00") == there
    assert moment("2026-11-04T23:00:00") == moment("2026-11-04T23:00:00Z") == there
    assert names("team, key") == ("team", "key")


@given(amount_ns=st.integers(0, 10**24))
def test_dollars_are_exact(amount_ns: int) -> None:
    """Text and nano-dollars are the same figure, without exponent, sign, or zeros at the end."""
    text = usd(amount_ns)
    whole, _, part = text.partition(".")
    assert int(whole) * 10**9 + int(part.ljust(9, "0") or 0) == amount_ns
    assert not part.endswith("0")


@given(units=st.lists(st.tuples(st.decimals(0, 10**12, places=20), st.integers(1, 10**6)), min_size=1, max_size=20))
def test_quantities_are_added_exactly(units: list[tuple[Any, int]]) -> None:
    """Also where they are long: no digit is rounded away."""
    sums = [Sum(("t",), "exact", "seconds", str(figure), count, 0, 1) for figure, count in units]
    [row] = rows_of(sums)
    assert row.units is not None
    assert Fraction(row.units) == sum(Fraction(figure) * count for figure, count in units)
    assert row.requests == sum(count for _, count in units)
