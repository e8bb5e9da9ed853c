"""Compiles the hot modules to C by mypyc where FALGW_COMPILE=1: the same code for less CPU time a request.

What is compiled is the way of a request and nothing else; what stands on classes of Tornado or pydantic stays as it is.
Without the variable this is a package of pure Python.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from setuptools import Extension, setup

HERE: Final = Path(__file__).parent
PACKAGES: Final = ("ingress", "metering", "policy", "protocol", "relay", "state", "tracing")
MODULES: Final = (
    "admission",
    "capacity",
    "delivery",
    "desk",
    "exchange",
    "gate",
    "intake",
    "ledger/entry",
    "ledger/journal",
    "ledger/trail",
    "pressure",
    "purchase",
    "ticket",
    "till",
    "turns",
    "turnstile",
    "waiting",
)
LEFT_OUT: Final = frozenset(
    {
        "ingress/server.py",
        "metering/board.py",
        "metering/cells.py",
        "metering/exemplars.py",
        "metering/exposition.py",
        "metering/ledger_health.py",
        "metering/log.py",
        "metering/metrics.py",
        "metering/pulse.py",
        "metering/roll.py",
        "metering/zeros.py",
        "policy/access.py",
        "policy/document.py",
        "policy/edition.py",
        "policy/grammar.py",
        "policy/overlap.py",
        "policy/principals.py",
        "policy/reach.py",
        "relay/curl.py",
        "relay/options.py",
        "state/job_channel.py",
        "state/job_closings.py",
        "state/jobs.py",
        "state/redis_address.py",
        "state/redis_books.py",
        "state/redis_link.py",
        "state/redis_store.py",
        "state/shared_purse.py",
        "tracing/exporter.py",
        "tracing/settings.py",
    }
)


def hot_modules() -> list[str]:
    """Return the paths of the modules to compile."""
    gateway = HERE / "gateway"
    found = [path for package in PACKAGES for path in sorted((gateway / package).glob("*.py"))]
    found += [gateway / f"{module}.py" for module in MODULES]
    kept = (path for path in found if path.name != "__init__.py")
    return [str(path.relative_to(HERE)) for path in kept if str(path.relative_to(gateway)) not in LEFT_OUT]


def extensions() -> list[Extension]:
    """Return what is to be compiled; nothing unless it was asked for."""
    if os.environ.get("FALGW_COMPILE") != "1":
        return []
    from mypyc.build import mypycify  # noqa: PLC0415 (a build without it needs no mypy)

    os.chdir(HERE)
    return mypycify(hot_modules(), opt_level="3", debug_level="0")


setup(ext_modules=extensions())
