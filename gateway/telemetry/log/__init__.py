"""JSON lines on stderr: one event for each request, and the events of the processes' lives. Begin with log.py."""
