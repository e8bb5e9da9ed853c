"""The dashboards compile against Grafana's own types, and a misspelt field does not."""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.dashboards.boards import BOARDS

if TYPE_CHECKING:
    from collections.abc import Callable

TYPES: Final = Path(__file__).parent / "types"
COMPILER: Final = "node_modules/.bin/tsc"
IMPORT: Final = 'import type { Strict } from "./dashboard.js";\n'
SECONDS: Final = 100.0
PLANTED: Final[dict[str, Callable[[dict[str, Any]], object]]] = {
    "graphTooltips": lambda board: board.update(graphTooltips=1),
    "gridPoss": lambda board: board["panels"][1].update(gridPoss={}),
    "decimal": lambda board: board["panels"][1]["fieldConfig"]["defaults"].update(decimal=2),
    "colourMode": lambda board: board["panels"][1]["options"].update(colourMode="value"),
    "rainbow": lambda board: board["panels"][1]["options"].update(colorMode="rainbow"),
    "lineWidths": lambda board: the(board, "timeseries")["fieldConfig"]["defaults"]["custom"].update(lineWidths=1),
    "exprs": lambda board: board["panels"][1]["targets"][0].update(exprs="up"),
    "includeAlls": lambda board: board["templating"]["list"][1].update(includeAlls=True),
}
"""What a wrong dashboard says, and how it comes to be: fields that are misspelt at every depth, and a wrong value."""


def the(board: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return the first panel of a kind."""
    found: dict[str, Any] = next(panel for panel in board["panels"] if panel["type"] == kind)
    return found


def compiled(folder: Path, boards: dict[str, dict[str, Any]]) -> str:
    """Compile dashboards, each as a module of its own; return what the compiler says."""
    for name in ("node_modules", "dashboard.ts", "tsconfig.json", "package.json"):
        (folder / name).symlink_to(TYPES / name)
    for name, content in boards.items():
        module = (
            f'import type {{ Strict }} from "./dashboard.js";\nexport const board: Strict = {json.dumps(content)};\n'
        )
        (folder / f"{name}.ts").write_text(module, encoding="utf-8")
    done = subprocess.run(
        [COMPILER, "--project", "tsconfig.json", "--preserveSymlinks"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return what the compiler says about the dashboards, and about copies with something wrong in each."""
    boards = {board.name: board.content for board in BOARDS}
    for name, plant in PLANTED.items():
        wrong = copy.deepcopy(boards["upstream"])
        plant(wrong)
        boards[f"wrong_{name}"] = wrong
    return compiled(tmp_path_factory.mktemp("types"), boards)


@pytest.mark.parametrize("name", [board.name for board in BOARDS])
def test_a_dashboard_has_grafanas_types(told: str, name: str) -> None:
    """No field is misspelt, none is missing, and every value is one that Grafana knows."""
    assert [line for line in told.splitlines() if line.startswith(f"{name}.ts")] == []


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_wrong_is_found(told: str, name: str) -> None:
    """The types find a misspelt field, and a value that is none of a field's."""
    assert any(line.startswith(f"wrong_{name}.ts") and name in line for line in told.splitlines()), told
