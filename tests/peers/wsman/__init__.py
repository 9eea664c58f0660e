"""A WS-Man endpoint: what WinRM is on the wire, as [MS-WSMV] and [MS-WSMAN] have it."""
