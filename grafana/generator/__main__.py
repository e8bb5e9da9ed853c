"""`python -m grafana.generator`: writes every dashboard, for importing and for the chart."""

from __future__ import annotations

from grafana.generator.files import dashboards, write

if __name__ == "__main__":
    write(dashboards())
