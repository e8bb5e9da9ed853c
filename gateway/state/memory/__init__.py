"""State in memory that the workers of one gateway share. Knows no Redis."""
