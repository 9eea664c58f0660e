"""OpenVZ's tools as libvirt's own driver calls them, so that it can be met without OpenVZ."""
