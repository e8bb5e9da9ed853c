"""The last known prices in a file, for a start while fal's API is away.

The decision: a file that is missing or cannot be read is an empty book, and one that cannot be written is an event in
the log; neither stops a gateway, which can ask fal again. The file is replaced as a whole, so that a reader never
finds half of it.
"""

from __future__ import annotations

import contextlib
import json
import os
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final

import structlog

from gateway.fal.api.pricing import Quote, quote_fault

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_VERSION: Final = 1
_MOST_BYTES: Final = 4 << 20


def read_prices(path: Path) -> dict[str, Quote]:
    """Return the quotes of the file by endpoint; none where it is not there, or is not one of ours."""
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_MOST_BYTES))
        found = [Quote(str(name), str(unit), Decimal(usd)) for name, unit, usd in content["prices"]]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, InvalidOperation, RecursionError) as fault:
        structlog.get_logger().warning("price_cache_unreadable", path=str(path), reason=type(fault).__name__)
        return {}
    return {quote.endpoint: quote for quote in found if quote_fault(quote) is None}


def write_prices(path: Path, prices: Mapping[str, Quote]) -> None:
    """Replace the file; what the disk refuses is logged."""
    listed = [[quote.endpoint, quote.unit, str(quote.usd)] for quote in prices.values()]
    content = json.dumps({"version": _VERSION, "prices": listed})
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # or a loss of power may leave the new name over nothing
        temporary.replace(path)
    except OSError as fault:
        structlog.get_logger().warning("price_cache_unwritable", path=str(path), reason=fault.strerror)
        with contextlib.suppress(OSError):
            temporary.unlink()
