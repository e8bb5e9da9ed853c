"""The systems that are measured: how each is started before the origin, and how a request reaches the origin by it.

Decided here: all are given the same secret as `Authorization: Bearer`, one process and one core unless a case says
otherwise, and the configuration that their own documentation recommends for streaming; where one needs a departure to
take part at all, its file under `peers/` says so. What is not installed is left out by name, never replaced.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from benchmarks.places import COMPILED, GATEWAY_PYTHON, LOOPBACK, NODE_MODULES, PEER_PYTHON, PEERS, ROOT, find_program
from benchmarks.route import PROXY_PATH, Route

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET: Final = "sk-bench-0123456789abcdefghijklmnopqrstuvwxyz"  # noqa: S105 (opens nothing but a benchmark)
_ORIGIN_HOSTS: Final = ("fal.run", "queue.fal.run", "rest.fal.ai")
_REQUESTS: Final = {"unit": "requests", "quota": 1_000_000_000, "window": "60s"}
_KEY_LIMITS: Final = (
    {"name": "submits", "class": "paid", **_REQUESTS},
    {"name": "parallel", "class": "paid", "unit": "concurrent-requests", "quota": 1_000_000},
)
_TEAM_LIMITS: Final = ({"name": "pool", **_REQUESTS},)
_BUDGET: Final = MappingProxyType({"usd": "100000000"})
_PRICE: Final = MappingProxyType({"endpoint": "bench/post", "unit": "image", "usd": "0.0001"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where a system is to run: its folder, its port, the origin's, and a second port for its operators."""

    folder: Path
    port: int
    ops_port: int
    origin_port: int


@dataclass(frozen=True, slots=True)
class Launch:
    """A command with what it needs in its environment, and the route that requests take then."""

    command: tuple[str, ...]
    route: Route
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class System:
    """A system by name. `launch` writes its configuration; `missing` says what is not installed, or nothing.

    One that `spreads` may run on all cores, beside the load; the others have a core of their own.
    """

    name: str
    launch: Callable[[Place], Launch]
    missing: Callable[[], str] = lambda: ""
    secrets: tuple[str, ...] = (SECRET,)
    spreads: bool = False


def gateway(  # noqa: PLR0913 (each is a setting of its own, given by name)
    name: str = "gateway",
    *,
    workers: int = 1,
    keys: int = 1,
    max_inflight: int = 2000,
    module: str = "gateway",
    spreads: bool = False,
    compiled: bool = True,
    log_level: str = "info",
    is_limited: bool = False,
    is_budgeted: bool = False,
) -> System:
    """Return the gateway with so many workers and keys; `module` is what `python -m` runs it by.

    `compiled`: with its hot modules compiled to C, as it is deployed, in place of the pure Python of this folder.
    `is_limited`: under three limits that nobody reaches, two of the key and one of its team.
    `is_budgeted`: under two budgets that nobody spends, one of the key and one of its team, with a price.
    """
    secrets = (SECRET, *(f"{SECRET}-{number}" for number in range(1, keys)))

    def launch(place: Place) -> Launch:
        policy = place.folder / "policy.json"
        policy.write_text(
            json.dumps(_policy(secrets, is_limited=is_limited, is_budgeted=is_budgeted)), encoding="utf-8"
        )
        base_url = f"http://{LOOPBACK}:{place.origin_port}"
        env = {
            "PYTHONPATH": f"{COMPILED}:{ROOT}" if compiled else str(ROOT),
            "FAL_KEY": "bench:secret",
            "FALGW_PORT": str(place.port),
            "FALGW_OPS_PORT": str(place.ops_port),
            "FALGW_WORKERS": str(workers),
            "FALGW_POLICY": str(policy),
            "FALGW_MAX_INFLIGHT": str(max_inflight),
            "FALGW_ORIGIN_OVERRIDES": ",".join(f"{host}={base_url}" for host in _ORIGIN_HOSTS),
            "FALGW_SHUTDOWN_DELAY": "0",
            "FALGW_DRAIN_TIMEOUT": "1",
            "FALGW_LOG_FORMAT": "json",
            "FALGW_LOG_LEVEL": log_level,
        }
        return Launch((str(GATEWAY_PYTHON), "-m", module, "serve"), Route(place.port, SECRET), env)

    built, what = (COMPILED / ".stamp", "its compiled build") if compiled else (GATEWAY_PYTHON, "its environment")
    missing = _needs(built, what)
    return System(name, launch, missing, secrets, spreads)


def _policy(secrets: tuple[str, ...], *, is_limited: bool, is_budgeted: bool) -> dict[str, object]:
    own: dict[str, object] = {"limits": list(_KEY_LIMITS)} if is_limited else {}
    shared: dict[str, object] = {"limits": list(_TEAM_LIMITS)} if is_limited else {}
    if is_budgeted:
        own["budgets"], shared["budgets"] = [{**_BUDGET, "period": "day"}], [{**_BUDGET, "period": "month"}]
    digests = (hashlib.sha256(secret.encode()).hexdigest() for secret in secrets)
    keys = [
        {"id": f"key-{number}", "team": "bench", "digests": [f"sha256:{digest}"], **own}
        for number, digest in enumerate(digests)
    ]
    prices = [dict(_PRICE)] if is_budgeted else []
    targets = {"isolate_jobs": "none"}  # the origin's free paths have more segments than those of a job
    return {"teams": [{"id": "bench", **shared}], "keys": keys, "prices": prices, "targets": targets}


def _needs(path: Path, what: str) -> Callable[[], str]:
    return lambda: "" if path.exists() else f"{what} is not installed"


def _needs_program(name: str) -> Callable[[], str]:
    return lambda: "" if find_program(name) else f"{name} is not installed"


def _aiohttp(place: Place) -> Launch:
    arguments = (str(place.port), str(place.origin_port), SECRET)
    return Launch((str(PEER_PYTHON), str(PEERS / "aiohttp_proxy.py"), *arguments), Route(place.port, SECRET))


def _express(place: Place) -> Launch:
    arguments = (str(place.port), str(place.origin_port), SECRET)
    env = {"NODE_PATH": str(NODE_MODULES), "FAL_KEY": "bench:secret", "NODE_ENV": "production"}
    # The reference goes to the target itself, so the target has to be the origin.
    route = Route(place.port, SECRET, target_base=f"http://{LOOPBACK}:{place.origin_port}")
    return Launch(("node", str(PEERS / "express_proxy.js"), *arguments), route, env)


def _litellm(place: Place) -> Launch:
    config = _filled("litellm.yaml", place)
    program = str(PEER_PYTHON.with_name("litellm"))
    options = ("--host", LOOPBACK, "--port", str(place.port), "--num_workers", "1")
    env = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": LOOPBACK}
    route = Route(place.port, SECRET, prefix=PROXY_PATH, path_only=True)
    return Launch((program, "--config", str(config), *options), route, env)


def _nginx(place: Place) -> Launch:
    config = _filled("nginx.conf", place)
    command = (find_program("nginx") or "nginx", "-p", str(place.folder), "-c", str(config))
    return Launch(command, Route(place.port, SECRET))


def _haproxy(place: Place) -> Launch:
    config = _filled("haproxy.cfg", place)
    return Launch((find_program("haproxy") or "haproxy", "-f", str(config)), Route(place.port, SECRET))


def _filled(name: str, place: Place) -> Path:
    """Write a peer's configuration into the place's folder, with its ports and the secret in it."""
    text = (PEERS / name).read_text(encoding="utf-8")
    for mark, value in (("@PORT@", place.port), ("@ORIGIN@", place.origin_port), ("@SECRET@", SECRET)):
        text = text.replace(mark, str(value))
    path = place.folder / name
    path.write_text(text, encoding="utf-8")
    return path


GATEWAY: Final = gateway()
PURE: Final = gateway("gateway, pure Python", compiled=False)
AIOHTTP: Final = System("aiohttp", _aiohttp, _needs(PEER_PYTHON, "aiohttp"))
EXPRESS: Final = System("express", _express, _needs(NODE_MODULES / "@fal-ai" / "server-proxy", "@fal-ai/server-proxy"))
LITELLM: Final = System("litellm", _litellm, _needs(PEER_PYTHON.with_name("litellm"), "LiteLLM"))
NGINX: Final = System("nginx", _nginx, _needs_program("nginx"))
HAPROXY: Final = System("haproxy", _haproxy, _needs_program("haproxy"))
ALL: Final = (GATEWAY, AIOHTTP, EXPRESS, LITELLM, NGINX, HAPROXY)
