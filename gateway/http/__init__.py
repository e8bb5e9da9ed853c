"""Words of HTTP that all rooms share: fields, messages, problems. The standard library only."""
