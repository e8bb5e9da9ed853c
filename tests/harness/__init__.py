"""What the wire tests stand on: the real programs as processes, a scripted origin, a raw client, nothing faked."""
