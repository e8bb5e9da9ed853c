"""The dashboards as files: indented for people in `grafana/`, compact for the chart, whose ConfigMap has an end.

The decision: keys are sorted and nothing of the moment goes in, so that writing again changes nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana.generator.capacity import CAPACITY
from grafana.generator.cost import COST
from grafana.generator.page import laid_out
from grafana.generator.traffic import TRAFFIC
from grafana.generator.upstream import UPSTREAM

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT: Final = Path(__file__).parents[2]
READABLE: Final = ROOT / "grafana"
CHART: Final = ROOT / "deploy/helm/fal-gateway/files/dashboards"
PAGES: Final = (COST, TRAFFIC, UPSTREAM, CAPACITY)


def dashboards() -> dict[str, object]:
    """Return each dashboard's JSON by the name of its file without the ending."""
    return {page.title.lower(): tidied(json.loads(JSONEncoder().encode(laid_out(page)))) for page in PAGES}


def tidied(content: Any) -> object:  # noqa: ANN401 - JSON
    """Return a dashboard without what the SDK adds unasked.

    That is an interval's settings in each variable, a table's footer as it was before Grafana 12, and a `placement`
    that would take the links to the other dashboards out of sight, into a menu.
    """
    for variable in content["templating"]["list"]:
        for name in ("auto", "auto_count", "auto_min"):
            variable.pop(name, None)
    for link in content["links"]:
        link.pop("placement", None)
    for panel in content["panels"]:
        panel.get("options", {}).pop("footer", None)
    return content


def rendered(content: object) -> str:
    """Return a dashboard as people read it."""
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def compact(content: object) -> str:
    """Return a dashboard in one line."""
    return json.dumps(content, separators=(",", ":"), sort_keys=True) + "\n"


def write(contents: Mapping[str, object]) -> None:
    """Write each dashboard to both places."""
    CHART.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (READABLE / f"{name}.json").write_text(rendered(content), encoding="utf-8")
        (CHART / f"{name}.json").write_text(compact(content), encoding="utf-8")
