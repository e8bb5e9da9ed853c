"""What takes minutes: the image in containers, real proxies in front, a registry, a real API server. `make e2e`."""
