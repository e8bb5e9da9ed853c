"""`python -m tests.dashboards.preview`: plays the scene with more traffic, and saves a picture of each dashboard."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.clients.driver import BROWSER
from tests.dashboards.boards import BOARDS
from tests.dashboards.interpolation import ALL, Choice
from tests.dashboards.preview.sheet import WIDTH, page
from tests.dashboards.scene import Scene
from tests.dashboards.showing import show
from tests.harness.process import clean_environment

if TYPE_CHECKING:
    from tests.dashboards.boards import Board

PICTURES: Final = Path(__file__).parents[3] / "docs" / "dashboards"
BUSTLE_SECONDS: Final = 60
SECONDS: Final = 60.0


def picture(scene: Scene, board: Board, folder: Path) -> Path:
    """Save the picture of one dashboard, as it is when it is opened; return its file."""
    window = scene.window(until=scene.busy)
    choices: dict[str, Choice] = {**dict.fromkeys(board.queries, (ALL,)), "by": "team"}
    shown = {
        panel["title"]: [
            show(scene.prometheus, target, window, choices)
            for target in board.targets
            if target.panel == panel["title"]
        ]
        for panel in board.asking
    }
    text, height = page(board, shown, window)
    source, target = folder / f"{board.name}.html", PICTURES / f"{board.name}.png"
    source.write_text(text, encoding="utf-8")
    photograph(source, target, height, folder)
    return target


def photograph(source: Path, target: Path, height: int, folder: Path) -> None:
    """Let a headless Chromium draw a page into a file."""
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={folder / 'browser'}",
        f"--window-size={WIDTH},{height}",
        f"--screenshot={target}",
        source.as_uri(),
    ]
    done = subprocess.run(command, env=clean_environment({}), capture_output=True, timeout=SECONDS, check=False)
    assert target.exists(), done.stderr


def main() -> None:
    """Save all pictures."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="falgw-preview-") as name,
        Scene(Path(name), bustle_seconds=BUSTLE_SECONDS) as scene,
    ):
        for board in BOARDS:
            sys.stdout.write(f"{picture(scene, board, Path(name))}\n")


if __name__ == "__main__":
    main()
