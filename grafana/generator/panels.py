"""The kinds of panels that the dashboards are made of, each with the house's looks.

The decision: a dashboard says what is asked, in which unit and why; colours, legends and the like are the same
everywhere and stand here alone. Every panel takes a title, a description and a unit, so that none can go without.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, text, timeseries
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import prometheus as queries
from grafana_foundation_sdk.models import text as texts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grafana_foundation_sdk.cog.builder import Builder

Panel = stat.Panel | timeseries.Panel | table.Panel | bargauge.Panel | text.Panel

SOURCE: Final = shapes.DataSourceRef(type_val="prometheus", uid="${datasource}")
COUNT: Final = "locale"
"""Things that are counted, in full: `short` would show 1,045 as 1.05K."""

DOLLARS: Final = "prefix:$"
"""Money in full: `currencyUSD` would show 12,345.67 as 12.3K."""

_CENTS: Final = 2
_CLOCK: Final = "Time"
_OPACITY: Final = 15
_BARS_OPACITY: Final = 70


@dataclass(frozen=True, slots=True)
class Line:
    """One query of a graph, and what its lines are called: a text with labels in double braces."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Column:
    """One query of a table: its column's name, its unit, and how many decimals are shown (None: what fits)."""

    name: str
    expr: str
    unit: str
    decimals: int | None = None
    bands: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Look:
    """What differs between panels of numbers: decimals, colour bands (from a value on), words for values.

    `span` is a time range that holds for this panel alone, such as `now/d`: the day so far.
    """

    decimals: int | None = None
    bands: tuple[tuple[float, str], ...] = ()
    words: tuple[tuple[str, str, str], ...] = ()
    span: str = ""


PLAIN: Final = Look()


def number(title: str, description: str, unit: str, expr: str, look: Look = PLAIN) -> stat.Panel:
    """Return one figure, as of the range's end."""
    panel = stat.Panel().title(title).description(description).unit(unit).datasource(SOURCE)
    panel.with_target(_instant(expr, "A")).thresholds(_bands(look.bands)).reduce_options(_last())
    panel.color_mode(shapes.BigValueColorMode.VALUE).graph_mode(shapes.BigValueGraphMode.NONE)
    panel.mappings([_words(look.words)] if look.words else [])
    if look.decimals is not None:
        panel.decimals(look.decimals)
    if look.span:
        panel.time_from(look.span)
    return panel


def graph(title: str, description: str, unit: str, *lines: Line, stacked: bool = False) -> timeseries.Panel:
    """Return lines over time, of what is never below 0."""
    return _lines(title, description, unit, *lines, stacked=stacked).min(0)


def bars(title: str, description: str, unit: str, line: Line) -> timeseries.Panel:
    """Return stacked bars, one for each whole step of the range; steps are no shorter than money is fresh.

    A correction downwards is a bar below 0.
    """
    panel = _lines(title, description, unit, line, stacked=True).draw_style(shapes.GraphDrawStyle.BARS)
    return panel.line_width(0).fill_opacity(_BARS_OPACITY).max_data_points(60).interval("10s").legend(_legend("sum"))


def gauges(
    title: str, description: str, unit: str, line: Line, *, bands: tuple[tuple[float, str], ...] = ()
) -> bargauge.Panel:
    """Return one horizontal bar for each series, as of the range's end; shares have 1 as their full length."""
    panel = bargauge.Panel().title(title).description(description).unit(unit).datasource(SOURCE).min(0)
    panel.with_target(_instant(line.expr, "A", line.legend)).thresholds(_bands(bands)).reduce_options(_last())
    panel.orientation(shapes.VizOrientation.HORIZONTAL).display_mode(shapes.BarGaugeDisplayMode.BASIC)
    if unit == DOLLARS:
        panel.decimals(_CENTS)
    return panel.max(1) if unit == "percentunit" else panel


def listing(
    title: str, description: str, labels: Mapping[str, str], *columns: Column, sort_by: str = ""
) -> table.Panel:
    """Return a table with a column for each of `labels` (name and heading) and then for each query, joined by them."""
    panel = table.Panel().title(title).description(description).unit(columns[0].unit).datasource(SOURCE)
    panel.targets([_tabular(column, name) for column, name in zip(columns, string.ascii_uppercase, strict=False)])
    panel.transformations(_joined(labels, columns)).filterable(True).thresholds(_bands(()))  # noqa: FBT003 - the SDK's
    for column in columns:
        panel.override_by_name(column.name, _looks(column))
    if sort_by:
        panel.sort_by([common.TableSortByFieldState().display_name(sort_by).desc(True)])  # noqa: FBT003 - the SDK's
    return panel


def note(title: str, description: str, content: str) -> text.Panel:
    """Return a text in Markdown."""
    return text.Panel().title(title).description(description).mode(texts.TextMode.MARKDOWN).content(content)


def _lines(title: str, description: str, unit: str, *lines: Line, stacked: bool) -> timeseries.Panel:
    panel = timeseries.Panel().title(title).description(description).unit(unit).datasource(SOURCE)
    panel.targets([_ranged(line, name) for line, name in zip(lines, string.ascii_uppercase, strict=False)])
    panel.line_width(1).fill_opacity(_OPACITY).show_points(shapes.VisibilityMode.NEVER)
    panel.legend(_legend("mean", "max")).tooltip(_tooltip())
    return panel.stacking(_stacked()) if stacked else panel


def _instant(expr: str, name: str, legend: str = "") -> prometheus.Dataquery:
    query = prometheus.Dataquery().expr(expr).ref_id(name).datasource(SOURCE).instant()
    query.editor_mode(queries.QueryEditorMode.CODE)
    return query.legend_format(legend) if legend else query


def _ranged(line: Line, name: str) -> prometheus.Dataquery:
    query = prometheus.Dataquery().expr(line.expr).ref_id(name).datasource(SOURCE).range()
    return query.editor_mode(queries.QueryEditorMode.CODE).legend_format(line.legend)


def _tabular(column: Column, name: str) -> prometheus.Dataquery:
    return _instant(column.expr, name).format(queries.PromQueryFormat.TABLE)


def _joined(labels: Mapping[str, str], columns: Sequence[Column]) -> list[models.DataTransformerConfig]:
    """Return what makes one table of several answers: Grafana names their figures `Value #A` and so on."""
    values = ["Value"] if len(columns) == 1 else [f"Value #{name}" for name in string.ascii_uppercase[: len(columns)]]
    names = {**labels, **dict(zip(values, (column.name for column in columns), strict=True))}
    order = {name: place for place, name in enumerate(names)}
    organized = {"excludeByName": {_CLOCK: True}, "indexByName": order, "renameByName": names}
    merged = models.DataTransformerConfig(id_val="merge", options={})
    return [merged, models.DataTransformerConfig(id_val="organize", options=organized)]


def _looks(column: Column) -> list[models.DynamicConfigValue]:
    looks = [models.DynamicConfigValue("unit", column.unit)]
    if column.decimals is not None:
        looks.append(models.DynamicConfigValue("decimals", column.decimals))
    if column.bands:
        looks.append(models.DynamicConfigValue("thresholds", _bands(column.bands).build()))
        looks.append(models.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}))
    return looks


def _bands(bands: Sequence[tuple[float, str]]) -> Builder[models.ThresholdsConfig]:
    """Return colours by value: `text` below the first band, and each band's from its value on."""
    steps = [models.Threshold(None, "text"), *(models.Threshold(value, color) for value, color in bands)]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _words(words: Sequence[tuple[str, str, str]]) -> models.ValueMap:
    return models.ValueMap({value: models.ValueMappingResult(text=word, color=color) for value, word, color in words})


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)  # noqa: FBT003 - the SDK's


def _legend(*figures: str) -> common.VizLegendOptions:
    shown = common.VizLegendOptions().show_legend(True).placement(shapes.LegendPlacement.BOTTOM)  # noqa: FBT003 - SDK's
    return shown.display_mode(shapes.LegendDisplayMode.TABLE).calcs(list(figures))


def _tooltip() -> common.VizTooltipOptions:
    return common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI).sort(shapes.SortOrder.DESCENDING)


def _stacked() -> common.StackingConfig:
    return common.StackingConfig().mode(shapes.StackingMode.NORMAL).group("A")
