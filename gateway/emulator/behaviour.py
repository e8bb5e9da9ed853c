"""How the imitated account and its models behave when nothing special is asked: times, units, prices, lock.

Decision: one frozen value, swapped whole by `POST /_emulator/settings`, checked name by name before anything changes;
a job takes its times at submission and so is not bent by a later change.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from gateway.emulator.faults import FaultError, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HOSTS: Final = ("fal.run", "queue.fal.run", "rest.fal.ai", "api.fal.ai")


@dataclass(frozen=True, slots=True)
class Price:
    """What one unit of an endpoint costs, in US dollars as a decimal text."""

    unit: str
    usd: str


DEFAULT_PRICES: Final[Mapping[str, Price]] = MappingProxyType(
    {
        "fal-ai/flux/dev": Price("megapixels", "0.025"),
        "fal-ai/flux/schnell": Price("megapixels", "0.003"),
        "fal-ai/flux-pro/v1.1": Price("megapixels", "0.04"),
    }
)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Settings of the imitation; times in milliseconds, money and units as decimal texts."""

    run_ms: int = 0
    queued_ms: int = 100
    running_ms: int = 200
    events: int = 5
    event_ms: int = 100
    units: str = "1"
    units_of: Mapping[str, str] = field(default_factory=dict)
    stream_units: bool = False
    prices: Mapping[str, Price] = field(default_factory=lambda: DEFAULT_PRICES)
    percent_discount: str = "0"
    billing_delay_ms: int = 0
    page_size: int = 50
    locked: bool = False
    cancel_stops_running: bool = False
    admin_key: str | None = None
    faults: Mapping[str, str] = field(default_factory=dict)

    def units_for(self, endpoint: str) -> str:
        """Return the units that one request to this endpoint is billed."""
        return self.units_of.get(endpoint, self.units)

    def view(self) -> dict[str, object]:
        """Return the settings as JSON shows and takes them."""
        shown = {name: getattr(self, name) for name in READERS}
        return {**shown, "prices": {endpoint: asdict(price) for endpoint, price in self.prices.items()}}


def changed(behaviour: Behaviour, wanted: object) -> tuple[Behaviour, tuple[str, ...]]:
    """Return the behaviour with the wanted settings, or unchanged with every reason why that cannot be."""
    if not isinstance(wanted, dict):
        return behaviour, ("the settings must be a JSON object",)
    values: dict[str, object] = {}
    errors = []
    for name, value in wanted.items():
        try:
            values[name] = READERS[name](value)
        except KeyError:
            errors.append(f"{name}: unknown; known: {', '.join(READERS)}")
        except (ValueError, InvalidOperation) as error:
            errors.append(f"{name}: {error or 'impossible value'}")
    return (behaviour, tuple(errors)) if errors else (replace(behaviour, **values), ())  # type: ignore[arg-type]


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("must be a whole number, 0 or more")
    return value


def _page(value: object) -> int:
    return max(1, _count(value))


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")  # noqa: TRY004 - one kind of error for the one place that catches it
    return value


def _decimal(value: object) -> str:
    amount = Decimal(str(value))
    if not amount.is_finite() or amount < 0:
        raise ValueError("must be a decimal, 0 or more")
    return str(value)


def _percent(value: object) -> str:
    text = _decimal(value)
    if Decimal(text) > 100:  # noqa: PLR2004 - a percentage
        raise ValueError("must be at most 100")
    return text


def _text_or_none(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError("must be a text or null")
    return value


def _table(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError("must be an object")  # noqa: TRY004 - one kind of error for the one place that catches it
    return value


def _decimals(value: object) -> dict[str, str]:
    return {endpoint: _decimal(units) for endpoint, units in _table(value).items()}


def _prices(value: object) -> dict[str, Price]:
    return {endpoint: _price(price) for endpoint, price in _table(value).items()}


def _price(value: object) -> Price:
    entry = _table(value)
    if entry.keys() != {"unit", "usd"}:
        raise ValueError("a price must have `unit` and `usd`, and nothing else")
    return Price(str(entry["unit"]), _decimal(entry["usd"]))


def _host_faults(value: object) -> dict[str, str]:
    lines = {host: str(line) for host, line in _table(value).items()}
    for host, line in lines.items():
        if host not in HOSTS:
            raise FaultError(f"{host!r} is not a host of fal; known: {', '.join(HOSTS)}")
        parse(line)
    return lines


READERS: Final[Mapping[str, Callable[[object], object]]] = MappingProxyType(
    {
        "run_ms": _count,
        "queued_ms": _count,
        "running_ms": _count,
        "events": _count,
        "event_ms": _count,
        "units": _decimal,
        "units_of": _decimals,
        "stream_units": _flag,
        "prices": _prices,
        "percent_discount": _percent,
        "billing_delay_ms": _count,
        "page_size": _page,
        "locked": _flag,
        "cancel_stops_running": _flag,
        "admin_key": _text_or_none,
        "faults": _host_faults,
    }
)
"""Reader of each setting's JSON value, by name."""
