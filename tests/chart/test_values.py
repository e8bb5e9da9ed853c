"""Every value is used, documented and judged by the schema; every setting of the gateway can be set by one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import jsonschema
import pytest
import yaml

from gateway.config.settings import load_settings, setting_names
from tests.chart.helm import (
    CHART,
    NEEDED,
    NEWEST,
    ROOT,
    SCENARIOS,
    VERSIONS,
    Refused,
    environment,
    needs_helm,
    parsed,
    refusal,
    render,
    run_helm,
    scenario,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = needs_helm

VALUES_TEXT: Final = (CHART / "values.yaml").read_text(encoding="utf-8")
VALUES: Final[dict[str, Any]] = yaml.safe_load(VALUES_TEXT)
SCHEMA: Final[dict[str, Any]] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
TEMPLATES: Final = "".join(
    path.read_text(encoding="utf-8") for path in (CHART / "templates").rglob("*") if path.is_file()
)
OF_THEIR_OWN: Final = {
    "FAL_KEY": "existingSecret",
    "FAL_ADMIN_KEY": "secretKeys.falAdminKey",
    "FALGW_POLICY": "policy",
    "FALGW_REDIS_URL": "redis.url",
    "FALGW_DATABASE_URL": "database.url",
}
"""Settings that have a value of their own, and not one under `settings`."""


def names_of_settings() -> set[str]:
    """Return the variables that the gateway reads as settings; those of tracing as docs/settings.md tells them."""
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    return {*setting_names(), "FAL_KEY", "FAL_ADMIN_KEY", *re.findall(r"OTEL_[A-Z_]*[A-Z]", page)}


def leaves(mapping: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of everything in a mapping that is not a mapping with something in it."""
    for key, value in mapping.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """Return what a schema refers to, or itself."""
    reference = str(schema.get("$ref", ""))
    return SCHEMA["definitions"][reference.rpartition("/")[2]] if reference else schema


def closed_objects(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every object of a schema that names its properties."""
    for part in (schema, *schema.get("definitions", {}).values()):
        if "properties" in part:
            yield part
            for below in part["properties"].values():
                yield from closed_objects(below)
        if "items" in part:
            yield from closed_objects(part["items"])


def test_every_setting_can_be_set() -> None:
    """What the gateway reads, the chart can set: a setting without a value would need an image of one's own."""
    listed = set(SCHEMA["properties"]["settings"]["properties"])
    patterns = SCHEMA["properties"]["settings"]["patternProperties"]
    left = {
        name
        for name in names_of_settings() - set(OF_THEIR_OWN)
        if name not in listed and not any(re.search(pattern, name) for pattern in patterns)
    }
    assert left == set()
    assert listed == set(VALUES["settings"])


def test_every_variable_that_the_chart_sets_is_a_setting() -> None:
    """The gateway refuses names that it does not know: each scenario's environment makes settings."""
    brought = {"FAL_KEY_ID", "FAL_KEY_SECRET", "FAL_KEY_FILE"} | names_of_settings()
    seen = set()
    for path in SCENARIOS:
        extra = {entry["name"] for entry in yaml.safe_load(path.read_text(encoding="utf-8")).get("extraEnv", [])}
        seen |= set(environment(scenario=path)) - extra
    assert {name for name in seen ^ brought if not name.startswith("OTEL_")} == set()


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in SCENARIOS])
def test_the_gateway_takes_the_environment(path: Path) -> None:
    """Numbers come as the gateway reads them, and listeners on all interfaces; secrets and files are put in for it."""
    stand_ins = {
        "FALGW_REDIS_URL": "redis://redis.example",
        "FALGW_DATABASE_URL": "postgresql://db.example/fal",
    }
    given = {
        name: value if isinstance(value, str) else stand_ins.get(name, "a-credential")
        for name, value in environment(scenario=path).items()
        if name not in {"FALGW_CA_FILE", "FAL_KEY_FILE"}
    }
    settings = load_settings(given, need_credential="FAL_KEY_FILE" not in environment(scenario=path))
    assert settings.host in {"0.0.0.0", "::"}  # noqa: S104 (read, not bound)
    assert settings.ops_host in {"0.0.0.0", "::"}  # noqa: S104 (read, not bound)


def test_numbers_stay_numbers() -> None:
    """Helm reads a large number as a float; what reaches the gateway is the number that was written."""
    found = environment(scenario=scenario("settings"))
    assert found["FALGW_MAX_BODY_BYTES"] == "1073741824"
    assert found["FALGW_DRAIN_TIMEOUT"] == "600.5"
    assert found["FALGW_CLIENT_LEAST_RATE"] == "0"


def test_a_setting_left_empty_is_left_out() -> None:
    """The gateway's own defaults hold where nothing is set."""
    found = environment(*NEEDED)
    assert "FALGW_MAX_INFLIGHT" not in found
    assert "FALGW_LOG_LEVEL" not in environment(*NEEDED, "settings.FALGW_LOG_LEVEL=null")


@pytest.mark.parametrize("path", [".".join(path) for path in leaves(VALUES)])
def test_a_value_is_used(path: str) -> None:
    """A value that no template reads would be a promise that nothing keeps."""
    steps = path.split(".")
    names = [".".join(steps[:length]) for length in range(len(steps), 0, -1)]
    whole = any(re.search(rf"\.Values\.{re.escape(name)}(?![A-Za-z0-9_.])", TEMPLATES) for name in names)
    assert whole or _read_by_a_loop(steps), f"{path} is read nowhere"


def test_the_templates_read_no_value_that_is_not_there() -> None:
    """A template that reads what values.yaml does not hold would be set by nobody."""
    read = {found.rstrip(".") for found in re.findall(r"\.Values\.([A-Za-z0-9_.]+)", TEMPLATES)}
    known = {".".join(path[:length]) for path in leaves(VALUES) for length in range(1, len(path) + 1)}
    assert read - known == set()


def page_of(values: Path) -> subprocess.CompletedProcess[str]:
    """Run what makes README.md of a values file."""
    script = ROOT / "tools" / "chart_readme.py"
    return subprocess.run([sys.executable, script, values], capture_output=True, text=True, check=False)


def test_every_value_is_documented() -> None:
    """README.md is what values.yaml makes of it, with a row for each value or for what it is a part of."""
    page = (CHART / "README.md").read_text(encoding="utf-8")
    assert page == page_of(CHART / "values.yaml").stdout, "README.md is not fresh: run `make chart-readme`"
    shown = set(re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE))
    for path in leaves(VALUES):
        assert any(".".join(path[:length]) in shown for length in range(1, len(path) + 1)), path


def test_a_value_without_a_comment_is_told(tmp_path: Path) -> None:
    """The page cannot be made while something is undocumented."""
    values = tmp_path / "values.yaml"
    values.write_text("a:\n  # -- said\n  b: 1\n  c: 2\n")
    done = page_of(values)
    assert (done.returncode, done.stdout) == (1, "")
    assert "a.c: no comment" in done.stderr


def test_the_schema_names_exactly_the_values() -> None:
    """A value that the schema does not know could not be set; one that values.yaml lacks would not be documented."""

    def compare(schema: dict[str, Any], values: dict[str, Any], place: str) -> None:
        if "properties" not in resolved(schema) or schema.get("$ref"):
            return
        assert set(schema["properties"]) - {"global"} == set(values), place
        for name, below in values.items():
            if isinstance(below, dict) and below:
                compare(schema["properties"][name], below, f"{place}.{name}")

    jsonschema.Draft7Validator.check_schema(SCHEMA)
    compare(SCHEMA, VALUES, "values")
    assert all(part.get("additionalProperties") is False for part in closed_objects(SCHEMA))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("replicaCuont=2", "replicaCuont"),
        ("settings.FALGW_MAX_INFLIHGT=2", "FALGW_MAX_INFLIHGT"),
        ("settings.maxInflight=2", "maxInflight"),
        ("autoscaling.maxReplica=2", "maxReplica"),
        ("readinessProbe.periodSecond=2", "periodSecond"),
        ("image.digest=sha256:12", "image/digest"),
        ("image.pullPolicy=Sometimes", "image/pullPolicy"),
        ("replicaCount=two", "replicaCount"),
        ("replicaCount=-1", "replicaCount"),
        ("replicaCount=1.5", "replicaCount"),
        ("autoscaling.enabled=yes", "autoscaling/enabled"),
        ("settings.FALGW_WORKERS=many", "settings/FALGW_WORKERS"),
        ("settings.FALGW_PORT=70000", "settings/FALGW_PORT"),
        ("settings.FALGW_LOG_LEVEL=loud", "settings/FALGW_LOG_LEVEL"),
        ("redis.url=http://redis.example", "redis/url"),
        ("database.url=mysql://db.example/fal", "database/url"),
        ("tolerations.key=x", "tolerations"),
        ("resources.limits.memory=lots", "resources/limits/memory"),
        ("service.type=ExternalName", "service/type"),
        ("extraEnv[0].nam=x", "extraEnv/0"),
        ("policy=5", "policy"),
    ],
)
@pytest.mark.parametrize("version", VERSIONS[-1:])
def test_the_schema_refuses(wrong: str, told: str, version: str) -> None:
    """A typo, a wrong type or an impossible value is told with its place, not left to the cluster."""
    assert version == NEWEST
    said = refusal(*NEEDED, wrong)
    assert "schema" in said
    assert told in said


def emptied(values: dict[str, Any], schema: dict[str, Any], place: str = "") -> Iterator[str]:
    """Yield null for every mapping and list among the values but those that the schema needs, and for those in them."""
    for name, value in values.items():
        if name in schema.get("required", ()):
            yield from emptied(value, schema["properties"][name], f"{place}{name}.")
        elif isinstance(value, (dict, list)):
            yield f"{place}{name}=null"


@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_in_place_of_a_mapping_is_told_or_is_empty(version: str) -> None:
    """A part of the chart that is set to null is refused by its name; any other mapping and list is taken as empty."""
    with pytest.raises(Refused, match="schema") as told:
        render(*NEEDED, *(f"{name}=null" for name in SCHEMA["required"]), version=version)
    assert [name for name in SCHEMA["required"] if name not in str(told.value)] == []
    for name in ("keda.prometheus", "tests.stream"):
        with pytest.raises(Refused, match=name.rpartition(".")[2]):
            render(*NEEDED, f"{name}=null", version=version)
    switches = (*NEEDED, *(f"{name}.enabled=true" for name in ("networkPolicy", "dashboards", "persistence")))
    others = list(emptied(VALUES, SCHEMA))
    assert len(others) > 40
    assert parsed(render(*switches, *others, version=version))
    assert render(*switches, *others, notes=True)
    assert parsed(render(*switches, "dashboards.labels.grafana_dashboard=null", version=version))


@pytest.mark.parametrize("wrong", ["replicaCuont=2", "replicaCount=two", "settings.FALGW_MAX_INFLIHGT=2"])
def test_the_older_helm_refuses_too(wrong: str) -> None:
    """The schema is understood by both major versions."""
    with pytest.raises(Refused, match=wrong.partition("=")[0].rpartition(".")[2]):
        render(*NEEDED, wrong, version=VERSIONS[0])


def test_the_chart_can_be_a_part_of_another(tmp_path: Path) -> None:
    """As a dependency it is given `global`, which the schema lets pass."""
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts" / "fal-gateway").symlink_to(CHART)
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: platform\nversion: 1.0.0\n")
    (tmp_path / "values.yaml").write_text("global: {region: eu}\nfal-gateway: {existingSecret: fal}\n")
    assert "kind: Deployment" in run_helm(NEWEST, "template", "platform", str(tmp_path))


def _read_by_a_loop(steps: list[str]) -> bool:
    """Say whether a template reads a value by its name out of a list, or by way of `with` and a dictionary."""
    top, last = steps[0], steps[-1]
    if len(steps) == 1:
        return f'"{top}"' in TEMPLATES
    block = rf"(\.Values\.{re.escape('.'.join(steps[:-1]))}[ )]|\$monitor|range list \"autoscaling\" \"keda\")"
    return bool(re.search(block, TEMPLATES)) and bool(re.search(rf"\.{last}\b", TEMPLATES))
