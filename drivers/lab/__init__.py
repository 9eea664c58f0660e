"""The load generator and its cables; ``driver`` has the driver."""
