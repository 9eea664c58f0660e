"""A Windows guest as far as published rules say what it does: a namespace that runs PowerShell.

Scripts are run as sent, by ``tests/peers/powershell``; every call is held to ``cmdlets.json`` (kept
by hand from Microsoft's pages) and to Hyper-V's ``others.json``. Names, addresses, MTUs, the
firewall and tasks are real: what a script does not open is shut. Made from Microsoft's pages and
from cloudbase-init's, and never met by a Windows.
"""
