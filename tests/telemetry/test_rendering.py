"""Log lines: their shape, whatever the values are."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gateway.telemetry.log.rendering import IsoClock, console_renderer, exchange_event, json_renderer
from gateway.telemetry.record import ExchangeRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.telemetry.metrics.meter import Meter

ORDER = [
    "timestamp",
    "level",
    "event",
    "request_id",
    "fal_request_id",
    "key",
    "team",
    "method",
    "host",
    "endpoint",
    "class",
    "status",
    "outcome",
    "error_type",
    "duration_ms",
    "first_byte_ms",
    "overhead_ms",
    "request_bytes",
    "response_bytes",
    "units",
    "cost_usd",
    "cost_source",
]


class _Odd:
    """An object that JSON knows nothing of."""

    def __str__(self) -> str:
        return "odd"


@pytest.fixture
def closed(meter: Meter, record: ExchangeRecord) -> ExchangeRecord:
    """Return a record that was closed at 2027-01-01T12:00:00.250Z."""
    meter.close(record)
    return record


def _json_line(entry: ExchangeRecord | dict[str, Any]) -> dict[str, Any]:
    line = json_renderer()(entry)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def test_the_exchange_line(closed: ExchangeRecord) -> None:
    """Names and order are those of docs/logs.md; times are milliseconds; what is not known is null."""
    assert list(_json_line(closed).items()) == list(
        zip(
            ORDER,
            [
                "2027-01-01T12:00:00.250Z",
                "info",
                "exchange",
                "0123456789abcdef",
                "764cabcf-b745-4b3e-ae38-1200304cf45b",
                "web-prod",
                "design",
                "POST",
                "fal.run",
                "fal-ai/flux/dev",
                "paid",
                200,
                "ok",
                None,
                1500.0,
                1250.0,
                0.4,
                256,
                1024,
                None,
                None,
                None,
            ],
            strict=True,
        )
    )


def test_the_shape_is_constant() -> None:
    """A record of which nothing is known has the same fields in the same order."""
    assert list(_json_line(ExchangeRecord("id", "GET"))) == ORDER


def test_what_others_chose_is_cut(closed: ExchangeRecord) -> None:
    """Names that a caller or an origin chose cannot make a line grow."""
    for name in ("fal_request_id", "host", "endpoint", "method"):
        setattr(closed, name, "x" * 100_000)
    event = exchange_event(closed)
    assert [len(event[name]) for name in ("fal_request_id", "host", "endpoint", "method")] == [128, 256, 256, 32]


@pytest.mark.parametrize("odd", ["\udcff", "\x00\x1b[2J\r\n", '"}\n{"', "\u2028\u00e9\U0001f600"])
def test_odd_strings_never_break_a_line(closed: ExchangeRecord, odd: str) -> None:
    """Surrogates, control characters, quotes and line ends stay inside their value."""
    closed.fal_request_id = closed.host = closed.endpoint = odd
    line = _json_line(closed)
    assert list(line) == ORDER
    assert line["endpoint"] == odd.replace("\udcff", "?")
    assert line["key"] == "web-prod"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_null(closed: ExchangeRecord, number: float) -> None:
    """JSON has no word for them, and a reader must not stumble."""
    closed.overhead_seconds = number
    assert _json_line(closed)["overhead_ms"] is None


def test_what_json_cannot_carry_is_said_in_words() -> None:
    """Money is a decimal string, a huge integer and an odd object are text, and nothing raises."""
    event = {"event": "odd", "level": "info", "timestamp": 0.0}
    assert _json_line({**event, "units": Decimal("1.50"), "thing": _Odd()}) == {
        **event,
        "timestamp": "1970-01-01T00:00:00.000Z",
        "units": "1.50",
        "thing": "odd",
    }
    assert _json_line({**event, "huge": 1 << 80, "flag": True, "none": None})["huge"] == str(1 << 80)


def test_other_events_lead_with_the_same_three(closed: ExchangeRecord) -> None:
    """Timestamp, level and event come first in every line, the rest in the order it was given."""
    assert list(_json_line({"worker": 1, "event": "worker_ready", "level": "info", "timestamp": 1.0, "pid": 2})) == [
        *list(_json_line(closed))[:3],
        "worker",
        "pid",
    ]


def test_a_long_text_keeps_its_two_ends() -> None:
    """A traceback is cut in its middle: the place and the reason stay."""
    text = "first" + "x" * 50_000 + "last"
    kept = _json_line({"event": "e", "level": "error", "timestamp": 1.0, "exception": text})["exception"]
    assert len(kept) < 9_000
    assert kept.startswith("first")
    assert kept.endswith("last")


@pytest.mark.parametrize(
    ("outcome", "level"),
    [("ok", "info"), ("refused", "info"), ("client_gone", "info"), ("cut", "warning"), ("gateway_failed", "error")],
)
def test_the_level_follows_the_outcome(closed: ExchangeRecord, outcome: Any, level: str) -> None:  # noqa: ANN401 - a Literal
    """What the gateway or the origin did wrong stands out; what a caller did does not."""
    closed.outcome = outcome
    assert exchange_event(closed)["level"] == level


def test_the_console_line_is_for_a_person(closed: ExchangeRecord) -> None:
    """Fields that say nothing are left out, and a terminal is not told to do things."""
    closed.host = "a\x1b[2Jb\n"
    line = console_renderer(colours=False)(closed).decode()
    assert line.count("\n") == 1
    assert "\x1b" not in line
    assert "units" not in line
    assert re.search(r"12:00:00.250Z .*exchange .*key=web-prod .*status=200", line)


def test_the_console_shows_values_and_not_their_types(closed: ExchangeRecord) -> None:
    """A number is a number, also where Python keeps it as a Decimal or in a list."""
    closed.units, closed.cost_usd = Decimal(1), Decimal("0.0250")
    render = console_renderer(colours=False)
    assert {"units=1", "cost_usd=0.0250"} <= set(render(closed).decode().split())
    line = render({"event": "odd", "level": "info", "timestamp": 1.0, "a": [Decimal(2)], "b": Path("/x")}).decode()
    assert "Decimal" not in line
    assert "Path" not in line


@pytest.mark.parametrize("render", [json_renderer(), console_renderer(colours=True)])
def test_a_surrogate_reaches_no_encoder(render: Callable[[Any], bytes]) -> None:
    """Both forms render what UTF-8 cannot carry."""
    assert b"odd" in render({"event": "odd", "level": "info", "timestamp": 1.0, "a": "\udcff", "exception": "\udc80"})


def test_times_are_utc_with_milliseconds() -> None:
    """A whole second has its three zeros too, and one line's second is not the next one's."""
    clock = IsoClock().write
    assert [clock(0), clock(1.0004), clock(1.9996), clock(0.25)] == [
        "1970-01-01T00:00:00.000Z",
        "1970-01-01T00:00:01.000Z",
        "1970-01-01T00:00:02.000Z",
        "1970-01-01T00:00:00.250Z",
    ]
