"""Compiles the hot modules to C by mypyc where FALGW_COMPILE=1: the same code for less CPU time a request.

What is compiled is the way of a request and nothing else; what stands on classes of Tornado or pydantic stays as it is.
Without the variable this is a package of pure Python.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import MappingProxyType
from typing import Final

from setuptools import Extension, setup

HERE: Final = Path(__file__).parent
HOT: Final = MappingProxyType(
    {
        "fal": "calls credential realtime refusals tags units",
        "http": "fields interfaces message problem request_ids responses traceparent",
        "ingress": "connection connections framing pipeline presence reader stream timeouts",
        "ledger": "entry journal journal_reader",
        "limits": "limiter permit wait_queue",
        "money": "accounting purchase",
        "platform": "memory_pressure poller shared_table",
        "policy": "address budget credential endpoint glob job price quota target",
        "proxy": "answer application authorization capacity exchange services upload",
        "state": "interface",
        "state.memory": "budgets store worker_budgets",
        "state.redis": (
            "budget_counters budget_scripts budgets cached_jobs calls commands job_commands jobs leases "
            "pipeline scripts"
        ),
        "telemetry.log": "excepthooks refusal_sampler rendering writer",
        "telemetry.metrics": "endpoint_labels meter purchase_counter unreadable_units",
        "telemetry": "record",
        "telemetry.tracing": "protobuf sampler spans tracer",
        "upstream": (
            "carrier clock driver failures handle interface overhead pooled_sockets retry socket_buffers "
            "timeouts transfer transfers"
        ),
    }
)
"""For each room the modules that every request passes through, or that are called from them for each."""


def hot_modules() -> list[str]:
    """Return the paths of the modules to compile."""
    return [f"gateway/{room.replace('.', '/')}/{name}.py" for room, names in HOT.items() for name in names.split()]


def extensions() -> list[Extension]:
    """Return what is to be compiled; nothing unless it was asked for."""
    if os.environ.get("FALGW_COMPILE") != "1":
        return []
    from mypyc.build import mypycify  # noqa: PLC0415 (a build without it needs no mypy)

    os.chdir(HERE)
    return mypycify(hot_modules(), opt_level="3", debug_level="0")


setup(ext_modules=extensions())
