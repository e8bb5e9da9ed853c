"""Who may import whom, and how big a thing may grow: the floors of the house, read out of the source with `ast`.

The decision it carries: the tables below are the architecture. Every module has a row (the longest name that fits),
every import counts, also one inside a function or for type checking only. A new arrow is a new entry here, in a
change that says why.
"""

from __future__ import annotations

import ast
import re
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
EVERYWHERE: Final = frozenset({"version"})
MAY_IMPORT: Final = MappingProxyType(
    {
        "version": frozenset(),
        "units": frozenset(),
        "platform": frozenset({"platform"}),
        "http": frozenset({"http"}),
        "fal": frozenset({"fal.calls", "fal.tags", "http"}),
        "fal.api": frozenset({"fal.api", "ledger.entry", "platform"}),
        "ledger": frozenset({"ledger", "platform.progress", "platform.redaction", "platform.signals"}),
        "policy": frozenset({"fal.calls", "http", "policy", "units"}),
        "ingress": frozenset({"http", "ingress", "platform.poller"}),
        "upstream.interface": frozenset(),
        "upstream": frozenset({"platform.poller", "upstream"}),
        "telemetry": frozenset({"fal.units", "http", "ledger.entry", "platform", "telemetry"}),
        "state": frozenset({"platform", "policy", "state"}),
        "state.memory": frozenset({"platform", "policy", "state.interface", "state.memory"}),
        "config": frozenset(
            {
                "config",
                "fal.calls",
                "http",
                "ledger.address",
                "platform.published",
                "platform.redaction",
                "policy",
                "state.redis.address",
                "telemetry.tracing.settings",
            }
        ),
        "limits": frozenset({"http", "limits", "policy", "state.interface", "state.memory.worker_budgets"}),
        "money": frozenset(
            {"config.ruleset", "fal", "http", "ledger", "money", "platform", "policy", "state", "telemetry", "units"}
        ),
        "money.reconcile": frozenset({"fal.api", "ledger", "money.reconcile", "platform", "units"}),
        "proxy": frozenset(
            {
                "config.ruleset",
                "fal",
                "http",
                "limits",
                "money",
                "platform.memory_pressure",
                "policy",
                "proxy",
                "telemetry",
                "upstream.interface",
            }
        ),
        "processes": frozenset(
            {
                "config",
                "fal",
                "http",
                "ingress",
                "ledger",
                "limits",
                "money",
                "platform",
                "policy",
                "processes",
                "proxy",
                "state",
                "telemetry",
                "units",
                "upstream",
            }
        ),
        "emulator": frozenset({"emulator"}),
        "cli": frozenset(
            {
                "cli",
                "config",
                "emulator",
                "fal.api.client",
                "ledger",
                "money.reconcile",
                "platform",
                "policy.credential",
                "processes",
                "telemetry.log",
            }
        ),
        "__main__": frozenset({"cli", "platform.signals"}),
    }
)
"""For each row, what it may import of the gateway: rows, so `state` allows all of it and `state.memory` one home."""

MAY_USE: Final = MappingProxyType(
    {
        "config": frozenset({"pydantic", "pydantic_core"}),
        "config.reload": frozenset({"structlog"}),
        "config.yaml_tree": frozenset({"yaml"}),
        "emulator": frozenset({"tornado"}),
        "fal.api": frozenset({"structlog"}),
        "ingress.reader": frozenset({"httptools"}),
        "ingress.server": frozenset({"tornado"}),
        "ledger": frozenset({"sqlalchemy"}),
        "ledger.entry": frozenset({"orjson"}),
        "ledger.journal_reader": frozenset({"orjson"}),
        "ledger.migrate": frozenset({"alembic", "sqlalchemy"}),
        "ledger.migrations": frozenset({"alembic", "sqlalchemy"}),
        "ledger.statements": frozenset({"orjson", "sqlalchemy"}),
        "ledger.writer": frozenset({"structlog"}),
        "money": frozenset({"structlog"}),
        "money.fal_prices": frozenset({"orjson"}),
        "money.usage_page": frozenset({"orjson"}),
        "platform.http_client": frozenset({"pycurl"}),
        "processes": frozenset({"structlog"}),
        "processes.composition": frozenset({"structlog", "tornado"}),
        "processes.ops": frozenset({"tornado"}),
        "state.redis.admin": frozenset({"redis"}),
        "state.redis.connection": frozenset({"redis"}),
        "state.redis.store": frozenset({"structlog"}),
        "telemetry.log": frozenset({"orjson", "structlog"}),
        "telemetry.metrics": frozenset({"orjson", "structlog"}),
        "telemetry.metrics.exposition": frozenset({"prometheus_client"}),
        "telemetry.tracing.exporter": frozenset({"structlog"}),
        "upstream.carrier": frozenset({"pycurl"}),
        "upstream.curl": frozenset({"pycurl", "tornado"}),
        "upstream.handle": frozenset({"pycurl"}),
    }
)
"""Packages from outside the standard library, by row; a module without a row uses none."""

ROOT_FILES: Final = frozenset({"__main__", "units", "version"})
READS_ENVIRONMENT: Final = frozenset({"cli", "config.settings"})
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


def is_room(name: str) -> bool:
    """Say whether a name is a folder's."""
    return (ROOT / name).is_dir()


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


def test_only_few_files_are_in_the_root() -> None:
    """Everything else is in the room where a stranger would look for it."""
    assert {name for name in MODULES if name and "." not in name and not is_room(name)} == ROOT_FILES


def test_rooms_are_in_no_circle() -> None:
    """The room of a module is its first folder: none imports itself by way of others, also not for types."""
    graph: dict[str, set[str]] = {}
    for module in MODULES.values():
        imported = {name.partition(".")[0] for name in own_imports(module, MODULES)}
        graph.setdefault(module.name.partition(".")[0], set()).update(imported)
    TopologicalSorter({room: others - {room} for room, others in graph.items()}).prepare()


def test_imports_go_down_only() -> None:
    """A module imports only what its row allows."""
    assert not (found := climbs(dict(MODULES))), "\n".join(found)


def test_the_page_of_the_architecture_names_what_is_there() -> None:
    """Each module that docs/architecture.md names exists, by its path below `gateway` or beside the one before it."""
    page = (ROOT.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    folder, missing = ROOT, []
    for path in re.findall(r"`((?:\w+/)*\w+\.py)`", page):
        if path.startswith("tests/"):
            found = ROOT.parent / path
        else:
            found = ROOT / path if "/" in path else folder / path
            folder = found.parent
        missing += [] if found.is_file() else [path]
    assert missing == []
    rooms = {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()}
    assert rooms <= set(re.findall(r"`(\w+)/`", page))


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
        (sample(http__fields="import gateway.policy.glob"), "http.fields imports policy.glob"),
        (
            sample(proxy__exchange="from gateway.upstream.curl import Curl"),
            "proxy.exchange imports upstream.curl.Curl",
        ),
        (
            sample(policy__x="def f():\n    from gateway.upstream import interface"),
            "policy.x imports upstream.interface",
        ),
        (
            sample(cli__x="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from gateway.upstream import curl"),
            "cli.x imports upstream.curl",
        ),
        (sample(state__memory__x="import gateway.state.redis.store"), "state.memory.x imports state.redis.store"),
    ],
)
def test_an_import_that_climbs_is_seen(modules: dict[str, Module], seen: str) -> None:
    """The rule sees an import at the head, inside a function, and for type checking only."""
    assert climbs(modules) == [seen]


def test_a_foreign_package_out_of_place_is_seen() -> None:
    """The rule sees a package under a name of its own or from a submodule."""
    assert trespassers(sample(proxy__exchange="import pycurl as p\nfrom tornado.ioloop import IOLoop")) == [
        "proxy.exchange uses pycurl",
        "proxy.exchange uses tornado",
    ]


def test_a_read_of_the_environment_is_seen() -> None:
    """The rule sees `os.environ`, `os.getenv` and imports of them."""
    source = "import os\nfrom os import environ\nA = os.environ['A']\nB = os.getenv('B')"
    assert len(environment_readers(sample(processes__x=source, config__settings=source))) == 3


def test_a_cycle_is_seen() -> None:
    """The rule sees two modules that import each other, one of them inside a function."""
    modules = sample(a="import gateway.b", b="def f():\n    from gateway.a import x")
    assert set(cycle(modules)) == {"a", "b"}
