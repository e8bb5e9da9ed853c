"""The emulator's own pages under /_emulator: what it was asked, what it executed, and how it is to behave.

Decision: control is never subject to faults or keys, and is not itself recorded, so that looking changes nothing.
"""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Final

from tornado.web import HTTPError, RequestHandler

from gateway.emulator.behaviour import HOSTS, changed
from gateway.emulator.ledger import EXECUTIONS_MOST, Visit
from gateway.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.emulator.state import World

SHOWN_USUALLY: Final = 10_000
FILTERS: Final = ("endpoint", "kind", "sha256", "request_id", "outcome", "host", "method")


class Control(RequestHandler):
    """A page of control."""

    def initialize(self, *, world: World) -> None:
        """Take what the application hands to every handler."""
        self.world = world

    def show(self, name: str, visits: Iterable[Visit], *, total: int) -> None:
        """Write the latest visits that pass the query's filters, oldest first, with two counts.

        `total` counts since the reset, `count` what passes the filters among those remembered.
        """
        wanted = {key: self.get_query_argument(key) for key in FILTERS if key in self.request.query_arguments}
        latest: deque[Visit] = deque(maxlen=self._limit())
        count = 0
        for visit in visits:
            if all(getattr(visit, key) == value for key, value in wanted.items()):
                count += 1
                latest.append(visit)
        self.finish({"total": total, "count": count, name: [visit.view() for visit in latest]})

    def _limit(self) -> int:
        text = self.get_query_argument("limit", str(SHOWN_USUALLY))
        if not (text.isascii() and text.isdigit()):
            raise HTTPError(400)
        return min(int(text), EXECUTIONS_MOST)

    def write_error(self, status_code: int, **_: object) -> None:
        """Answer errors as JSON."""
        self.finish({"detail": f"HTTP {status_code}"})


class Executions(Control):
    """`GET` /_emulator/executions?limit=…&endpoint=…&kind=…: the paid requests that were executed."""

    def get(self) -> None:
        """Write the executions."""
        self.show("executions", self.world.ledger.executions(), total=self.world.ledger.executed_total)


class Requests(Control):
    """`GET` /_emulator/requests: every request whose head arrived at a host of fal or at the storage."""

    def get(self) -> None:
        """Write the requests."""
        self.show("requests", self.world.ledger.visits(), total=self.world.ledger.seen_total)


class Settings(Control):
    """`GET` and `POST` /_emulator/settings: how account and models behave; a POST changes the names it gives."""

    def get(self) -> None:
        """Write the settings in force."""
        self.finish(self.world.behaviour.view())

    def post(self) -> None:
        """Change settings: all that were given, or none, with every reason."""
        try:
            wanted = json.loads(self.request.body)
        except ValueError:
            wanted = None
        self.world.behaviour, errors = changed(self.world.behaviour, wanted)
        if errors:
            self.set_status(400)
            self.finish({"detail": "; ".join(errors), "errors": list(errors)})
        else:
            self.finish(self.world.behaviour.view())


class Reset(Control):
    """`POST` /_emulator/reset: forget everything, and behave as at the start."""

    def post(self) -> None:
        """Reset."""
        self.world.reset()
        self.finish({"status": "ok"})


class Index(Control):
    """`GET` /: what this is, for somebody who looks."""

    def get(self) -> None:
        """Write the names of the hosts and of the pages."""
        pages = ["/_emulator/executions", "/_emulator/requests", "/_emulator/settings", "/_emulator/reset"]
        self.finish(
            {"emulator": VERSION, "hosts": [f"{self.world.own_url}/hosts/{host}" for host in HOSTS], "control": pages}
        )
