"""Microsoft Hyper-V by WinRM: a Windows host with the role; ``driver`` has the driver."""
