"""A stand-in for fal: every host that the gateway talks to, in one process, without an account and with faults."""
