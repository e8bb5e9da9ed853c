"""What holds for every transfer of a relay, the bundle of authorities too that it trusts where none is set."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.upstream.timeouts import OriginTimeouts


@dataclass(frozen=True, slots=True)
class CurlOptions:
    """Bounds by phase; the CA bundle (`ca_file` None: libcurl's own default); how many transfers there may be."""

    phases: OriginTimeouts
    ca_file: str | None
    max_transfers: int


_SYSTEM_CA_FILES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)


def system_ca_file() -> str | None:
    """Return the system's CA bundle: libcurl comes with an OpenSSL of its own, which looks where nothing is."""
    known = (ssl.get_default_verify_paths().cafile, *_SYSTEM_CA_FILES)
    return next((path for path in known if path and Path(path).is_file()), None)
