"""A dashboard as one HTML page: its panels in their places, each drawn from what its queries gave.

The decision: the page says at its head that it is a preview and not Grafana, so that nobody takes it for a screenshot.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any, Final

from tests.dashboards.preview.charts import graph
from tests.dashboards.preview.figures import banded, worded, written
from tests.dashboards.showing import points_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.dashboards.boards import Board
    from tests.dashboards.interpolation import Window
    from tests.dashboards.showing import Shown

WIDTH: Final = 1560
ROW: Final = 36
GAP: Final = 8
HEAD: Final = 92
TITLE: Final = 30
CELL: Final = 25
STYLE: Final = """
body{margin:0;background:#f4f5f8;font:13px/1.35 'DejaVu Sans',Arial,sans-serif;color:#24292e}
header{padding:14px 16px 0}h1{font-size:20px;margin:0 0 4px}header p{margin:0;color:#57606a}
header b{color:#9a3412}
.panel{position:absolute;background:#fff;border:1px solid #dcdfe4;border-radius:3px;overflow:hidden}
.panel h2{font-size:13px;margin:0;padding:7px 10px 4px;font-weight:bold}
.row{position:absolute;font-weight:bold;font-size:15px;padding-top:8px}
.big{display:flex;align-items:center;justify-content:center;font-size:34px;font-weight:bold}
.span{font-weight:normal;color:#57606a;font-size:11px;float:right}
table{border-collapse:collapse;width:100%;font-size:12px}
th{text-align:left;color:#57606a;font-weight:bold;padding:3px 10px;border-bottom:1px solid #e4e7eb}
td{padding:3px 10px;border-bottom:1px solid #eef0f3;white-space:nowrap}
.number{text-align:right}
.legend{font-size:11px}.legend td,.legend th{padding:0 8px;border:0;line-height:17px}
.legend td+td,.legend th+th{text-align:right;width:80px}
.legend i{display:inline-block;width:11px;height:4px;margin:0 6px 3px 0;border-radius:2px}
.grid{stroke:#e8eaee}.axis{font-size:11px;fill:#57606a}
.gauge{display:grid;grid-template-columns:minmax(90px,max-content) 1fr 92px;gap:0 10px;padding:2px 10px}
.gauge{align-items:center}
.gauge span{overflow:hidden;text-overflow:ellipsis;white-space:nowrap;max-width:200px;line-height:26px}
.gauge u{display:block;height:15px;background:#eceff2;border-radius:2px}
.gauge u i{display:block;height:15px;border-radius:2px}
.none{color:#57606a;display:flex;align-items:center;justify-content:center}
.text{padding:0 12px;font-size:12.5px}.text ul{padding-left:18px;margin:6px 0}.text p{margin:6px 0}
code{background:#eef0f3;padding:0 3px;border-radius:2px}
"""


def page(board: Board, shown: Mapping[str, Sequence[Shown]], window: Window) -> tuple[str, int]:
    """Return a dashboard's page and its height in pixels; `shown` is by a panel's title."""
    panels = "".join(placed(panel, shown.get(panel["title"], ()), window) for panel in board.panels)
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board.panels)
    since, until = (f"{datetime.fromtimestamp(moment, UTC):%H:%M:%S}" for moment in (window.since, window.until))
    head = (
        f"<header><h1>{escape(board.content['title'])}</h1><p>{escape(board.content['description'])}</p>"
        f"<p><b>Preview drawn from query results, not Grafana.</b> Emulated traffic of one and a half minutes, "
        f"{since} to {until} UTC, scraped every {window.scrape_seconds:g} s.</p></header>"
    )
    text = f"<!doctype html><meta charset=utf-8><title>preview</title><style>{STYLE}</style><body>{head}{panels}"
    return text, HEAD + bottom * ROW + GAP


def placed(panel: dict[str, Any], shown: Sequence[Shown], window: Window) -> str:
    """Return one panel in its place."""
    at = panel["gridPos"]
    unit = (WIDTH - GAP) / 24
    left, top = round(GAP + at["x"] * unit), HEAD + at["y"] * ROW
    width, height = round(at["w"] * unit) - GAP, at["h"] * ROW - GAP
    place = f"left:{left}px;top:{top}px;width:{width}px;height:{height}px"
    if panel["type"] == "row":
        return f'<div class="row" style="{place}">{escape(panel["title"])}</div>'
    span = f'<span class="span">{escape(panel["timeFrom"])}</span>' if "timeFrom" in panel else ""
    inside = drawn(panel, shown, window, (width - 2, height - TITLE - 2))
    return f'<div class="panel" style="{place}"><h2>{span}{escape(panel["title"])}</h2>{inside}</div>'


def drawn(panel: dict[str, Any], shown: Sequence[Shown], window: Window, size: tuple[int, int]) -> str:
    """Return what stands within a panel."""
    if panel["type"] == "text":
        return f'<div class="text">{marked(panel["options"]["content"])}</div>'
    if not any(one.numbers for one in shown):
        return f'<div class="none" style="height:{size[1]}px">No data</div>'
    if panel["type"] == "timeseries":
        return graph(panel, shown, window, size)
    if panel["type"] == "table":
        return table(panel, shown, size)
    return stat(panel, shown, size) if panel["type"] == "stat" else gauge(panel, shown)


def stat(panel: dict[str, Any], shown: Sequence[Shown], size: tuple[int, int]) -> str:
    """Return one large figure."""
    text, color = worded(shown[0].numbers[0], panel["fieldConfig"]["defaults"])
    return f'<div class="big" style="height:{size[1]}px;color:{color}">{escape(text)}</div>'


def gauge(panel: dict[str, Any], shown: Sequence[Shown]) -> str:
    """Return a bar for each series, the longest first."""
    defaults, legend = panel["fieldConfig"]["defaults"], panel["targets"][0].get("legendFormat", "")
    rows = sorted(((float(points_of(one)[0][1]), one["metric"]) for one in shown[0].samples), key=lambda row: -row[0])
    longest = defaults.get("max") or max(number for number, _ in rows) or 1
    cells = []
    for number, labels in rows:
        name = re.sub(r"\{\{(\w+)\}\}", lambda found, labels=labels: labels.get(found[1], ""), legend)  # type: ignore[misc]
        color = banded(number, defaults.get("thresholds"))
        share = max(0.0, min(1.0, number / longest)) * 100
        paint = "#2f7ed8" if color == "#24292e" else color
        bar = f'<u><i style="width:{share:.1f}%;background:{paint}"></i></u>'
        value = written(number, defaults["unit"], defaults.get("decimals"))
        cells.append(f'<span>{escape(name)}</span>{bar}<span class="number" style="color:{color}">{value}</span>')
    return f'<div class="gauge">{"".join(cells)}</div>'


def table(panel: dict[str, Any], shown: Sequence[Shown], size: tuple[int, int]) -> str:
    """Return the queries' answers joined by their labels, as `merge` and `organize` do it."""
    organized = panel["transformations"][1]["options"]
    names: dict[str, str] = organized["renameByName"]
    ordered = sorted(names, key=organized["indexByName"].__getitem__)
    labels, figures = ordered[: -len(shown)], ordered[-len(shown) :]
    rows: dict[tuple[str, ...], dict[str, float]] = {}
    for value, one in zip(figures, shown, strict=True):
        for sample in one.samples:
            key = tuple(sample["metric"].get(label, "") for label in labels)
            rows.setdefault(key, {})[value] = float(points_of(sample)[0][1])
    chosen = panel["options"].get("sortBy") or [{"displayName": names[figures[0]]}]
    order = next(value for value in figures if names[value] == chosen[0]["displayName"])
    lines = sorted(rows.items(), key=lambda row: -row[1].get(order, float("-inf")))
    looks = {override["matcher"]["options"]: override["properties"] for override in panel["fieldConfig"]["overrides"]}
    heads = "".join(f"<th>{escape(names[label])}</th>" for label in labels)
    heads += "".join(f'<th class="number">{escape(names[value])}</th>' for value in figures)
    most = max(1, size[1] // CELL - 1)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in key)}"
        f"{''.join(cell(found.get(value), looks[names[value]]) for value in figures)}</tr>"
        for key, found in lines[:most]
    )
    return f"<table><tr>{heads}</tr>{body}</table>"


def cell(number: float | None, looks: Sequence[dict[str, Any]]) -> str:
    """Return one figure of a table in its column's looks."""
    look: dict[str, Any] = {one["id"]: one.get("value") for one in looks}
    if number is None:
        return "<td></td>"
    color = banded(number, look.get("thresholds"))
    return f'<td class="number" style="color:{color}">{written(number, look["unit"], look.get("decimals"))}</td>'


def marked(content: str) -> str:
    """Return Markdown as HTML: paragraphs, lists, bold, code; all that the dashboards' texts use."""
    text = escape(content.strip(), quote=False)
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text)
    text = re.sub(r"`(.+?)`", r"<code>\1</code>", text)
    parts = []
    for part in text.split("\n\n"):
        lines = part.split("\n")
        items = [f"<li>{line[2:]}</li>" for line in lines if line.startswith("* ")]
        rest = " ".join(line for line in lines if not line.startswith("* "))
        rest = re.sub(r"\*([^*]+)\*", r"<i>\1</i>", rest)
        parts.append((f"<p>{rest}</p>" if rest else "") + (f"<ul>{''.join(items)}</ul>" if items else ""))
    return "".join(parts)
