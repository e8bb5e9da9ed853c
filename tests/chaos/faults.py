"""What each kind of fault does to a site, and what undoes it.

The decision it carries: one function for each kind, by its name in `plan`; it returns what ends the fault, or nothing
where it was a moment. A fault that finds nothing to strike (the process has just died) says so and is none.
"""

from __future__ import annotations

import random
import signal
import sqlite3
from functools import partial
from typing import TYPE_CHECKING, Final

import psycopg

from tests.chaos.replica import limit, signal_to
from tests.chaos.tenants import REVOKED

if TYPE_CHECKING:
    from collections.abc import Callable

    import psutil

    from tests.chaos.plan import Fault
    from tests.chaos.site import Site
    from tests.harness.fault_proxy import FaultProxy, Mode
    from tests.harness.redis import RedisServer

    Undo = Callable[[], object]

UNLIMITED: Final = -1
EVICTED_SHARE: Final = 3
FULL_REDIS_BYTES: Final = 1
RUN_HOST: Final = "fal.run"
QUEUE_HOST: Final = "queue.fal.run"
ORIGIN_FAULTS: Final = {
    "origin_failing": "status=500",
    "origin_busy": "status=429",
    "origin_cutting": "cut=20,reset",
    "origin_losing_answers": "close=whole",
    "origin_behind": "behind",
}
MODES: Final[dict[str, Mode]] = {
    "refused": "refuse",
    "black_hole": "black_hole",
    "frozen": "frozen",
    "slow": "slow",
    "flapping": "flapping",
    "garbage": "garbage",
}
BROKEN_POLICY: Final = "teams: [{id: design}\nkeys: nonsense: more\n"


def inject(site: Site, fault: Fault) -> Undo | None:
    """Let a fault begin; return what ends it."""
    if fault.resource.startswith("gateway"):
        return _strike_gateway(site, fault)
    strike = {"redis": _strike_redis, "database": _strike_database, "origin": _strike_origin, "policy": _strike_policy}
    return strike[fault.resource](site, fault)


def _strike_gateway(site: Site, fault: Fault) -> Undo | None:
    replica = site.replica(fault.resource)
    how, _, what = fault.kind.partition("_")
    if fault.kind == "full_disk" and replica.disk.is_own:
        replica.disk.fill()
        return replica.disk.free
    if fault.kind == "full_disk":
        limited = replica.limit_files(0)
        return partial(_each, limited, lambda member: limit(member, UNLIMITED))
    if how == "stop":
        stopped = replica.send("any" if what == "gateway" else what, fault.choice, signal.SIGSTOP)
        return partial(_each, stopped, lambda member: signal_to(member, signal.SIGCONT))
    if fault.kind == "restart_gateway":
        replica.note_kill()
        replica.gateway.process.signal(signal.SIGTERM)
        return None  # it is started again once it has ended
    if what == "gateway":
        replica.kill_all()
    else:
        replica.living("any")  # who outlives the supervisor is known by its id
        replica.kill(what, fault.choice)
    return None


def _each(members: list[psutil.Process], action: Callable[[psutil.Process], None]) -> None:
    for member in members:
        action(member)


def _set_mode(proxy: FaultProxy | None, name: str) -> Undo:
    assert proxy is not None

    def set_to(mode: Mode) -> None:
        proxy.mode = mode

    set_to(MODES[name])
    return lambda: set_to("pass")


def _strike_redis(site: Site, fault: Fault) -> Undo | None:
    server = site.redis
    assert server is not None
    what = fault.kind.removeprefix("redis_")
    if what in MODES:
        return _set_mode(site.redis_proxy, what)
    if what == "flushed":
        server.run("FLUSHALL")
    elif what == "evicted":
        _evict(site, random.Random(fault.choice))  # noqa: S311 - a schedule, not a secret
    elif what == "restarted_empty":
        server.kill()
        return server.start
    elif what == "restored":
        snapshot = server.snapshot()
        return partial(_restore, server, snapshot)
    elif what == "full":
        server.run("CONFIG", "SET", "maxmemory", FULL_REDIS_BYTES)
        return lambda: server.run("CONFIG", "SET", "maxmemory", 0)
    return None


def _restore(server: RedisServer, snapshot: bytes) -> None:
    server.kill()
    server.start(snapshot=snapshot)


def _evict(site: Site, draw: random.Random) -> None:
    """Delete single keys, as `maxmemory-policy` does where it is not `noeviction`."""
    assert site.redis is not None
    names = site.redis.key_names()
    if names:
        site.redis.run("DEL", *draw.sample(names, max(1, len(names) // EVICTED_SHARE)))


def _strike_database(site: Site, fault: Fault) -> Undo:
    what = fault.kind.removeprefix("database_")
    if what in MODES:
        return _set_mode(site.database_proxy, what)
    if site.postgres is None:
        return _lock_sqlite(site)
    if what == "restarted":
        site.postgres.stop()
        return site.postgres.start
    return _lock_postgres(site)


def _lock_sqlite(site: Site) -> Undo:
    """Hold the database's one lock for writing, as another program does."""
    other = sqlite3.connect(site.database_url.removeprefix("sqlite:///"), check_same_thread=False, timeout=2)
    other.execute("BEGIN IMMEDIATE")
    return other.close


def _lock_postgres(site: Site) -> Undo:
    other = psycopg.connect(site.database_url)
    other.execute("LOCK TABLE fal_gateway_purchases IN ACCESS EXCLUSIVE MODE")
    return other.close


def _strike_origin(site: Site, fault: Fault) -> Undo:
    what = fault.kind.removeprefix("origin_")
    if what in MODES:
        return _set_mode(site.origin_proxy, what)
    line = ORIGIN_FAULTS[fault.kind]
    hosts = (RUN_HOST, QUEUE_HOST) if fault.choice % 2 else (RUN_HOST,)
    site.emulator.settings(faults=dict.fromkeys(hosts, line))
    return lambda: site.emulator.settings(faults={})


def _strike_policy(site: Site, fault: Fault) -> Undo:
    what = fault.kind.removeprefix("policy_")
    text = {
        "broken": BROKEN_POLICY,
        "emptied": "",
        "key_revoked": site.tenants.policy(without=REVOKED),
        "rewritten": site.tenants.policy() + "\n# the same\n",
    }[what]
    write_policy(site, text)
    return lambda: write_policy(site, site.tenants.policy())


def write_policy(site: Site, text: str) -> None:
    """Replace the policy file of every gateway by rename, as an editor does."""
    for replica in site.replicas:
        fresh = replica.folder / "policy.new"
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(replica.folder / "policy.yaml")
