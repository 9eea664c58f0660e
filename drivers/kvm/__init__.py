"""KVM and QEMU through libvirt; ``driver`` has the driver."""
