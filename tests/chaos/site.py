"""What runs: gateways before an emulator of fal, over Redis and PostgreSQL or over SQLite, with a proxy on every wire.

The decision it carries: each connection that a network carries (to Redis, PostgreSQL, the origin) goes through a proxy
of the harness, so that a fault of a network is set from outside and nothing of the gateway is replaced.
"""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

from tests.chaos.disk import Disk
from tests.chaos.replica import Replica
from tests.chaos.tenants import PRICES, Tenants
from tests.harness.emulator import Emulator
from tests.harness.fault_proxy import FaultProxy
from tests.harness.gateway import FAL_KEY
from tests.harness.origin import overrides_to
from tests.harness.ports import LOOPBACK
from tests.harness.postgres import CANARY, USER, PostgresServer
from tests.harness.redis import RedisServer
from tests.money.market import Books

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUTS: Final = {
    "FALGW_CONNECT_TIMEOUT": "2",
    "FALGW_FIRST_BYTE_TIMEOUT": "6",
    "FALGW_IDLE_TIMEOUT": "5",
    "FALGW_CLIENT_IDLE_TIMEOUT": "8",
}
BILLS_KEY: Final = "any:key"
"""With which the bill is read past the gateways."""


class Site:
    """One installation. `redis`, `postgres` and the proxies before them are None where it is not shared."""

    def __init__(self, name: str, folder: Path, *, gateways: int, workers: int, is_shared: bool) -> None:
        self.name = name
        self.folder = folder
        self.is_shared = is_shared
        self.tenants = Tenants()
        self.redis: RedisServer | None = None
        self.postgres: PostgresServer | None = None
        self.redis_proxy: FaultProxy | None = None
        self.database_proxy: FaultProxy | None = None
        with ExitStack() as stack:
            self.emulator = stack.enter_context(Emulator(folder / "emulator", key=FAL_KEY))
            prices = {endpoint: {"unit": "unit", "usd": usd} for endpoint, usd in PRICES.items()}
            self.emulator.settings(prices=prices, stream_units=True, event_ms=40, admin_key=BILLS_KEY)
            self.origin_proxy = stack.enter_context(FaultProxy(self.emulator.port))
            self.database_url = self._open_stores(stack)
            self.replicas = [self._replica(stack, number, workers) for number in range(1, gateways + 1)]
            self._stack = stack.pop_all()

    def _open_stores(self, stack: ExitStack) -> str:
        """Start the stores; return the database's URL, past the proxy: for whoever reads the ledger."""
        if not self.is_shared:
            return f"sqlite:///{self.folder}/disk-1/ledger.db"
        self.redis = stack.enter_context(RedisServer(self.folder / "redis"))
        self.redis_proxy = stack.enter_context(FaultProxy(self.redis.port))
        self.postgres = stack.enter_context(PostgresServer())
        self.database_proxy = stack.enter_context(FaultProxy(self.postgres.socket_path))
        return self.postgres.new_database()

    def _replica(self, stack: ExitStack, number: int, workers: int) -> Replica:
        env = {"FALGW_ORIGIN_OVERRIDES": overrides_to(self.origin_proxy.port), **TIMEOUTS}
        env["FALGW_DATABASE_URL"] = self.database_url
        if self.redis_proxy is not None and self.database_proxy is not None:
            env["FALGW_REDIS_URL"] = self.redis_proxy.url
            database = urlsplit(self.database_url).path
            env["FALGW_DATABASE_URL"] = f"postgresql://{USER}:{CANARY}@{LOOPBACK}:{self.database_proxy.port}{database}"
        disk = stack.enter_context(Disk(self.folder / f"disk-{number}"))
        replica = Replica(f"gateway-{number}", self.folder / f"gateway-{number}", env=env, workers=workers, disk=disk)
        stack.callback(replica.close)
        return replica

    def start(self) -> Self:
        """Start the gateways, and wait until each is ready."""
        for replica in self.replicas:
            replica.start(self.tenants.policy())
        for replica in self.replicas:
            replica.gateway.wait_ready()
        return self

    def replica(self, name: str) -> Replica:
        """Return a gateway by its name."""
        return next(replica for replica in self.replicas if replica.name == name)

    def secrets(self) -> dict[str, str]:
        """Return what no log may show, by name."""
        keys = {f"the gateway key {name}": key.secret for name, key in self.tenants.keys.items()}
        return {**keys, "fal's key": FAL_KEY.partition(":")[2], "the database's password": CANARY}

    def keep(self) -> None:
        """Copy what would go with the site into its folder: the ledger's rows, and what is on the gateways' disks."""
        books = Books(self.database_url)
        rows = "\n".join(json.dumps(entry) for entry in books.entries())
        books.close()
        (self.folder / "ledger.jsonl").write_text(rows, encoding="utf-8")
        for replica in self.replicas:
            with suppress(shutil.Error):  # some went while it was copied
                shutil.copytree(replica.disk.folder, self.folder / f"{replica.name}-disk")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything."""
        self._stack.close()
