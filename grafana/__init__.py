"""Grafana dashboards of the gateway: the JSON that is imported, and the code that writes it."""
