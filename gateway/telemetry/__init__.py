"""What is told of requests and processes: metrics, log, traces. Begin with record.py, one exchange's record."""
