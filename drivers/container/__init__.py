"""OS-level guests on this machine's own kernel; ``driver`` has the driver."""
