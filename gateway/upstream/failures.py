"""What a libcurl result means to the exchange: whose fault, and whether the origin may have seen the request.

The numbers are libcurl's stable interface (libcurl-errors(3)); they are the only reliable detail, its texts name hosts
and addresses that are nobody's business.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from gateway.upstream.interface import OriginFailure

if TYPE_CHECKING:
    from gateway.upstream.transfer import Transfer

_COULDNT_RESOLVE: Final = (5, 6)
_TIMED_OUT: Final = 28
_TLS: Final = (35, 53, 54, 58, 59, 60, 64, 66, 77, 80, 82, 83, 90, 91, 98)

_BEFORE_SEND: Final = MappingProxyType(
    dict.fromkeys(_COULDNT_RESOLVE, "dns_error")
    | dict.fromkeys(_TLS, "tls_error")
    | {_TIMED_OUT: "connection_timeout", 7: "connection_refused"}
)
_DETAILS: Final = MappingProxyType(
    {
        "dns_error": "The origin's name could not be resolved; nothing was sent.",
        "connection_refused": "The origin could not be reached; nothing was sent.",
        "connection_timeout": "The origin did not accept a connection in time; nothing was sent.",
        "tls_error": "No trusted TLS connection to the origin could be made; nothing was sent.",
        "origin_failed": "The origin broke off after the request had been sent; it may have been executed.",
        "gateway_error": "The gateway failed over the answer; the request may have been executed.",
        "origin_timeout": "The origin did not answer in time; the request may have been executed.",
    }
)


def failure(error_type: str, *, sent: bool) -> OriginFailure:
    """Return the failure of one of the types above."""
    return OriginFailure(error_type, _DETAILS[error_type], sent)


def failure_of(transfer: Transfer, code: int) -> OriginFailure:
    """Return what a transfer's end with a libcurl error code (CURLE_*) means."""
    if transfer.attempted:
        return failure("origin_failed", sent=True)
    return failure(_BEFORE_SEND.get(code, "connection_refused"), sent=False)
