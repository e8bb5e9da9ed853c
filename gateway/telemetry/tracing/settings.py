"""Where traces go and which ones, by OpenTelemetry's own names in the environment.

Decided here: what is set for a whole platform holds here too, so without an endpoint nothing of it is judged. With one,
what this release cannot do (another protocol, another sampler) is an error at start and never a silent nothing.
Durations are milliseconds, as the specification says ("Environment Variable Specification", "Duration").
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from gateway.platform.redaction import WHITE_SPACE, has_white_space
from gateway.telemetry.tracing.sampler import SAMPLERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
PROTOCOL: Final = "http/protobuf"
DEFAULT_SERVICE: Final = "fal-gateway"

NAMES: Final = MappingProxyType(
    {
        ENDPOINT: ("", "base URL of an OTLP receiver; `/v1/traces` is added to its path. Left out: no tracing"),
        TRACES_ENDPOINT: ("", "whole URL for traces, in place of the base URL"),
        "OTEL_EXPORTER_OTLP_HEADERS": ("", "`name=value,…`: fields of each export, values percent-encoded"),
        "OTEL_EXPORTER_OTLP_TIMEOUT": ("10000", "milliseconds for one export, from connecting to the whole answer"),
        "OTEL_EXPORTER_OTLP_PROTOCOL": (PROTOCOL, "nothing else"),
        "OTEL_EXPORTER_OTLP_COMPRESSION": ("none", "`gzip` or `none`"),
        "OTEL_EXPORTER_OTLP_CERTIFICATE": ("", "CA bundle for the receiver's TLS; without one, the system's"),
        "OTEL_SERVICE_NAME": (DEFAULT_SERVICE, "`service.name` of the resource"),
        "OTEL_RESOURCE_ATTRIBUTES": ("", "`name=value,…`: further attributes of it, values percent-encoded"),
        "OTEL_TRACES_SAMPLER": (SAMPLERS[0], f"one of {', '.join(f'`{name}`' for name in SAMPLERS)}"),
        "OTEL_TRACES_SAMPLER_ARG": ("1", "share of traces, 0 to 1, for the samplers by ratio"),
        "OTEL_BSP_SCHEDULE_DELAY": ("5000", "milliseconds until what there is of a batch is sent"),
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": ("512", "requests in one export, at most as many as may wait"),
        "OTEL_BSP_MAX_QUEUE_SIZE": ("2048", "requests that may wait for export in a worker; what is more is dropped"),
        "OTEL_TRACES_EXPORTER": ("otlp", "`none` switches tracing off"),
        "OTEL_SDK_DISABLED": ("false", "`true` switches tracing off"),
    }
)
"""Every name that is read, with its default and meaning. Those with `_OTLP_` exist with `_OTLP_TRACES_` too, and then
hold in their place (but for the endpoint, which has a meaning of its own)."""

_TRACES_PATH: Final = "v1/traces"
_LONGEST_MS: Final = 3_600_000
_MOST_QUEUED: Final = 1_000_000
_FIELD_NAME: Final = re.compile(r"[!#$%&'*+\-.^`|~0-9A-Za-z_]+")
_PRINTABLE: Final = re.compile(r"[\x21-\x7e]+")
_FIELD_VALUE: Final = re.compile(r"[\x20-\x7e]*")
_MILLISECONDS: Final = 1_000

Errors = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """How traces are made and sent. `endpoint` is a whole URL, `fields` whole field lines that may hold a secret."""

    endpoint: str
    fields: tuple[str, ...] = field(repr=False)
    timeout_seconds: float
    is_gzipped: bool
    ca_file: str | None
    resource: tuple[tuple[str, str], ...]
    sampler: str
    ratio: float
    delay_seconds: float
    batch: int
    queue: int


class _Reader:
    """The environment, and what was found wrong with it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.errors: Errors = []

    def text(self, name: str) -> tuple[str, str]:
        """Return the name that holds, the one for traces before the general one, and what it is set to."""
        special = name.replace("_OTLP_", "_OTLP_TRACES_")
        chosen = special if self._environ.get(special) else name
        return chosen, self._environ.get(chosen) or NAMES[name][0]

    def number(self, name: str, *, least: float, most: float) -> float:
        """Return a number within bounds."""
        chosen, text = self.text(name)
        try:
            value = float(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            self.errors.append((chosen, f"should be a number from {least:g} to {most:g}"))
            return least
        return value

    def whole(self, name: str, *, most: int) -> int:
        """Return a whole number from 1."""
        value = self.number(name, least=1, most=most)
        if value != int(value):
            self.errors.append((self.text(name)[0], "should be a whole number"))
        return int(value)

    def choice(self, name: str, known: tuple[str, ...]) -> str:
        """Return one of the known words."""
        chosen, text = self.text(name)
        if text.strip() not in known:
            self.errors.append((chosen, f"should be {' or '.join(known)}: nothing else is supported"))
        return text.strip()

    def pairs(self, name: str, is_fit: Callable[[str, str], bool]) -> list[tuple[str, str]]:
        """Return `name=value,…` decoded; the message quotes none of it, since these may be credentials."""
        chosen, text = self.text(name)
        pairs = []
        for number, part in enumerate(filter(None, (part.strip() for part in text.split(","))), 1):
            key, equals, value = part.partition("=")
            pair = unquote(key.strip()), unquote(value.strip(), errors="replace")
            if not equals or not is_fit(*pair):
                self.errors.append((chosen, f"entry {number} should read name=value, the value percent-encoded"))
            pairs.append(pair)
        return pairs


def read_tracing(environ: Mapping[str, str]) -> tuple[TraceSettings | None, Errors]:
    """Return the settings of tracing, None where it is off, and everything that is wrong with them by name."""
    endpoint_name = TRACES_ENDPOINT if environ.get(TRACES_ENDPOINT) else ENDPOINT
    if not environ.get(endpoint_name) or _is_switched_off(environ):
        return None, []
    reader = _Reader(environ)
    reader.choice("OTEL_TRACES_EXPORTER", ("otlp",))
    reader.choice("OTEL_EXPORTER_OTLP_PROTOCOL", (PROTOCOL,))
    endpoint = _endpoint(endpoint_name, environ[endpoint_name], reader.errors)
    queue = reader.whole("OTEL_BSP_MAX_QUEUE_SIZE", most=_MOST_QUEUED)
    batch = reader.whole("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", most=_MOST_QUEUED)
    settings = TraceSettings(
        endpoint=endpoint,
        fields=tuple(f"{name}: {value}" for name, value in reader.pairs("OTEL_EXPORTER_OTLP_HEADERS", _is_field)),
        timeout_seconds=reader.number("OTEL_EXPORTER_OTLP_TIMEOUT", least=1, most=_LONGEST_MS) / _MILLISECONDS,
        is_gzipped=reader.choice("OTEL_EXPORTER_OTLP_COMPRESSION", ("none", "gzip")) == "gzip",
        ca_file=_ca_file(*reader.text("OTEL_EXPORTER_OTLP_CERTIFICATE"), reader.errors),
        resource=_resource(reader),
        sampler=reader.choice("OTEL_TRACES_SAMPLER", SAMPLERS),
        ratio=reader.number("OTEL_TRACES_SAMPLER_ARG", least=0, most=1),
        delay_seconds=reader.number("OTEL_BSP_SCHEDULE_DELAY", least=1, most=_LONGEST_MS) / _MILLISECONDS,
        batch=min(batch, queue),  # a queue that fills before a batch is whole would wake nobody, and drop
        queue=queue,
    )
    return settings, reader.errors


def _is_switched_off(environ: Mapping[str, str]) -> bool:
    disabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return disabled or environ.get("OTEL_TRACES_EXPORTER", "").strip() == "none"


def _endpoint(name: str, text: str, errors: Errors) -> str:
    try:
        parts = urlsplit(text)
        is_fit = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port out of range, a bracket that is not closed
        is_fit = False
        parts = urlsplit("")
    if has_white_space(text):
        errors.append((name, WHITE_SPACE))
    elif not is_fit or "@" in text or parts.fragment or not _PRINTABLE.fullmatch(text):
        errors.append((name, "should read http[s]://host[:port][/path]; credentials go into the headers"))
    if name == TRACES_ENDPOINT:
        return parts._replace(path=parts.path or "/").geturl()
    return parts._replace(path=f"{parts.path.rstrip('/')}/{_TRACES_PATH}").geturl()


def _ca_file(name: str, path: str, errors: Errors) -> str | None:
    """Load the bundle once, so that a start fails and not every export."""
    if not path:
        return None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        errors.append((name, "holds no certificate in PEM form"))
    except OSError as fault:
        errors.append((name, f"cannot be read: {fault.strerror}"))
    return path


def _is_field(name: str, value: str) -> bool:
    return bool(_FIELD_NAME.fullmatch(name) and _FIELD_VALUE.fullmatch(value))


def _is_attribute(name: str, value: str) -> bool:
    return bool(name) and "\N{REPLACEMENT CHARACTER}" not in value


def _resource(reader: _Reader) -> tuple[tuple[str, str], ...]:
    """Return the resource's attributes; OTEL_SERVICE_NAME goes before a `service.name` among the others."""
    _, service = reader.text("OTEL_SERVICE_NAME")
    named = {"service.name": service, **dict(reader.pairs("OTEL_RESOURCE_ATTRIBUTES", _is_attribute))}
    if service != DEFAULT_SERVICE:
        named["service.name"] = service
    return tuple(named.items())
