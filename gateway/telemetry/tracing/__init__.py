"""OpenTelemetry: each request a span, sent in OTLP. Begin with tracer.py."""
