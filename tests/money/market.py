"""What the tests of money stand on: a gateway with prices before an origin, and its ledger, read while it runs.

The decision it carries: what a request cost is asked for by the gateway's own request id, which is the row's id in the
ledger and stands in its log event. Each rule has a key and a team of its own, so that sums of a key are sums of a test.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlencode

from sqlalchemy import select

from gateway.ledger.database import Database
from gateway.ledger.entry import HELD, Entry
from gateway.ledger.tables import PURCHASES
from tests.harness.gateway import Gateway
from tests.harness.messages import proxy_request
from tests.harness.policy import GatewayKey, policy_text
from tests.harness.ports import LOOPBACK
from tests.harness.process import GATEWAY, clean_environment
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from tests.harness.client import RawClient, Response
    from tests.harness.emulator import Emulator

FLUX: Final = "fal-ai/flux/dev"
DOLLAR: Final = "shop/dollar"
NANO: Final = "shop/nano"
UNPRICED: Final = "shop/unpriced"
WORKFLOW: Final = "workflows/shop/film"
PRICES: Final = {
    FLUX: {"unit": "megapixel", "usd": "0.025"},
    DOLLAR: {"unit": "film", "usd": "1"},
    NANO: {"unit": "token", "usd": "0.000000001"},
    WORKFLOW: {"unit": "film", "usd": "0.5"},
}
NS: Final = 10**9
COMMAND_SECONDS: Final = 30.0
LEDGER_SECONDS: Final = 15.0
"""Within which a settled request is to be seen in the ledger."""

Row = dict[str, Any]


def budget(usd: str, period: str = "month") -> Row:
    """Return a budget as the policy file has it."""
    return {"usd": usd, "period": period}


def buyer(name: str, *budgets: Row, team: str | None = None) -> GatewayKey:
    """Return a key under these budgets, in a team of its own unless one is named."""
    return GatewayKey(id=name, team=team or name, entry={"budgets": list(budgets)} if budgets else {})


def market_policy(
    keys: Iterable[GatewayKey],
    *,
    teams: Mapping[str, Sequence[Row]] | None = None,
    prices: Mapping[str, Mapping[str, str]] | None = None,
    **sections: Any,  # noqa: ANN401 - any part of a policy file
) -> str:
    """Return a policy with these keys and prices; `teams` are the budgets of teams, by team."""
    listed = list(keys)
    owners = dict.fromkeys(key.team for key in listed)
    rows = [{"id": team, "budgets": list((teams or {}).get(team, ()))} for team in owners]
    priced = [
        {"endpoint": endpoint, "typical_units": "1", **price}
        for endpoint, price in (PRICES if prices is None else prices).items()
    ]
    return policy_text(*listed, **{"teams": rows, "prices": priced, **sections})


class Books:
    """One ledger, read by the tests. `close()` lets go of it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._database = Database(url)

    def entries(self) -> list[Entry]:
        """Return all rows, in the order of admission."""
        with self._database.reading() as connection:
            rows = connection.execute(select(PURCHASES).order_by(PURCHASES.c.admitted_at_us)).all()
        return [Entry(*row) for row in rows]

    def of(self, key: GatewayKey) -> list[Entry]:
        """Return a key's rows."""
        return [entry for entry in self.entries() if entry.key == key.id]

    def find(self, request_id: str) -> Entry | None:
        """Return the row of a request, None where there is none."""
        with self._database.reading() as connection:
            row = connection.execute(select(PURCHASES).where(PURCHASES.c.id == request_id)).first()
        return None if row is None else Entry(*row)

    def entry(self, request_id: str, *statuses: str) -> Entry:
        """Wait for the row of a request to have one of these states (none given: any but held), and return it."""

        def there() -> Entry | None:
            found = self.find(request_id)
            if found is None:
                return None
            return found if (found.status in statuses if statuses else found.status != HELD) else None

        return until(there, f"the row of {request_id}", timeout_seconds=LEDGER_SECONDS)

    def spent_ns(self, key: GatewayKey | None = None) -> int:
        """Return the sum of what was charged, of one key or of all."""
        rows = self.entries() if key is None else self.of(key)
        return sum(entry.cost_ns or 0 for entry in rows if entry.status != HELD)

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()


class Market:
    """A gateway over a ledger of its own; one that is opened `again` takes over ledger, spool and policy.

    `overrides` is a value of FALGW_ORIGIN_OVERRIDES; `env` holds settings.
    """

    def __init__(
        self,
        folder: Path,
        overrides: str,
        policy: str,
        *,
        workers: int = 1,
        url: str | None = None,
        **env: str,
    ) -> None:
        self._folder, self._overrides, self._workers, self._env = folder, overrides, workers, env
        self.policy = policy
        folder.mkdir(parents=True, exist_ok=True)
        self._lives = 0
        self.books = Books(url or f"sqlite:///{folder}/ledger.db")
        self.gateway = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> Gateway:
        self._lives += 1
        env = {"FALGW_ORIGIN_OVERRIDES": self._overrides, "FALGW_DATABASE_URL": self.books.url, **self._env}
        folder = self._folder / f"life-{self._lives}"
        return Gateway(folder, policy=self.policy, env=env, workers=self._workers).wait_ready()

    def restart(self) -> None:
        """End the gateway by SIGTERM, and start another one over the same ledger and spool."""
        self.gateway.close()
        self.gateway = self._open()

    def kill(self) -> None:
        """Kill every process of the gateway at once."""
        self.gateway.process.kill()
        self.gateway.close(expected=None)

    def revive(self) -> None:
        """Start a gateway over the ledger and the spool that a dead one left."""
        self.gateway = self._open()

    def reload(self, policy: str) -> None:
        """Put another policy in force, in every worker."""
        self.policy = policy
        generation = self.gateway.metrics().value("policy_generation")
        self.gateway.policy_file.write_text(policy, encoding="utf-8")
        until(
            lambda: self.gateway.metrics().value("policy_generation") > generation,
            "the new policy in force",
        )

    def connect(self) -> RawClient:
        """Open a raw connection to the gateway; the test closes it."""
        return self.gateway.connect()

    def ask(self, key: GatewayKey, endpoint: str = FLUX, *, emulate: str = "", **parts: Any) -> Response:  # noqa: ANN401
        """Run an endpoint; `emulate` says what should go wrong (docs/emulator.md), `parts` as for `proxy_request`."""
        with self.connect() as client:
            return client.ask(run_of(key, endpoint, emulate=emulate, **parts))

    def submit(self, key: GatewayKey, endpoint: str = FLUX, *, emulate: str = "queued=0,running=0") -> Response:
        """Submit a queue job."""
        target = f"https://queue.fal.run/{endpoint}"
        with self.connect() as client:
            return client.ask(proxy_request(target, key=key, fields=emulated(emulate)))

    def job(
        self, key: GatewayKey, job_id: str, *, endpoint: str = FLUX, step: str = "", method: str = "GET"
    ) -> Response:
        """Ask about a queue job: its result, or a `step` below it."""
        parts = endpoint.split("/")
        application = "/".join(parts[: 3 if parts[0] in ("workflows", "comfy") else 2])
        target = f"https://queue.fal.run/{application}/requests/{job_id}{step}"
        with self.connect() as client:
            return client.ask(proxy_request(target, key=key, method=method))

    def event(self, response: Response) -> Row:
        """Return the log event of an answered request."""
        request_id = response.field("x-gateway-request-id")
        return self.gateway.wait_for_event("exchange", lambda event: event["request_id"] == request_id)

    def entry(self, response: Response, *statuses: str) -> Entry:
        """Return the row of an answered request, once it has one of these states; see `Books.entry`."""
        return self.books.entry(str(response.field("x-gateway-request-id")), *statuses)

    def charged_ns(self, key: GatewayKey) -> int:
        """Return what the metrics say that a key has spent, in nano-dollars."""
        return round(Decimal(str(self.gateway.metrics().value("cost_usd_total", key=key.id))) * NS)

    def usage(self, *arguments: str) -> Any:  # noqa: ANN401 - JSON
        """Return what `fal-gateway usage --format json` says."""
        return self.command("usage", "--format", "json", *arguments)

    def command(self, *arguments: str, **env: str) -> Any:  # noqa: ANN401 - JSON
        """Run one command of the program over this ledger; return what it prints, read as JSON."""
        settings = {"FALGW_DATABASE_URL": self.books.url, "FALGW_ORIGIN_OVERRIDES": self._overrides, **env}
        done = subprocess.run(
            [sys.executable, *GATEWAY, *arguments],
            env=clean_environment(settings),
            cwd=self._folder,
            capture_output=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, (arguments, done.returncode, done.stdout, done.stderr)
        return json.loads(done.stdout)

    def close(self) -> None:
        """End the gateway, and let go of the ledger; harmless when done twice."""
        try:
            self.gateway.close(expected=None if self.gateway.process.exit_code else 0)
        finally:
            self.books.close()


def run_of(key: GatewayKey, endpoint: str = FLUX, *, emulate: str = "", **parts: Any) -> bytes:  # noqa: ANN401
    """Return a run as bytes."""
    fields = (*emulated(emulate), *parts.pop("fields", ()))
    return proxy_request(f"https://fal.run/{endpoint}", key=key, fields=fields, **parts)


def emulated(line: str) -> tuple[tuple[str, str], ...]:
    """Return the field that asks the emulator for something; none for an empty line."""
    return (("x-fal-emulate", line),) if line else ()


def request_id_of(response: Response) -> str:
    """Return the queue job that a submit's answer names."""
    assert response.status == 200, response
    return str(response.json()["request_id"])


def bill_of(fal: Emulator) -> dict[str, int]:
    """Return fal's bill: nano-dollars by request id, read page by page from the emulator's own address."""
    bill: dict[str, int] = {}
    cursor: str | None = None
    while True:
        query = urlencode({"limit": "1000", "start": "2020-01-01", **({"cursor": cursor} if cursor else {})})
        page = _asked(fal.port, f"/hosts/api.fal.ai/v1/models/billing-events?{query}")
        for event in page["billing_events"]:
            assert event["request_id"] not in bill
            bill[event["request_id"]] = int(event["cost_estimate_nano_usd"])
        cursor = page["next_cursor"]
        if not page["has_more"]:
            return bill


def _asked(port: int, path: str) -> Any:  # noqa: ANN401 - JSON
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=COMMAND_SECONDS)
    connection.request("GET", path, headers={"Authorization": "Key any:key"})
    response = connection.getresponse()
    text = response.read()
    connection.close()
    assert response.status == http.client.OK, (path, response.status, text)
    return json.loads(text)
