"""Xen's dom0 over SSH: what XenServer's toolstack and libvirt cannot say or set, ``xl`` does."""
