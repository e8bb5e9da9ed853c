"""A disk of a gateway's own: full for its files, and with room again."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from tests.chaos.disk import Disk

if TYPE_CHECKING:
    from pathlib import Path


def test_a_full_disk_takes_no_byte(tmp_path: Path) -> None:
    """A write to it fails as the kernel says, and succeeds once the room is given back."""
    with Disk(tmp_path / "disk") as disk:
        if not disk.is_own:
            pytest.skip("no file system can be mounted here")
        file = disk.folder / "journal"
        disk.fill()
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            file.write_bytes(b"x" * 8192)
        disk.free()
        assert file.write_bytes(b"x" * 8192) == 8192
    assert not list((tmp_path / "disk").iterdir())
