"""OpenVZ through libvirt: containers of hosts that still run it."""
