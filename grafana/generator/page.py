"""A dashboard as a page: sections of shelves of panels, laid out without a hole, with what all dashboards share.

The decision: places and ids are counted here and given to no one else. A shelf fills the width of 24 or is an error, so
that panels can neither overlap nor leave a hole, and a panel's id is its place in reading order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as models

if TYPE_CHECKING:
    from grafana_foundation_sdk.cog.builder import Builder

    from grafana.generator.panels import Panel

WIDTH: Final = 24
TAG: Final = "fal-gateway"
UTC: Final = "utc"
"""Days and months of budgets and of the ledger are in UTC, so the dashboards' are, too."""

UIDS: Final = {
    "Cost": "fal-gateway-cost",
    "Traffic": "fal-gateway-traffic",
    "Upstream": "fal-gateway-upstream",
    "Capacity": "fal-gateway-capacity",
}


class ShelfError(ValueError):
    """A shelf whose panels do not fill its width."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """Panels side by side: each with its width out of 24; `height` in Grafana's units of 30 pixels."""

    height: int
    panels: tuple[tuple[int, Panel], ...]


@dataclass(frozen=True, slots=True)
class Section:
    """Shelves under a heading."""

    title: str
    shelves: tuple[Shelf, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """One dashboard: its title (a name in `UIDS`), what it answers, its time range, variables and sections."""

    title: str
    description: str
    since: str
    variables: tuple[Builder[models.VariableModel], ...]
    sections: tuple[Section, ...]


def shelf(height: int, *panels: tuple[int, Panel]) -> Shelf:
    """Return a shelf; ShelfError where the widths are not 24 together."""
    if sum(width for width, _ in panels) != WIDTH:
        raise ShelfError([width for width, _ in panels])
    return Shelf(height, panels)


def laid_out(page: Page) -> models.Dashboard:
    """Return the page as Grafana's own model."""
    board = dashboard.Dashboard(f"fal-gateway / {page.title}").uid(UIDS[page.title]).description(page.description)
    board.tags([TAG]).timezone(UTC).time(page.since, "now").refresh("30s").week_start("monday").editable()
    board.tooltip(models.DashboardCursorSync.TOOLTIP).variables(list(page.variables)).links(_links(page.title))
    _place(board, page.sections)
    return board.build()


def _place(board: dashboard.Dashboard, sections: tuple[Section, ...]) -> None:
    number, y = 0, 0
    for section in sections:
        number += 1
        board.with_row(dashboard.Row(section.title).id(number).grid_pos(models.GridPos(h=1, w=WIDTH, x=0, y=y)))
        y += 1
        for row in section.shelves:
            x = 0
            for width, panel in row.panels:
                number += 1
                board.with_panel(panel.id(number).grid_pos(models.GridPos(h=row.height, w=width, x=x, y=y)))
                x += width
            y += row.height


def _links(title: str) -> list[Builder[models.DashboardLink]]:
    """Return links to the other dashboards, which keep the time range and the variables."""
    return [
        dashboard.DashboardLink(name)
        .type(models.DashboardLinkType.LINK)
        .url(f"/d/{uid}")
        .keep_time(True)  # noqa: FBT003 - the SDK's
        .include_vars(True)  # noqa: FBT003 - the SDK's
        for name, uid in UIDS.items()
        if name != title
    ]
