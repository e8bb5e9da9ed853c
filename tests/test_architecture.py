"""Who may import whom, and how big a thing may grow: the floors of the house, read out of the source with `ast`.

The decision it carries: the tables below are the architecture. Every module has a row (the longest name that fits),
every import counts, also one inside a function or for type checking only. A new arrow is a new entry here, in a
change that says why.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT: Final = Path(__file__).parent.parent / "gateway"
PYDANTIC: Final = frozenset({"pydantic", "pydantic_core"})
EVERYWHERE: Final = frozenset({"version"})
BELOW_APP: Final = frozenset(
    {
        "admission",
        "bookkeeper",
        "bookkeeping",
        "bulletin",
        "capacity",
        "delivery",
        "descriptors",
        "desk",
        "exchange",
        "falapi",
        "gate",
        "ingress",
        "intake",
        "job_answers",
        "job_search",
        "ledger",
        "ledger_watch",
        "metering",
        "ops",
        "outlay",
        "overseer",
        "policy",
        "policyfile",
        "pressure",
        "protocol",
        "purchase",
        "quotes",
        "relay",
        "reload",
        "rules",
        "ruleset",
        "selector",
        "settings",
        "shared",
        "signals",
        "state",
        "statement",
        "ticket",
        "till",
        "tracing",
        "turns",
        "turnstile",
        "waiting",
    }
)

MAY_IMPORT: Final = MappingProxyType(
    {
        "version": frozenset(),
        "signals": frozenset(),
        "console": frozenset(),
        "progress": frozenset(),
        "protocol": frozenset({"protocol"}),
        "policy": frozenset({"policy", "protocol"}),
        "yamltree": frozenset(),
        "ruleset": frozenset({"policy", "protocol", "yamltree"}),
        "falkey": frozenset(),
        "redaction": frozenset(),
        "settings": frozenset({"falkey", "ledger.address", "redaction", "state.redis_address", "tracing.settings"}),
        "tracing.sampler": frozenset(),
        "tracing.protobuf": frozenset(),
        "tracing.settings": frozenset({"redaction", "tracing.sampler"}),
        "tracing": frozenset({"falapi.backoff", "falapi.transport", "metering", "protocol", "tracing"}),
        "teamkeys": frozenset({"falkey", "policy"}),
        "bulletin": frozenset(),
        "policyfile": frozenset({"bulletin", "policy", "ruleset", "teamkeys"}),
        "filewatch": frozenset(),
        "policyreader": frozenset({"policy", "ruleset", "yamltree"}),
        "reload": frozenset({"filewatch", "policy", "policyfile", "policyreader", "ruleset", "teamkeys"}),
        "state": frozenset({"policy", "redaction", "state"}),
        "ledger.entry": frozenset(),
        "ledger.segments": frozenset(),
        "ledger.unwritten": frozenset(),
        "ledger.journal": frozenset({"ledger.segments", "ledger.unwritten"}),
        "ledger": frozenset({"ledger", "progress", "redaction", "signals"}),
        "falapi": frozenset({"falapi", "ledger", "redaction"}),
        "turns": frozenset(),
        "selector": frozenset({"turns"}),
        "relay.upstream": frozenset({"protocol"}),
        "relay": frozenset({"relay", "protocol", "turns"}),
        "metering": frozenset({"ledger.entry", "metering", "protocol"}),
        "ingress": frozenset({"ingress", "protocol", "turns"}),
        "admission": frozenset({"policy", "protocol", "ruleset"}),
        "waiting": frozenset({"policy"}),
        "ticket": frozenset({"policy", "protocol", "state", "turnstile", "waiting"}),
        "turnstile": frozenset({"policy", "protocol", "state", "ticket", "waiting"}),
        "purchase": frozenset({"ledger.entry", "policy", "protocol", "state"}),
        "till": frozenset({"ledger.entry", "policy", "protocol", "purchase", "state"}),
        "desk": frozenset(
            {
                "admission",
                "metering",
                "policy",
                "protocol",
                "purchase",
                "relay.upstream",
                "statement",
                "ticket",
                "till",
                "turnstile",
            }
        ),
        "delivery": frozenset({"admission", "desk", "metering", "policy", "protocol", "purchase", "ticket"}),
        "intake": frozenset(
            {"admission", "delivery", "desk", "metering", "policy", "protocol", "purchase", "relay.upstream"}
        ),
        "exchange": frozenset({"admission", "capacity", "desk", "intake", "metering", "protocol", "relay.upstream"}),
        "descriptors": frozenset(),
        "pressure": frozenset(),
        "capacity": frozenset({"exchange", "protocol"}),
        "gate": frozenset({"admission", "capacity", "desk", "exchange", "metering", "pressure", "protocol", "tracing"}),
        "ops": frozenset({"ops", "metering", "signals"}),
        "emulator": frozenset({"emulator"}),
        "quotes": frozenset({"falapi.pricing", "policy"}),
        "statement": frozenset({"bulletin", "ledger", "policy", "state"}),
        "overseer": frozenset(
            {
                "bookkeeper",
                "falapi",
                "ledger",
                "metering",
                "policy",
                "quotes",
                "ruleset",
                "shared",
                "state",
                "statement",
            }
        ),
        "shared": frozenset(
            {
                "bulletin",
                "ledger.address",
                "ledger.folder",
                "ledger.journal",
                "ledger.segments",
                "metering",
                "settings",
                "state",
            }
        ),
        "known_jobs": frozenset({"ledger", "policy"}),
        "budget_log": frozenset({"policy"}),
        "shared_audit": frozenset({"budget_log", "ledger", "policy", "state"}),
        "living": frozenset(),
        "treasury": frozenset({"known_jobs", "ledger", "living", "policy", "shared_audit", "state"}),
        "local_budgets": frozenset({"budget_log", "ledger", "policy", "state"}),
        "bookkeeper": frozenset(
            {"known_jobs", "ledger", "local_budgets", "metering", "policy", "ruleset", "state", "treasury"}
        ),
        "job_answers": frozenset({"ledger", "living", "policy", "state"}),
        "job_search": frozenset({"desk", "policy", "state"}),
        "ledger_watch": frozenset({"ledger.folder", "metering"}),
        "outlay": frozenset({"ledger", "metering", "policy", "state"}),
        "bookkeeping": frozenset(
            {
                "bookkeeper",
                "bulletin",
                "job_answers",
                "known_jobs",
                "ledger",
                "metering",
                "outlay",
                "overseer",
                "policy",
                "rules",
                "ruleset",
                "shared",
                "signals",
                "treasury",
            }
        ),
        "app": BELOW_APP,
        "worker": BELOW_APP | {"app"},
        "rules": frozenset({"bulletin", "policy", "ruleset"}),
        "publisher": frozenset({"metering", "policy", "ruleset", "shared"}),
        "reloader": frozenset({"metering", "policy", "publisher", "reload", "shared", "signals"}),
        "listeners": frozenset({"settings"}),
        "lifecycle": BELOW_APP | {"app", "listeners", "publisher", "reloader", "worker"},
        "configuration": frozenset({"policyfile", "ruleset", "settings"}),
        "welcome": frozenset(),
        "ledgercommands": frozenset(
            {
                "configuration",
                "console",
                "falapi",
                "ledger",
                "metering.log",
                "policy.principals",
                "progress",
                "settings",
            }
        ),
        "cli": BELOW_APP
        | {"app", "configuration", "console", "emulator", "ledgercommands", "lifecycle", "listeners", "welcome"},
        "__main__": frozenset({"cli", "signals"}),
    }
)
"""For each row, what it may import of the gateway: rows, so `relay` allows all of it and `relay.upstream` the seam."""

MAY_USE: Final = MappingProxyType(
    {
        "policy.document": PYDANTIC,
        "policy.edition": PYDANTIC,
        "policy.grammar": PYDANTIC,
        "reload": frozenset({"structlog"}),
        "policyreader": PYDANTIC,
        "ruleset": PYDANTIC,
        "yamltree": frozenset({"yaml"}),
        "settings": PYDANTIC,
        "relay.curl": frozenset({"pycurl", "tornado"}),
        "relay.carrier": frozenset({"pycurl"}),
        "relay.handle": frozenset({"pycurl"}),
        "falapi": frozenset({"structlog"}),
        "falapi.transport": frozenset({"pycurl"}),
        "ledger.daily_totals": frozenset({"sqlalchemy"}),
        "ledger.database": frozenset({"sqlalchemy"}),
        "ledger.entry": frozenset({"orjson"}),
        "ledger.ledger": frozenset({"sqlalchemy"}),
        "ledger.migrations": frozenset({"alembic", "sqlalchemy"}),
        "ledger.process": frozenset({"structlog"}),
        "ledger.schema": frozenset({"sqlalchemy"}),
        "ledger.statements": frozenset({"orjson", "sqlalchemy"}),
        "ledger.steps": frozenset({"alembic", "sqlalchemy"}),
        "ledger.tables": frozenset({"sqlalchemy"}),
        "ledger.totals": frozenset({"sqlalchemy"}),
        "ledger.trail": frozenset({"orjson"}),
        "ledger.watermarks": frozenset({"sqlalchemy"}),
        "ledger.journal_places": frozenset({"sqlalchemy"}),
        "metering": frozenset({"orjson", "prometheus_client", "structlog"}),
        "ingress": frozenset({"httptools", "tornado"}),
        "ops": frozenset({"prometheus_client", "tornado"}),
        "emulator": frozenset({"tornado"}),
        "app": frozenset({"structlog", "tornado"}),
        "state.redis_books": frozenset({"redis"}),
        "state.redis_link": frozenset({"redis"}),
        "state.redis_store": frozenset({"structlog"}),
        "tracing.exporter": frozenset({"structlog"}),
        "budget_log": frozenset({"structlog"}),
        "treasury": frozenset({"structlog"}),
        "worker": frozenset({"structlog"}),
        "bookkeeper": frozenset({"structlog"}),
        "bookkeeping": frozenset({"structlog"}),
        "overseer": frozenset({"structlog"}),
        "quotes": frozenset({"orjson"}),
        "statement": frozenset({"orjson"}),
        "ledger_watch": frozenset({"structlog"}),
        "lifecycle": frozenset({"structlog"}),
    }
)
"""Packages from outside the standard library, by row; a module without a row uses none."""

READS_ENVIRONMENT: Final = frozenset({"cli", "settings"})
ENVIRONMENT_NAMES: Final = frozenset({"environ", "environb", "getenv", "getenvb"})
NAMELESS_ROOMS: Final = frozenset({"utils", "util", "helpers", "common", "base", "manager", "misc"})
LONGEST_FUNCTION: Final = 50
LONGEST_MODULE: Final = 300


@dataclass(frozen=True, slots=True)
class Module:
    """One module: its name without `gateway.` (the package itself is ``), and its source."""

    name: str
    source: str = field(repr=False)

    @property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.source)

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Yield its functions and methods, nested ones too."""
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def name_of(path: Path) -> str:
    """Return a module's name below `gateway`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").rstrip(".")


def read_modules() -> dict[str, Module]:
    """Read all modules of the package, by name."""
    found = [Module(name_of(path), path.read_text(encoding="utf-8")) for path in sorted(ROOT.rglob("*.py"))]
    return {module.name: module for module in found}


MODULES: Final = MappingProxyType(read_modules())


def row_of(name: str, rows: Iterable[str]) -> str | None:
    """Return the longest row that a module stands under; None where there is none."""
    return max((row for row in rows if stands_under(name, row)), key=len, default=None)


def stands_under(name: str, row: str) -> bool:
    """Say whether a module is the row itself or within it."""
    return name == row or name.startswith(f"{row}.")


def import_nodes(tree: ast.AST, *, for_types: bool = True) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield all import statements, wherever they stand; without those under `TYPE_CHECKING` where not `for_types`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif for_types or not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield from import_nodes(node, for_types=for_types)


def imported_names(module: Module, *, for_types: bool = True) -> Iterator[str]:
    """Yield the full name of each thing imported; `from a import b` is `a.b`."""
    for node in import_nodes(module.tree, for_types=for_types):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            assert node.level == 0, f"{module.name}:{node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(module: Module, known: Iterable[str], *, for_types: bool = True) -> set[str]:
    """Return the gateway's own modules that a module imports."""
    named = (name for name in imported_names(module, for_types=for_types) if stands_under(name, "gateway"))
    return {row_of(name, known) or name for name in (name.removeprefix("gateway.") for name in named)}


def strangers(module: Module) -> set[str]:
    """Return the packages from outside the standard library and the gateway that a module imports."""
    tops = {name.split(".")[0] for name in imported_names(module)}
    return tops - set(sys.stdlib_module_names) - {"gateway"}


def climbs(modules: dict[str, Module]) -> list[str]:
    """Return every import of the gateway's own that the table does not allow."""
    return [
        f"{module.name} imports {imported}"
        for module in modules.values()
        for imported in sorted(own_imports(module, modules))
        if not may_import(module.name, imported)
    ]


def may_import(name: str, imported: str) -> bool:
    """Say whether the table allows one module another."""
    row = row_of(name, MAY_IMPORT)
    allowed = EVERYWHERE | (MAY_IMPORT[row] if row else frozenset())
    return any(stands_under(imported, entry) for entry in allowed)


def trespassers(modules: dict[str, Module]) -> list[str]:
    """Return every use of a package from outside that the table does not allow."""
    return [
        f"{module.name} uses {package}"
        for module in modules.values()
        for package in sorted(strangers(module) - MAY_USE.get(row_of(module.name, MAY_USE) or "", frozenset()))
    ]


def environment_readers(modules: dict[str, Module]) -> list[str]:
    """Return every place that reads the process's environment outside the modules that may."""
    return [
        f"{module.name}: {ast.unparse(node)}"
        for module in modules.values()
        if row_of(module.name, READS_ENVIRONMENT) is None
        for node in ast.walk(module.tree)
        if names_environment(node)
    ]


def names_environment(node: ast.AST) -> bool:
    """Say whether a node is `os.environ`, one of its kin, or an import of it."""
    if isinstance(node, ast.Attribute):
        return node.attr in ENVIRONMENT_NAMES and ast.unparse(node.value) == "os"
    return (
        isinstance(node, ast.ImportFrom)
        and node.module == "os"
        and any(alias.name in ENVIRONMENT_NAMES for alias in node.names)
    )


def cycle(modules: dict[str, Module]) -> list[str]:
    """Return the modules of one import cycle at run time; empty where there is none."""
    graph = {module.name: own_imports(module, modules, for_types=False) - {module.name} for module in modules.values()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as found:
        return list(found.args[1])
    return []


def sample(**sources: str) -> dict[str, Module]:
    """Return modules made up for a test of the rules; `__` in a name stands for a dot."""
    named = {name.replace("__", "."): source for name, source in sources.items()}
    return {name: Module(name, source) for name, source in named.items()}


def test_every_module_stands_in_the_table() -> None:
    """A module without a row has no floor; it must be given one."""
    assert [name for name in MODULES if name and row_of(name, MAY_IMPORT) is None] == []


def test_imports_go_down_only() -> None:
    """A module imports only what its row allows."""
    assert not (found := climbs(dict(MODULES))), "\n".join(found)


def test_foreign_packages_stay_in_their_rooms() -> None:
    """Each package from outside is known to the rooms that wrap it, and to no other."""
    assert not (found := trespassers(dict(MODULES))), "\n".join(found)


def test_the_environment_has_one_reader() -> None:
    """Only settings and the command line read the process's environment."""
    assert not (found := environment_readers(dict(MODULES))), "\n".join(found)


def test_there_is_no_cycle() -> None:
    """No module imports itself by way of others."""
    assert not (found := cycle(dict(MODULES))), "\n".join(found)


@pytest.mark.parametrize("module", MODULES.values(), ids=lambda module: module.name or "gateway")
def test_a_module_keeps_its_shape(module: Module) -> None:
    """A module says its job at its head, has a name that is a noun, and stays small, as do its functions."""
    assert not module.source.strip() or ast.get_docstring(module.tree), "no docstring at the head"
    assert module.name.rpartition(".")[2] not in NAMELESS_ROOMS
    lines = len(module.source.splitlines())
    assert lines <= LONGEST_MODULE
    lengths = {found.name: (found.end_lineno or 0) - found.lineno + 1 for found in module.functions()}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}
    assert [found.name for found in module.functions() if found.returns is None] == [], "no return type"


@pytest.mark.parametrize(
    ("modules", "seen"),
    [
        (sample(protocol__fields="import gateway.policy.glob"), "protocol.fields imports policy.glob"),
        (sample(exchange="from gateway.relay.curl import Curl"), "exchange imports relay.curl.Curl"),
        (sample(policy__x="def f():\n    from gateway.relay import upstream"), "policy.x imports relay.upstream"),
        (
            sample(ops__x="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from gateway.relay import curl"),
            "ops.x imports relay.curl",
        ),
    ],
)
def test_an_import_that_climbs_is_seen(modules: dict[str, Module], seen: str) -> None:
    """The rule sees an import at the head, inside a function, and for type checking only."""
    assert climbs(modules) == [seen]


def test_a_foreign_package_out_of_place_is_seen() -> None:
    """The rule sees a package under a name of its own or from a submodule."""
    assert trespassers(sample(exchange="import pycurl as p\nfrom tornado.ioloop import IOLoop")) == [
        "exchange uses pycurl",
        "exchange uses tornado",
    ]


def test_a_read_of_the_environment_is_seen() -> None:
    """The rule sees `os.environ`, `os.getenv` and imports of them."""
    source = "import os\nfrom os import environ\nA = os.environ['A']\nB = os.getenv('B')"
    assert len(environment_readers(sample(app=source, settings=source))) == 3


def test_a_cycle_is_seen() -> None:
    """The rule sees two modules that import each other, one of them inside a function."""
    modules = sample(app="import gateway.ops", ops="def f():\n    from gateway.app import x")
    assert set(cycle(modules)) == {"app", "ops"}
