"""Memory pressure: what the control group's files say, and what is refused at which share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.platform.memory_pressure import MemoryPressure, own_group

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 1_000_000


def group(folder: Path, *, used: int, inactive: int = 0, limit: str = str(LIMIT)) -> MemoryPressure:
    """Return the pressure, looked at, of a control group (v2) whose files say so."""
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {inactive}\nactive_file 7\n")
    pressure = MemoryPressure(folder)
    pressure.look()
    return pressure


@pytest.mark.parametrize(
    ("used", "large", "refused"),
    [(850_000, True, False), (850_001, True, True), (950_000, False, False), (950_001, False, True)],
)
def test_large_uploads_are_refused_first_and_then_everything(
    tmp_path: Path, used: int, *, large: bool, refused: bool
) -> None:
    """Above 85 % of the limit large uploads are refused, above 95 % everything (docs/image.md, Memory)."""
    assert group(tmp_path, used=used).refuses(large=large) is refused


def test_page_cache_that_can_be_dropped_is_no_pressure(tmp_path: Path) -> None:
    """What counts is the working set, as in Kubernetes: a full page cache refuses nobody."""
    assert group(tmp_path, used=990_000, inactive=500_000).share == pytest.approx(0.49)


@pytest.mark.parametrize("limit", ["max", "9223372036854771712", "0", ""])
def test_without_a_limit_there_is_no_pressure(tmp_path: Path, limit: str) -> None:
    """A group without a bound refuses nobody, however much it uses."""
    assert group(tmp_path, used=10**12, limit=limit).refuses(large=True) is False


def test_the_first_version_of_control_groups_is_read_too(tmp_path: Path) -> None:
    """Older kernels name the same figures otherwise."""
    (tmp_path / "memory.usage_in_bytes").write_text("960000")
    (tmp_path / "memory.limit_in_bytes").write_text(str(LIMIT))
    (tmp_path / "memory.stat").write_text("total_inactive_file 0")
    pressure = MemoryPressure(tmp_path)
    pressure.look()
    assert pressure.refuses(large=False) is True


def test_files_that_vanish_are_no_pressure(tmp_path: Path) -> None:
    """A group that cannot be read any more does not close the gateway."""
    pressure = group(tmp_path, used=990_000)
    (tmp_path / "memory.current").unlink()
    pressure.look()
    assert pressure.share == 0.0


@pytest.mark.parametrize(
    ("membership", "place", "file"),
    [
        ("0::/\n", "", "memory.max"),
        ("0::/system.slice/fal.service\n", "system.slice/fal.service", "memory.max"),
        ("4:memory:/docker/0ef9\n0::/docker/0ef9\n", "memory", "memory.limit_in_bytes"),
        ("4:memory:/docker/0ef9\n0::/\n", "memory/docker/0ef9", "memory.limit_in_bytes"),
    ],
    ids=["container v2", "service v2", "container v1", "host v1"],
)
def test_its_own_group_is_found_where_the_kernel_mounts_it(
    tmp_path: Path, membership: str, place: str, file: str
) -> None:
    """In a container of the first version the group is mounted at the top, and the path told is the host's."""
    root, told = tmp_path / "cgroup", tmp_path / "membership"
    told.write_text(membership)
    (root / place).mkdir(parents=True)
    (root / place / file).write_text(str(LIMIT))
    assert own_group(root, told) == root / place
