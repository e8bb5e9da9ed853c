"""What puts load on a system, and what is seen from the client's side."""
