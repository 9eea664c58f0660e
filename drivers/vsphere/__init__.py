"""VMware vSphere: an ESXi host by itself, or one of a vCenter's."""

from drivers.vsphere.driver import Vsphere

__all__ = ["Vsphere"]
