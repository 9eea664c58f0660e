"""What drivers that speak to libvirt share: the connection, domains of ours, their disks."""
