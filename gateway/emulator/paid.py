"""What the three paid requests share (run, stream, submit): when it counts as executed, and for how many units.

Decision: a refusal (401, 403, 429, a redirect, …) executes nothing and costs nothing; everything else that arrived
whole is executed, also where the answer is then lost or is an error. Units are 0 for errors unless a fault names them.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from gateway.emulator.answers import Answer, failure, misplaced
from gateway.emulator.handler import Reception
from gateway.emulator.response_faults import expected_status

if TYPE_CHECKING:
    from gateway.emulator.faults import Faults

NOT_EXECUTED: Final = frozenset({301, 302, 303, 307, 308, 401, 402, 403, 404, 405, 413, 415, 429, 503})


class Paid(Reception):
    """A request that fal bills. Subclasses produce the answer."""

    async def compose(self) -> Answer:
        """Refuse, or execute and then produce the answer."""
        if self.world.behaviour.locked:
            return failure(403)
        if self.is_refused(expected_status(self.faults)):
            return failure(expected_status(self.faults))
        missing = self.faults.require is not None and self.faults.require not in self.inputs()
        status = HTTPStatus.UNPROCESSABLE_ENTITY if missing else expected_status(self.billing_faults())
        self.world.ledger.execute(self.visit, units=charged(self.billing_faults(), status, usual=self.usual_units()))
        if missing:
            return failure(422, detail=misplaced(str(self.faults.require), "missing", "Field required"))
        return await self.produce()

    def is_refused(self, status: int) -> bool:
        """Return whether an answer of this status means that nothing was executed."""
        return status in NOT_EXECUTED

    def billing_faults(self) -> Faults:
        """Return the faults that decide on the bill."""
        return self.faults

    def usual_units(self) -> str:
        """Return the units of this endpoint where nothing goes wrong."""
        return self.world.behaviour.units_for(self.visit.endpoint)

    def units_shown(self, status: int) -> str | None:
        """Return the units in the head of the answer."""
        return None if self.refusal else shown(self.faults, status, usual=self.usual_units())

    async def produce(self) -> Answer:
        """Return the answer of a request that was executed."""
        raise NotImplementedError


def shown(faults: Faults, status: int, *, usual: str) -> str | None:
    """Return what the answer says of its units: what the fault says, 0 for anything but success, else the usual."""
    if faults.units is not None:
        return None if faults.units == "none" else faults.units
    return usual if status < HTTPStatus.MULTIPLE_CHOICES else "0"


def charged(faults: Faults, status: int, *, usual: str) -> str:
    """Return what is billed later: as shown, unless the fault `billed` says otherwise or nothing was shown."""
    if faults.billed is not None:
        return "0" if faults.billed == "none" else faults.billed
    return shown(faults, status, usual=usual) or usual
