"""Testbeds for hypervisor network benchmarks, from one short spec to a result and back."""

__version__ = "0.1.0"
