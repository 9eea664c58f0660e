"""A real Xen under QEMU's software emulation: hypervisor, dom0, NICs and their far ends."""
