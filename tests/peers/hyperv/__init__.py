"""A Windows host with Hyper-V behind WinRM, as far as its published rules say what it does.

What a cmdlet takes is in ``cmdlets.json`` (Hyper-V's own, generated from Microsoft's pages by
``read_docs.py``) and ``others.json`` (NetAdapter, NetTCPIP, CIM, files: by their pages, kept by
hand). What it does is our reading of those pages. Error ids and texts have a source where the
modules say so, else they are plausible, so nobody may prove by them that a driver reads a message
right. Windows guests cannot be had here, nor Kerberos.
"""
