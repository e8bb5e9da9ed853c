"""OpenTelemetry's own names in the environment: what they make, every error at once, and no secret in any."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest

from gateway.config.settings import SettingsError, load_settings
from gateway.telemetry.tracing.sampler import SAMPLERS, Sampler
from gateway.telemetry.tracing.settings import ENDPOINT, NAMES, TRACES_ENDPOINT, TraceSettings, read_tracing
from gateway.telemetry.tracing.spans import resource_of

ON: Final = {ENDPOINT: "http://collector:4318"}
DOCS: Final = Path(__file__).parents[2] / "docs" / "settings.md"
ODD_TRACE: Final = "0" * 16 + "8" + "0" * 15  # exactly at a half


def made(**environ: str) -> TraceSettings:
    """Return the settings of an environment that holds no error."""
    settings, errors = read_tracing({**ON, **environ})
    assert errors == []
    assert settings is not None
    return settings


def errors_of(**environ: str) -> dict[str, str]:
    """Return the errors of an environment by name, as a start would tell them."""
    with pytest.raises(SettingsError) as caught:
        load_settings({"FAL_KEY": "id:x", **ON, **environ})
    return dict(caught.value.errors)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {ENDPOINT: ""},
        {**ON, "OTEL_SDK_DISABLED": "TRUE"},
        {**ON, "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_TRACES_SAMPLER": "of my own"},
        {TRACES_ENDPOINT: "nonsense", "OTEL_SDK_DISABLED": "true"},
    ],
)
def test_tracing_is_off_unless_an_endpoint_is_set(environ: dict[str, str]) -> None:
    """Without an endpoint, or switched off by one of the standard ways, nothing is traced, and nothing is judged."""
    assert load_settings({"FAL_KEY": "id:x", **environ}).tracing is None


def test_the_defaults_are_those_of_the_specification() -> None:
    """With an endpoint alone: every trace that the caller does not decline, in batches, within 5 s."""
    assert load_settings({"FAL_KEY": "id:x", **ON}).tracing == TraceSettings(
        endpoint="http://collector:4318/v1/traces",
        fields=(),
        timeout_seconds=10,
        is_gzipped=False,
        ca_file=None,
        resource=(("service.name", "fal-gateway"),),
        sampler="parentbased_always_on",
        ratio=1,
        delay_seconds=5,
        batch=512,
        queue=2048,
    )


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({ENDPOINT: "https://otlp.example"}, "https://otlp.example/v1/traces"),
        ({ENDPOINT: "https://otlp.example/"}, "https://otlp.example/v1/traces"),
        ({ENDPOINT: "https://otlp.example/a/"}, "https://otlp.example/a/v1/traces"),
        ({ENDPOINT: "http://[::1]:4318"}, "http://[::1]:4318/v1/traces"),
        ({TRACES_ENDPOINT: "https://otlp.example"}, "https://otlp.example/"),
        ({TRACES_ENDPOINT: "https://otlp.example/own"}, "https://otlp.example/own"),
    ],
)
def test_the_path_is_added_to_the_base_url_alone(environ: dict[str, str], url: str) -> None:
    """The general endpoint is a base; the one for traces is the whole URL, and goes before it."""
    settings, errors = read_tracing({**ON, **environ})
    assert (settings.endpoint if settings else None, errors) == (url, [])


def test_names_for_traces_go_before_the_general_ones() -> None:
    """A platform's general exporter, and another for traces."""
    settings = made(
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
        OTEL_EXPORTER_OTLP_TRACES_TIMEOUT="2500",
        OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
        OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="http/protobuf",
        OTEL_EXPORTER_OTLP_HEADERS="a=1",
        OTEL_EXPORTER_OTLP_TRACES_HEADERS="authorization=Basic%20eDp5, b = 2 ,",
    )
    assert settings.timeout_seconds == 2.5
    assert settings.fields == ("authorization: Basic eDp5", "b: 2")


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=theirs"}, "theirs"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=theirs", "OTEL_SERVICE_NAME": "ours"}, "ours"),
    ],
)
def test_the_services_name_has_an_order(environ: dict[str, str], name: str) -> None:
    """OTEL_SERVICE_NAME goes before the resource's attributes, and these before the default."""
    assert dict(made(**environ).resource) == {"service.name": name}


WRONG: Final = (
    (ENDPOINT, "collector:4318"),
    (ENDPOINT, "ftp://collector"),
    (ENDPOINT, "http://"),
    (ENDPOINT, "http://a b"),
    (ENDPOINT, "http://u:canary@collector"),
    (ENDPOINT, "http://collector:99999"),
    (ENDPOINT, "http://collector#canary"),
    (ENDPOINT, "http://[::1"),
    (TRACES_ENDPOINT, "collector"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "canary"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "a b=canary"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "a=canary%0d%0ax: 1"),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=1,=canary"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "nan"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/bundle.pem"),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", __file__),
    ("OTEL_RESOURCE_ATTRIBUTES", "service.name"),
    ("OTEL_RESOURCE_ATTRIBUTES", "a=%ff"),
    ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
    ("OTEL_TRACES_SAMPLER_ARG", "1.1"),
    ("OTEL_TRACES_SAMPLER_ARG", "half"),
    ("OTEL_TRACES_EXPORTER", "zipkin"),
    ("OTEL_BSP_SCHEDULE_DELAY", "0"),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1.5"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
)


def test_a_batch_is_no_larger_than_the_queue() -> None:
    """A queue that is full before a batch is would drop what comes, and the exporter would sleep."""
    settings = load_settings({"FAL_KEY": "id:x", **ON, "OTEL_BSP_MAX_QUEUE_SIZE": "10"}).tracing
    assert settings is not None
    assert (settings.batch, settings.queue) == (10, 10)


def test_an_environment_need_not_be_utf_8() -> None:
    """Python reads a stray byte of it as a lone surrogate, which must not end each worker at its start."""
    content = resource_of([("service.name", "fal-\udcff")])
    assert b"fal-?" in content


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_is_refused_by_name(name: str, value: str) -> None:
    """What cannot be done is an error at start, under its name; no message quotes what may be a credential."""
    errors = errors_of(**{name: value})
    assert list(errors) == [name]
    assert "canary" not in str(errors)


def test_all_errors_are_told_at_once() -> None:
    """Those of tracing beside all others."""
    wrong = {"OTEL_TRACES_SAMPLER": "x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "FALGW_PORT": "x"}
    assert set(errors_of(**wrong)) == set(wrong)


def test_no_credential_is_in_a_repr() -> None:
    """Fields for the receiver may hold a token."""
    settings: Any = load_settings({"FAL_KEY": "id:x", **ON, "OTEL_EXPORTER_OTLP_HEADERS": "a=canary"})
    assert settings.tracing.fields == ("a: canary",)
    assert "canary" not in f"{settings!r} {settings}"


def test_the_docs_name_every_setting_as_it_is() -> None:
    """The table in docs/settings.md is the code's: names, defaults and meanings."""
    rows = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if re.match(r"\| `OTEL_", line)]
    expected = [
        f"| `{name}` | {f'`{default}`' if default else 'none'} | {meaning} |"
        for name, (default, meaning) in NAMES.items()
    ]
    assert rows == expected


@pytest.mark.parametrize(
    ("name", "root", "sampled", "declined"),
    [
        ("always_on", True, True, True),
        ("always_off", False, False, False),
        ("traceidratio", False, False, False),
        ("parentbased_always_on", True, True, False),
        ("parentbased_always_off", False, True, False),
        ("parentbased_traceidratio", False, True, False),
    ],
)
def test_samplers_do_what_their_names_say(name: str, *, root: bool, sampled: bool, declined: bool) -> None:
    """Without a parent, with one that is sampled, with one that is not; a ratio of a half leaves out the upper half."""
    sampler = Sampler(name, 0.5)
    found = [sampler.samples(ODD_TRACE, parent_sampled=parent) for parent in (None, True, False)]
    assert found == [root, sampled, declined]


def test_a_ratio_takes_its_share_and_the_same_traces_everywhere() -> None:
    """The lowest 64 bits of the id decide, from nothing at 0 to everything at 1."""
    ids = [f"{'f' * 16}{number * 2**56:016x}" for number in range(256)]
    shares = {
        ratio: sum(Sampler("traceidratio", ratio).samples(name, parent_sampled=None) for name in ids)
        for ratio in (0, 0.25, 0.5, 1)
    }
    assert shares == {0: 0, 0.25: 64, 0.5: 128, 1: 256}
    assert {"traceidratio", "parentbased_traceidratio"} <= set(SAMPLERS)
