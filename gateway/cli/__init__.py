"""The commands of `fal-gateway`, and what they print. Begin with main.py."""
