"""A certificate for an origin on loopback, signed by itself: whoever is to trust it takes the file as its CA bundle."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

from tests.harness.ports import LOOPBACK

if TYPE_CHECKING:
    from pathlib import Path

_REQUEST: Final = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=origin.test"


def make_certificate(folder: Path) -> Path:
    """Return a file with a key and a certificate for 127.0.0.1."""
    file, made = folder / "origin.pem", folder / "certificate.pem"
    names = ["-addext", f"subjectAltName=IP:{LOOPBACK}", "-keyout", str(file), "-out", str(made)]
    subprocess.run(["openssl", *_REQUEST.split(), *names], check=True, capture_output=True)
    file.write_text(file.read_text() + made.read_text())
    return file
