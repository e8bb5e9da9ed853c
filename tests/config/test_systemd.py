"""The unit file for systemd: systemd takes it, and it leaves a drain the time that the settings give it."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from gateway.config.settings import Settings

UNIT: Final = Path(__file__).parents[2] / "deploy" / "systemd" / "fal-gateway.service"
INSTALLED: Final = "/opt/fal-gateway/bin/fal-gateway"


def service() -> configparser.SectionProxy:
    """Return the section of the service; of a name that is given twice, the last value."""
    unit = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(UNIT.read_text(encoding="utf-8"))
    return unit["Service"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """It knows every name and can read every value; the command is replaced by one that is installed here."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text(encoding="utf-8").replace(INSTALLED, sys.executable), encoding="utf-8")
    judged = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (judged.returncode, judged.stdout, judged.stderr) == (0, "", "")


def test_a_drain_has_its_time() -> None:
    """Stopping may take as long as a drain does, and a start that the settings refuse is not repeated."""
    fields = Settings.model_fields
    delay, drain = (int(fields[name].default) for name in ("shutdown_delay", "drain_timeout"))
    assert int(service()["TimeoutStopSec"]) >= delay + drain + 20
    assert service()["RestartPreventExitStatus"] == "78"
    assert service()["ExecStart"] == f"{INSTALLED} serve"
