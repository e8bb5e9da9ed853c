"""Writes the dashboards: `python -m grafana.generator`."""
