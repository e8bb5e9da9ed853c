"""Purchases made up for the ledger's tests, and the programs that write and apply them as processes of their own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.ledger.entry import Entry
from tests.harness.process import GatewayProcess

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT: Final = Path(__file__).parents[2]
NOON_US: Final = 1_793_880_000_000_000
"""2026-11-05, 12:00 UTC."""

ONE: Final = "1" * 32
TWO: Final = "2" * 32
DEAD: Final = "d" * 32
"""Ids of gateways, as their folders are named."""

HOUR_US: Final = 3_600 * 10**6
HELD: Final = Entry(
    id="0" * 32,
    status="held",
    team="design",
    key="web-prod",
    endpoint="fal-ai/flux/dev",
    kind="run",
    fal_request_id=None,
    admitted_at_us=NOON_US,
    changed_at_us=NOON_US,
    units=None,
    unit="megapixels",
    unit_price="0.025",
    estimate_ns=25_000_000,
    cost_ns=None,
    source="estimated",
)


def held(number: int = 0, **fields: Any) -> Entry:  # noqa: ANN401
    """Return the hold of purchase `number`."""
    return HELD._replace(id=f"{number:032x}", **fields)


def bound(number: int = 0, **fields: Any) -> Entry:  # noqa: ANN401
    """Return the hold of a queue job that fal knows as `job-NUMBER`."""
    return held(number, **{"kind": "submit", "fal_request_id": f"job-{number}", **fields})


def settled(number: int = 0, **fields: Any) -> Entry:  # noqa: ANN401
    """Return purchase `number` as settled exactly, 2 units for 5 cents."""
    return held(number, **{"status": "settled", "units": "2", "cost_ns": 50_000_000, "source": "exact", **fields})


def unknown(number: int = 0, **fields: Any) -> Entry:  # noqa: ANN401
    """Return purchase `number` as charged at its estimate."""
    return held(number, **{"status": "unknown", "cost_ns": 25_000_000, "source": "unknown", **fields})


def released(number: int = 0, **fields: Any) -> Entry:  # noqa: ANN401
    """Return purchase `number` as released: it cost nothing."""
    return held(number, **{"status": "released", "cost_ns": 0, "source": "exact", **fields})


class Program(GatewayProcess):
    """A module of the tests as a process of its own, which tells what happens as JSON lines on its output."""

    def __init__(self, module: str, arguments: Sequence[object], *, folder: Path) -> None:
        paths = [os.environ.get("PYTHONPATH", ""), str(ROOT)]
        env = {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
        super().__init__([str(part) for part in arguments], folder=folder, env=env, program=("-m", module))

    def told(self, name: str) -> list[Any]:
        """Return what was told under a name so far; AssertionError where the program failed."""
        assert self.exit_code in (None, 0, -9, -15), self.story()
        lines = [json.loads(line) for line in self.stdout().split("\n")[:-1]]
        return [value for told, value in lines if told == name]


def tell(name: str, value: object) -> None:
    """Tell something to the test, from within a program."""
    os.write(1, json.dumps([name, value]).encode() + b"\n")
