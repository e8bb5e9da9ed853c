"""Numbers as Grafana would write them: by unit, decimals, words for values, and colours by band.

The decision: only the units that the dashboards use are known here; any other is an error, so that a picture never
shows a number in a form that nobody has looked at.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

COLORS: Final = {"text": "#24292e", "green": "#1a7f37", "orange": "#bc4c00", "red": "#cf222e"}
THOUSANDS: Final = ((1e9, "B"), (1e6, "M"), (1e3, "K"))
BYTES: Final = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
SMALL_TIMES: Final = ((1.0, "s", 1.0), (1e-3, "ms", 1e3), (0.0, "µs", 1e6))
SIGNIFICANT: Final = 3


def written(number: float, unit: str, decimals: int | None = None) -> str:
    """Return a number in a unit, with so many decimals (None: as many as make three digits)."""
    return FORMS[unit](number, decimals)


def time_of(seconds: float, decimals: int | None) -> str:
    """Return a time in seconds, milliseconds or microseconds."""
    if seconds == 0:
        return "0 s"
    name, factor = next((name, factor) for least, name, factor in SMALL_TIMES if abs(seconds) >= least)
    return f"{fixed(seconds * factor, decimals)} {name}"


def scaled(number: float, steps: tuple[tuple[float, str], ...], decimals: int | None, *, bare: str = "") -> str:
    """Return a number in the largest step that it reaches; `bare` is the name of one below all of them."""
    reached = ((number / step, name) for step, name in steps if abs(number) >= step)
    amount, name = next(reached, (number, bare))
    return f"{fixed(amount, decimals)} {name}".rstrip()


def fixed(number: float, decimals: int | None) -> str:
    """Return a number with so many decimals; None: three significant digits, no zeros at the end."""
    if decimals is not None:
        return f"{number + 0.0:.{decimals}f}"
    if number == 0:
        return "0"
    places = max(0, SIGNIFICANT - 1 - math.floor(math.log10(abs(number))))
    text = f"{number:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


FORMS: Final[Mapping[str, Callable[[float, int | None], str]]] = {
    "percentunit": lambda number, decimals: f"{fixed(number * 100, decimals)}%",
    "prefix:$": lambda number, decimals: f"${fixed(number, decimals)}",
    "currencyUSD": lambda number, decimals: f"${scaled(number, THOUSANDS, decimals)}",
    "locale": lambda number, decimals: f"{number:,.{decimals or 0}f}",
    "s": time_of,
    "bytes": lambda number, decimals: scaled(number, BYTES, decimals, bare="B"),
    "Bps": lambda number, decimals: f"{scaled(number, BYTES, decimals, bare='B')}/s",
    "reqps": lambda number, decimals: f"{scaled(number, THOUSANDS, decimals)} req/s",
    "cps": lambda number, decimals: f"{scaled(number, THOUSANDS, decimals)} c/s",
    "short": lambda number, decimals: scaled(number, THOUSANDS, decimals),
}
"""How a number is written, by Grafana's name of its unit."""


def worded(number: float, defaults: dict[str, Any]) -> tuple[str, str]:
    """Return a number as a panel's settings write it, and its colour."""
    for mapping in defaults.get("mappings", []):
        found = mapping["options"].get(f"{number:g}")
        if found:
            return found["text"], COLORS[found["color"]]
    return written(number, defaults["unit"], defaults.get("decimals")), banded(number, defaults.get("thresholds"))


def banded(number: float, thresholds: dict[str, Any] | None) -> str:
    """Return the colour of the highest band that a number reaches."""
    color = "text"
    for step in (thresholds or {}).get("steps", []):
        if step["value"] is None or number >= step["value"]:
            color = step["color"]
    return COLORS[color]
