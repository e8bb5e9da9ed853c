"""One paid request as its money sees it, what became of it, and where that is written and counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from gateway.http.problem import refusal

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal

    from gateway.fal.calls import Call
    from gateway.ledger.entry import LineForm
    from gateway.policy.credential import Principal
    from gateway.policy.price import Price
    from gateway.state.memory.worker_budgets import Reservation

NO_ROOM: Final = refusal(
    "state_unavailable", "What is spent cannot be written down just now; try again.", ((b"retry-after", b"1"),)
)
"""The refusal of a purchase that cannot be written down."""


class RequestResult:
    """What became of a request: `status` of the origin's answer (0: none came), and whether that came whole.

    `was_sent`: the origin has the whole request, or may have it. `are_units_unreadable`: the answer names a quantity
    that is none; `units` is None then.
    """

    __slots__ = ("are_units_unreadable", "fal_id", "is_answered", "status", "units", "was_sent")

    def __init__(  # noqa: PLR0913 (a record, made in one place)
        self,
        *,
        was_sent: bool,
        status: int,
        units: Decimal | None,
        are_units_unreadable: bool = False,
        is_answered: bool,
        fal_id: str | None,
    ) -> None:
        self.was_sent: Final = was_sent
        self.status: Final = status
        self.units: Final = units
        self.are_units_unreadable: Final = are_units_unreadable
        self.is_answered: Final = is_answered
        self.fal_id: Final = fal_id


class Charge:
    """What a purchase came to: `cost_ns` in nano-dollars (None: not known), and where that figure comes from.

    `is_unreadable`: fal named a quantity that is none, or that comes to more than one request may cost.
    """

    __slots__ = ("cost_ns", "is_unreadable", "source")

    def __init__(self, cost_ns: int | None, source: str, *, is_unreadable: bool = False) -> None:
        self.cost_ns: Final = cost_ns
        self.source: Final = source
        self.is_unreadable: Final = is_unreadable


class Account(Protocol):
    """What one key buys at one endpoint, as metrics count it."""

    def count(self, units: Decimal | None, cost_ns: int | None, source: str) -> None:
        """Count a purchase that has come to its cost, or to none that is known."""


class Journal(Protocol):
    """Takes lines for the ledger; they are on their way to it before anything more is sent."""

    def is_full_for(self, key: str) -> bool:
        """Say whether no new hold of a key may be made."""

    def append(
        self,
        line: bytes,
        refused: Callable[[], None] | None = None,
        optional: bool = False,  # noqa: FBT001, FBT002 (hot)
    ) -> None:
        """Add a line; `refused` is called where it cannot be written, before anything more is sent.

        `optional`: of a key without a budget; such a line may be dropped, and is counted then.
        """

    def flush(self) -> bool:
        """Write what was added; False where not all of it could be."""


class Takings(Protocol):
    """Where it is counted what was spent."""

    def account(self, team: str, key: str, endpoint: str, unit: str | None) -> Account:
        """Return the account of what a key buys at an endpoint."""


class Purchase:
    """One paid request: whose, what for, at which price (None: there is none), and what is held for it.

    `form` makes its lines of the ledger's journal, `account` counts what it comes to.
    """

    __slots__ = (
        "account",
        "admitted_at_us",
        "call",
        "estimate_ns",
        "form",
        "hold",
        "id",
        "is_over",
        "is_recorded",
        "price",
        "principal",
    )

    def __init__(  # noqa: PLR0913 (a record, made in one place)
        self,
        purchase_id: str,
        principal: Principal,
        call: Call,
        *,
        price: Price | None,
        estimate_ns: int | None,
        hold: Reservation | None,
        at_us: int,
        form: LineForm,
        account: Account,
    ) -> None:
        self.id: Final = purchase_id
        self.principal: Final = principal
        self.call: Final = call
        self.price: Final = price
        self.estimate_ns: Final = estimate_ns
        self.hold: Final = hold
        self.admitted_at_us = at_us
        self.form: Final = form
        self.account: Final = account
        self.is_recorded = False
        self.is_over = False

    def line(  # noqa: PLR0913 (what changes of a row)
        self,
        status: str,
        *,
        changed_at_us: int,
        fal_id: str | None = None,
        units: Decimal | None = None,
        cost_ns: int | None = None,
        source: str,
    ) -> bytes:
        """Return what the ledger is told: the whole row, as it is now."""
        return self.form.line(
            self.id,
            status,
            fal_id,
            self.admitted_at_us,
            changed_at_us,
            units=str(units) if units is not None else None,
            estimate_ns=self.estimate_ns,
            cost_ns=cost_ns,
            source=source,
        )
