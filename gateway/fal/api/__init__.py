"""A client of api.fal.ai: prices and bills. For threads, never on the way of a request."""
