"""The chart before a real Kubernetes API server; `make e2e-k8s`."""
