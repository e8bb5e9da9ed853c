"""Read out of one line of text what an answer should do wrong.

Decision: faults are asked for by the request that is to suffer them, never by hidden state, so that tests which run
side by side cannot disturb each other. The line is `name=value,name=value`; a bare name stands for "yes". It comes in
the field `x-fal-emulate`, in the path (`emulate/{line}/owner/alias`), or out of the settings for a whole host.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

Field = tuple[str, str]

FIELD_PATTERN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[ -~]*")


class FaultError(ValueError):
    """The line asks for something that the emulator does not know; the message says what."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What one exchange should do wrong; the default is an exchange in which nothing goes wrong."""

    status: int | None = None
    early: int | None = None
    redirect: int | None = None
    interim: int = 0
    delay: int = 0
    pace: int = 0
    read_pace: int = 0
    piece: int | None = None
    size: int | None = None
    type: str | None = None
    stall: int | None = None
    cut: int | None = None
    close: int | None = None
    close_whole: bool = False
    reset: bool = False
    framing: str = ""
    gzip: bool = False
    baggage: bool = False
    trailers: bool = False
    behind: bool = False
    fields: tuple[Field, ...] = ()
    units: str | None = None
    billed: str | None = None
    require: str | None = None
    events: int | None = None
    queued: int | None = None
    running: int | None = None
    on: str = ""


NO_FAULTS: Final = Faults()


def parse(line: str) -> Faults:
    """Return the faults that a line asks for; raise FaultError for an unknown name or an impossible value."""
    values: dict[str, object] = {}
    for item in filter(None, (part.strip() for part in line.split(","))):
        name, _, text = item.partition("=")
        attribute, value = _value(name.strip(), text.strip())
        earlier = values.get(attribute)
        values[attribute] = earlier + value if isinstance(earlier, tuple) and isinstance(value, tuple) else value
    return Faults(**values)  # type: ignore[arg-type]  # every value went through the reader of its own name


def _value(name: str, text: str) -> tuple[str, object]:
    if name == "close" and text == "whole":
        return "close_whole", True
    attribute = "fields" if name == "field" else name
    reader = READERS.get(name)
    if reader is None:
        raise FaultError(f"unknown fault {name!r}; known: {', '.join(sorted(READERS))}")
    try:
        return attribute, reader(text)
    except (ValueError, InvalidOperation) as error:
        raise FaultError(f"fault {name!r} cannot be {text!r}") from error


def _status(text: str) -> int:
    return _within(int(text), least=200, most=599)


def _redirect(text: str) -> int:
    return _within(int(text or "307"), least=300, most=399)


def _count(text: str) -> int:
    return _within(int(text), least=0, most=2**40)


def _position(text: str) -> int:
    return 0 if text in {"", "head"} else _count(text)


def _piece(text: str) -> int:
    return _within(int(text), least=1, most=2**24)


def _few(text: str) -> int:
    return _within(int(text or "1"), least=0, most=10)


def _within(number: int, *, least: int, most: int) -> int:
    if not least <= number <= most:
        raise ValueError
    return number


def _flag(text: str) -> bool:
    if text not in {"", "0", "1"}:
        raise ValueError
    return text != "0"


def _units(text: str) -> str:
    if text != "none" and not (Decimal(text).is_finite() and Decimal(text) >= 0):
        raise ValueError
    return text


def _word(text: str) -> str:
    if not text:
        raise ValueError
    return text


def _field(text: str) -> tuple[Field, ...]:
    if FIELD_PATTERN.fullmatch(text) is None:
        raise ValueError
    name, _, value = text.partition(":")
    return ((name, value.strip()),)


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return read


READERS: Final[MappingProxyType[str, Callable[[str], object]]] = MappingProxyType(
    {
        "status": _status,
        "early": _status,
        "redirect": _redirect,
        "interim": _few,
        "delay": _count,
        "pace": _count,
        "read_pace": _count,
        "piece": _piece,
        "size": _count,
        "type": _word,
        "stall": _position,
        "cut": _position,
        "close": _position,
        "reset": _flag,
        "framing": _one_of("length", "chunked", "none"),
        "gzip": _flag,
        "baggage": _flag,
        "trailers": _flag,
        "behind": _flag,
        "field": _field,
        "units": _units,
        "billed": _units,
        "require": _word,
        "events": _count,
        "queued": _count,
        "running": _count,
        "on": _one_of("submit", "status", "result", "cancel"),
    }
)
"""Reader of each fault's text, by name; docs/emulator.md says what each does."""
