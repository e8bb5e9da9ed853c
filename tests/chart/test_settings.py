"""What the schema lets pass as a setting is what the gateway takes; what is left empty is the gateway's default."""

from __future__ import annotations

import json
from typing import Any, Final

import jsonschema
import pytest
from annotated_types import Ge, Gt, Le

from gateway.config.settings import Settings, SettingsError, load_settings, setting_names
from gateway.telemetry.tracing.settings import NAMES
from tests.chart.helm import CHART, NEEDED, container, environment, needs_helm, refusal

pytestmark = needs_helm

SCHEMA: Final[dict[str, Any]] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
OF_SETTINGS: Final = {"definitions": SCHEMA["definitions"], **SCHEMA["properties"]["settings"]}
FIELDS: Final = {field.alias: field for field in Settings.model_fields.values() if field.alias in setting_names()}
NUMBERS: Final = [name for name, field in FIELDS.items() if field.annotation in {int, float}]
PORTS: Final = ("FALGW_PORT", "FALGW_OPS_PORT")


def passes(name: str, value: object) -> bool:
    """Say whether the schema lets a setting pass."""
    return bool(jsonschema.Draft7Validator(OF_SETTINGS).is_valid({name: value}))


def starts(name: str, value: object) -> bool:
    """Say whether the gateway takes a setting."""
    try:
        load_settings({"FAL_KEY": "a:b", name: str(value)})
    except SettingsError:
        return False
    return True


def probes(name: str) -> list[float]:
    """Return numbers at the bounds of a setting and beside them."""
    bounds = [
        found
        for bound in FIELDS[name].metadata
        for found in (getattr(bound, "ge", None), getattr(bound, "gt", None), getattr(bound, "le", None))
        if isinstance(bound, (Ge, Gt, Le)) and found is not None
    ]
    assert bounds, name
    near = [bound + step for bound in bounds for step in (-1, 0, 1)]
    if FIELDS[name].annotation is float:
        near += [bound + step for bound in bounds for step in (-0.5, 0.5)]
    return [*near, 7, 65_530, 99_999, 600_001, 604_790]


@pytest.mark.parametrize("name", NUMBERS)
def test_the_schema_has_the_gateways_bounds(name: str) -> None:
    """As a number and as a text; but a port of 0, any free one, would be no port of a pod's."""
    for value in probes(name):
        wanted = starts(name, value) and not (name in PORTS and value == 0)
        assert passes(name, value) == wanted, value
        assert passes(name, str(value)) == wanted, value
    assert passes(name, "")
    assert passes(name, None)
    assert not passes(name, "many")


def test_the_schema_has_the_gateways_names_of_tracing() -> None:
    """Those that the gateway reads, and no others, so that a misspelt one is told."""
    [pattern] = OF_SETTINGS["patternProperties"]
    special = {name.replace("_OTLP_", "_OTLP_TRACES_") for name in NAMES if "_OTLP_TRACES_" not in name}
    assert pattern.startswith("^(")
    assert pattern.endswith(")$")
    assert set(pattern[2:-2].split("|")) == {*NAMES, *special}
    assert "OTEL_SERVCE_NAME" in refusal(*NEEDED, "settings.OTEL_SERVCE_NAME=x")


@pytest.mark.parametrize("blank", ["", "null"])
def test_a_listener_left_empty_has_its_default(blank: str) -> None:
    """The gateway's own ports, and every address, since a pod that listens on loopback serves nobody."""
    listeners = ("FALGW_HOST", "FALGW_PORT", "FALGW_OPS_HOST", "FALGW_OPS_PORT")
    sets = (*NEEDED, *(f"settings.{name}={blank}" for name in listeners))
    ports = [int(FIELDS[name].default) for name in PORTS]
    assert [port["containerPort"] for port in container(*sets)["ports"]] == ports
    found = environment(*sets)
    assert [found[name] for name in listeners] == ["0.0.0.0", str(ports[0]), "0.0.0.0", str(ports[1])]  # noqa: S104
