"""Where a ledger's database is: its URL, read once, by everyone who needs a part of it.

The decision: one parser, without a driver, so that settings, spool, `serve` and the commands mean the same file and
server. Percent-escapes are undone in every part. Errors quote nothing of the URL: a
password with a raw `@` ends up as any of its parts, so more than one `@` is an error and no guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, unquote

from gateway.platform.redaction import WHITE_SPACE, has_white_space

if TYPE_CHECKING:
    from collections.abc import Mapping

_FORMS: Final = "should read sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
_SQLITE: Final = re.compile(r"sqlite:///(?P<file>[^?]+)(?:\?(?P<query>.*))?")
_POSTGRESQL: Final = re.compile(
    r"postgresql://(?!$)(?:(?P<user>[^@:]*)(?::(?P<password>[^@]*))?@)?"
    r"(?P<host>\[[^/?\]]+\]|[^/:?,\[\]]*)(?::(?P<port>\d{1,5}))?(?:/(?P<database>[^?]*))?(?:\?(?P<query>.*))?"
)
_SECRET_FIELDS: Final = ("user", "password")


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """A SQLite `file`, or (None) a PostgreSQL server. `query`: options of the driver, each with its value or values.

    `secrets`: user and password, however they may be written.
    """

    file: Path | None = None
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    host: str | None = None
    port: int | None = None
    database: str | None = None
    query: Mapping[str, str | tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    secrets: frozenset[str] = field(default=frozenset(), repr=False)


def parse_database_url(url: str) -> DatabaseAddress:
    """Return the address of `sqlite:///FILE` or `postgresql://…`; ValueError says what is wrong, and quotes nothing."""
    if has_white_space(url):
        raise ValueError(WHITE_SPACE)
    if (found := _SQLITE.fullmatch(url)) is not None:
        return _file(found["file"], found["query"] or "")
    if url.startswith("postgresql://") and url.count("@") > 1:
        raise ValueError("has more than one @; write @ as %40 where it is part of a name or a password")
    if (found := _POSTGRESQL.fullmatch(url)) is not None:
        return _server(found)
    raise ValueError(_FORMS)


def _file(path: str, query: str) -> DatabaseAddress:
    file = unquote(path)
    if file == ":memory:":
        raise ValueError(f"{_FORMS}: a database in memory ends with its process")
    if not file.isprintable():
        raise ValueError("names a file with a control character in it")
    options = _options(query)
    if "uri" in options:
        raise ValueError("has the option uri, which would make another file of its path")
    return DatabaseAddress(file=Path(file), query=_single(options))


def _server(found: re.Match[str]) -> DatabaseAddress:
    options = _options(found["query"] or "")
    named = [value for name in _SECRET_FIELDS for value in (found[name], *options.get(name, ())) if value]
    return DatabaseAddress(
        username=_plain(found["user"]),
        password=_plain(found["password"]),
        host=_plain((found["host"] or "").strip("[]")),
        port=int(found["port"]) if found["port"] else None,
        database=_plain(found["database"]),
        query=_single(options),
        secrets=frozenset((*named, *map(unquote, named))),
    )


def _options(query: str) -> dict[str, tuple[str, ...]]:
    options: dict[str, tuple[str, ...]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        options[name] = (*options.get(name, ()), value)
    return options


def _single(options: Mapping[str, tuple[str, ...]]) -> Mapping[str, str | tuple[str, ...]]:
    """Return options as the driver takes them: several values only where several were given."""
    return MappingProxyType({name: values[0] if len(values) == 1 else values for name, values in options.items()})


def _plain(part: str | None) -> str | None:
    return unquote(part) if part else None
