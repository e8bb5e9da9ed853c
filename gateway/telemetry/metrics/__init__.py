"""Counters in memory that all processes share, and the Prometheus page made of them. Begin with families.py."""
