"""docs/metrics.md names every family that there is, with its type and its labels, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from gateway.http.problem import STATUS_AFTER_SEND, STATUS_OF
from gateway.money.gauges import MOST_SERIES
from gateway.telemetry.metrics import families as metrics
from gateway.telemetry.metrics.counters import CELLS
from gateway.telemetry.metrics.endpoint_labels import NONE, OTHER, SEEN_LIMIT
from gateway.telemetry.metrics.exposition import expose
from gateway.telemetry.metrics.initial_series import introduce
from gateway.telemetry.metrics.meter import Meter
from gateway.telemetry.metrics.process_stats import ProcessTable

if TYPE_CHECKING:
    from gateway.telemetry.metrics.scoreboard import Scoreboard

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW: Final = re.compile(r"^\| `(\w+)` \| (counter|gauge|histogram) \| ([\w, ]*)\|(.+)\|(.+)\|$", re.MULTILINE)


def test_every_family_is_documented_as_it_is() -> None:
    """Name, type, labels, meaning and origin of each; the order is for the reader."""
    rows = ROW.findall(DOCUMENT.read_text(encoding="utf-8"))
    documented = {name: (kind, tuple(filter(None, labels.strip().split(", ")))) for name, kind, labels, *_ in rows}
    assert documented == {family.name: (family.kind, family.labels) for family in metrics.FAMILIES}
    assert len(rows) == len(documented)
    assert all(meaning.strip() and origin.strip() for *_, meaning, origin in rows)


def test_the_bounds_are_as_documented() -> None:
    """The numbers of the text are those of the code."""
    text = " ".join(DOCUMENT.read_text(encoding="utf-8").split())
    assert f"*p* + {SEEN_LIMIT + len({NONE, OTHER})} endpoint labels" in text
    assert f"the first {SEEN_LIMIT} others" in text
    assert f"at most {MOST_SERIES:,} series" in text
    assert f"room for {CELLS:,} cells" in text
    error_types = sorted({*STATUS_OF, *STATUS_AFTER_SEND})
    assert f"error type ({len(error_types)})" in text
    assert f"| `error_type` | {', '.join(f'`{name}`' for name in error_types)} |" in text
    widths = sorted({family.width for family in metrics.FAMILIES if family.kind == "histogram"})
    assert "of a histogram " + " or ".join(map(str, widths)) in text


def test_the_zeros_at_the_start_are_as_documented(scoreboard: Scoreboard) -> None:
    """It is k (2p + 3) + 2t series for k keys in t teams and p priced endpoints, beside those without such labels."""
    Meter(scoreboard.workers[0].region, scoreboard.endpoints, emit=lambda _record: None)
    bare = _series(scoreboard)
    keys = [(f"team-{number % 3}", f"key-{number}") for number in range(7)]
    introduce(scoreboard.supervisor.region, keys, endpoints=["a", "b", "c", "d", "e"])
    assert _series(scoreboard) - bare == 7 * (2 * 5 + 3) + 2 * 3
    stated = re.search(r"beside about (\d+)", DOCUMENT.read_text(encoding="utf-8"))
    assert stated
    assert int(stated[1]) == pytest.approx(bare, rel=0.1)


def _series(scoreboard: Scoreboard) -> int:
    page, _ = expose(scoreboard, "", ProcessTable(scoreboard).readings())
    return sum(not line.startswith("#") for line in page.decode().splitlines())


def test_closed_labels_are_declared_closed() -> None:
    """Every label is closed, or configured, or capped: a new one has to say which."""
    capped = {"team", "key", "endpoint", "unit", "scope", "id", "period"}
    assert {label for family in metrics.FAMILIES for label in family.labels} == metrics.CLOSED_LABELS | capped
