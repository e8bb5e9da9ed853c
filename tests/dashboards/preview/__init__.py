"""Draws a preview of each dashboard out of real query results; `python -m tests.dashboards.preview` saves pictures."""
