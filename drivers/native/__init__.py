"""No hypervisor at all: the host itself, with a NIC for each guest; ``driver`` has the driver."""
