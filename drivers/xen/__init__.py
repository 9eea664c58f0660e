"""Open-source Xen through libvirt and dom0; ``driver`` has the driver."""
