"""Where the shared state lives: a Redis or Valkey URL, read once into a frozen address.

The decision it carries: what is wrong is found at start and told in words that quote nothing of the URL. A password
with an unescaped `/`, `?` or `#` ends up as any of its parts, so that even the name of a query field may be a secret.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from gateway.platform.redaction import WHITE_SPACE, has_white_space

if TYPE_CHECKING:
    from urllib.parse import SplitResult

SCHEMES: Final = ("redis", "rediss", "unix", "valkey", "valkeys")
_TLS: Final = frozenset({"rediss", "valkeys"})
_PORT: Final = 6379
_HIGHEST_PORT: Final = 65_535
_ESCAPE: Final = "; in a user's name or password write / ? # @ : and % as %2F %3F %23 %40 %3A and %25"
_QUERY: Final = frozenset({"db", "ssl_ca_certs"})


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """One server. `path` is that of a Unix socket, and then stands for host and port.

    `ca_file` (PEM) is believed besides the system's authorities where `tls`.
    """

    host: str = "localhost"
    port: int = _PORT
    path: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca_file: str | None = None

    @property
    def shown(self) -> str:
        """The address as a log may show it: without user and password."""
        if self.path:
            return f"unix://{self.path}?db={self.db}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' * self.tls}://{host}:{self.port}/{self.db}"


def parse_redis_url(url: str) -> RedisAddress:
    """Return the address of a URL; ValueError says what is wrong with it, and quotes nothing of it.

    `redis://[[user]:password@]host[:port][/db]`, `rediss://` (TLS; `?ssl_ca_certs=FILE` names a CA bundle),
    `unix://[[user]:password@]/path[?db=N]`; `valkey` and `valkeys` mean the same as `redis` and `rediss`.
    """
    if has_white_space(url):
        raise ValueError(WHITE_SPACE)
    scheme, mark, _ = url.partition("://")
    if not mark or scheme not in SCHEMES:
        raise ValueError(f"should begin with {', '.join(f'{known}://' for known in SCHEMES)} and name a place")
    parts = _split(url)
    port = _port(parts)
    query = _query(parts)
    if parts.fragment or "#" in url:
        raise ValueError(f"has a fragment (#…), which means nothing here{_ESCAPE}")
    tls = scheme in _TLS
    unix = scheme == "unix"
    if unix and (parts.hostname or not parts.path.startswith("/")):
        raise ValueError("a Unix socket's URL should read unix:///path/of/the/socket")
    if not unix and not parts.hostname:
        raise ValueError("should begin with redis://, rediss://, … and name a place")
    return RedisAddress(
        host=unquote(parts.hostname or "localhost"),
        port=port,
        path=unquote(parts.path) if unix else "",
        db=_database(query.get("db"), "" if unix else parts.path),
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls=tls,
        ca_file=_ca_file(query.get("ssl_ca_certs"), tls=tls),
    )


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        raise ValueError(f"is not a URL{_ESCAPE}") from None  # the cause quotes it


def _port(parts: SplitResult) -> int:
    try:
        port = parts.port
    except ValueError:
        raise ValueError(f"the port should be 1 to {_HIGHEST_PORT}{_ESCAPE}") from None  # the cause quotes it
    if port == 0:
        raise ValueError(f"the port should be 1 to {_HIGHEST_PORT}")
    return _PORT if port is None else port


def _query(parts: SplitResult) -> MappingProxyType[str, str]:
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    names = [name for name, _ in pairs]
    if not _QUERY.issuperset(names) or len(set(names)) != len(names) or (parts.query and not pairs):
        raise ValueError(f"after ? only db and ssl_ca_certs may stand, each once{_ESCAPE}")
    return MappingProxyType(dict(pairs))


def _database(in_query: str | None, path: str) -> int:
    in_path = path.strip("/")
    if in_query is not None and in_path:
        raise ValueError("names its database twice: in the path and after ?")
    number = in_path if in_query is None else in_query
    if number and not (number.isascii() and number.isdecimal()):
        raise ValueError(f"the database should be a number{_ESCAPE}")
    return int(number or 0)


def _ca_file(path: str | None, *, tls: bool) -> str | None:
    """Load the bundle once, so that a start fails and not every connection."""
    if path is None:
        return None
    if not tls:
        raise ValueError("ssl_ca_certs goes with rediss:// or valkeys:// only")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise ValueError("ssl_ca_certs: holds no certificate in PEM form") from None
    except OSError as fault:
        raise ValueError(f"ssl_ca_certs: cannot be read: {fault.strerror}") from None
    return path
