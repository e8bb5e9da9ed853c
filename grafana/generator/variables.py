"""The dashboards' variables: where the data is, and which gateways, callers and classes are looked at.

The decision: All is the pattern `.*` and not a list of what is there, so that a caller that comes into being while a
page is open is in its sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as models

from grafana.generator.panels import SOURCE

if TYPE_CHECKING:
    from grafana_foundation_sdk.cog.builder import Builder

Variable = dashboard.DatasourceVariable | dashboard.QueryVariable | dashboard.CustomVariable

ALL: Final = models.VariableOption(selected=True, text=["All"], value=["$__all"])
EVERYTHING: Final = ".*"


def source() -> dashboard.DatasourceVariable:
    """Return the choice of a Prometheus."""
    return dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")


def gateways() -> dashboard.QueryVariable:
    """Return the choice of gateways, by the job under which Prometheus scrapes them."""
    return _choice("job", "Gateway", "label_values(fal_gateway_build_info, job)")


def labels_of(family: str, *names: str) -> tuple[Builder[models.VariableModel], ...]:
    """Return a choice for each label of a family (a name, or a pattern of names), narrowed by those before it."""
    return tuple(_choice(name, name.capitalize(), _values(family, name, names[:at])) for at, name in enumerate(names))


def grouping(*names: str) -> dashboard.CustomVariable:
    """Return the choice of the label by which graphs are split; the first one at the start."""
    first = models.VariableOption(selected=True, text=names[0], value=names[0])
    return dashboard.CustomVariable("by").label("Split by").values(",".join(names)).current(first)


def _values(family: str, name: str, before: tuple[str, ...]) -> str:
    narrowed = ",".join(f'{label}=~"${label}"' for label in ("job", *before))
    return f'label_values({{__name__=~"fal_gateway_({family})",{narrowed}}}, {name})'


def _choice(name: str, label: str, query: str) -> dashboard.QueryVariable:
    chosen = dashboard.QueryVariable(name).label(label).query(query).definition(query).datasource(SOURCE)
    chosen.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
    return chosen.multi(True).include_all(True).all_value(EVERYTHING).current(ALL)  # noqa: FBT003 - the SDK's
