"""Every event that the gateway can log stands in docs/logs.md, with its level and its fields; and nothing else does.

The decision it carries: events are read out of the source, so a new one without a line on the page fails here.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path
from typing import Final, NamedTuple

from gateway.telemetry.log.rendering import LEVEL_OF, exchange_event
from gateway.telemetry.record import ExchangeRecord

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "logs.md").read_text(encoding="utf-8")
LEVELS: Final = ("debug", "info", "warning", "error", "exception")
LOGGERS: Final = ("structlog.get_logger()", "self._events", "_LOG()")
PASSED_ON: Final = "self._alarm"
"""A seam that takes the name of an event, which `app` logs as an error."""

SEEN: Final = re.compile(
    rf"structlog\.get_logger\(\)\.({'|'.join(LEVELS)})\(|self\._events = structlog\.get_logger\(\)$|^_LOG: Final = "
)
NAME: Final = re.compile(r"[a-z]+(_[a-z]+)*")


class Event(NamedTuple):
    """One call that logs."""

    name: str
    level: str
    fields: frozenset[str]


def sources() -> dict[str, str]:
    """Return the gateway's modules by path, less the emulator, which is none of it."""
    paths = [path for path in sorted((ROOT / "gateway").rglob("*.py")) if "emulator" not in path.parts]
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}


def calls(source: str) -> list[tuple[str, ast.Call]]:
    """Return every call of a logger, with its level."""
    if not any(logger in source for logger in (*LOGGERS, PASSED_ON)):
        return []
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in LEVELS and ast.unparse(node.func.value) in LOGGERS:
                found.append((node.func.attr, node))
            elif ast.unparse(node.func) == PASSED_ON:
                found.append(("error", node))
    return found


def event_of(level: str, call: ast.Call) -> Event:
    """Return what a call logs; AssertionError where its name or a field's name is no constant."""
    assert len(call.args) == 1, ast.unparse(call)
    name = ast.literal_eval(call.args[0])
    fields = [keyword.arg for keyword in call.keywords]
    assert NAME.fullmatch(name), name
    assert None not in fields, f"{name}: fields out of a dictionary"
    named = frozenset(field for field in fields if field is not None)
    return Event(name, "error", named | {"exception"}) if level == "exception" else Event(name, level, named)


def logged() -> dict[str, set[Event]]:
    """Return all events of the source by name."""
    found = defaultdict(set)
    for path, source in sources().items():
        for level, call in calls(source):
            if not (
                path == "gateway/processes/composition.py" and ast.unparse(call.args[0]) == "event"
            ):  # what was passed on
                event = event_of(level, call)
                found[event.name].add(event)
    return dict(found)


def documented() -> dict[str, set[Event]]:
    """Return all events of the page by name."""
    rows = [re.split(r" \| ", line.strip("| ")) for line in PAGE.splitlines() if re.match(r"\| `[a-z_]+` \| ", line)]
    rows = [row for row in rows if row[1].strip() in LEVELS]
    return {
        row[0].strip("`"): {Event(row[0].strip("`"), row[1], frozenset(re.findall(r"`([a-z_]+)`", row[3])))}
        for row in rows
        if len(row) == 4
    }


def test_the_page_names_every_event_as_it_is() -> None:
    """Name, level and fields of each; one name is one event, wherever it is logged."""
    assert documented() == logged()


def test_no_event_is_logged_in_another_way() -> None:
    """Every logger is reached by one of the ways that the rule above sees."""
    found = [
        line.strip()
        for path, source in sources().items()
        if path != "gateway/telemetry/log/log.py"
        for line in source.splitlines()
        if re.search(r"get_logger|getLogger", line) and not SEEN.search(line)
    ]
    assert found == []


def test_the_page_names_every_field_of_an_exchange() -> None:
    """The fields of the `exchange` event, in their order, and each outcome with its level."""
    section = PAGE.partition("## The request")[2].partition("##")[0]
    shown = re.findall(r"^\| `([a-z_`, ]+)` \| [^|]*\|$", section, re.MULTILINE)
    names = [name for row in shown for name in row.split("`, `")]
    assert names == [*exchange_event(ExchangeRecord("id", "GET")), "trace_id", "span_id"]
    outcomes = re.findall(r"^\| `([a-z_]+)` \| ([a-z]+) \| [^|]*\|$", PAGE, re.MULTILINE)
    assert dict(outcomes) == dict(LEVEL_OF)
