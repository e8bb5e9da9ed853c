"""The disk of one gateway's database and journals: small and its own, so that it can be filled.

The decision it carries: as root it is a file system in memory, and full is what the kernel says (ENOSPC). Others cannot
mount one: then the gateway's processes are kept from growing any file, their log too, which is told by `is_own`.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from pathlib import Path

SIZE_BYTES: Final = 64 << 20
PIECES_BYTES: Final = (1 << 20, 4096, 1)
FILLER: Final = "filler"


class Disk:
    """A folder, on a file system of its own where that can be had."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.is_own = os.geteuid() == 0 and _mount(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fill(self) -> None:
        """Take all the room that there is."""
        filler = os.open(self.folder / FILLER, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            for piece in PIECES_BYTES:
                _write_until_full(filler, bytes(piece))
        finally:
            os.close(filler)

    def free(self) -> None:
        """Give the room back; harmless when done twice."""
        (self.folder / FILLER).unlink(missing_ok=True)

    def close(self) -> None:
        """Take the file system away, with all that is on it; harmless when done twice."""
        if self.is_own:
            self.is_own = False
            subprocess.run(["umount", "--lazy", self.folder], check=False)


def _mount(folder: Path) -> bool:
    options = f"size={SIZE_BYTES},mode=700"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "falgw-chaos", folder], check=False)
    return done.returncode == 0


def _write_until_full(file: int, piece: bytes) -> None:
    try:
        while os.write(file, piece) == len(piece):
            pass
    except OSError:
        return  # full
