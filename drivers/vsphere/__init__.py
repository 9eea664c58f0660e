"""VMware vSphere: an ESXi host by itself, or one of a vCenter's; ``driver`` has the driver."""
