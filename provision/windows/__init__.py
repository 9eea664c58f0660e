"""How Ansible reaches a Windows host by WinRM: the variables that its connection plugin takes.

``ansible-doc -t connection winrm`` has them; what it does not know goes to pywinrm by name. A
password is in none of them: they say where Ansible finds it itself.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from provision.spec.hypervisor import Hypervisor, Secret

PORTS = {"http": 5985, "https": 5986}


def variables(hypervisor: Hypervisor) -> dict[str, Any]:
    """Of the host that ``hypervisor.uri`` names, as we log in to it ourselves."""
    parts, tls = urlsplit(hypervisor.uri), hypervisor.tls
    auth = hypervisor.auth or "ntlm"
    found: dict[str, Any] = {
        "ansible_connection": "winrm",
        "ansible_shell_type": "powershell",
        "ansible_host": parts.hostname,
        "ansible_port": parts.port or PORTS.get(parts.scheme, PORTS["https"]),
        "ansible_winrm_scheme": parts.scheme,
        "ansible_winrm_transport": auth,
    }
    if parts.scheme == "http":  # what is not in TLS is sealed
        found["ansible_winrm_message_encryption"] = "always"
    else:  # the plugin knows no pinned certificate: one that no CA signed is refused there
        found["ansible_winrm_server_cert_validation"] = "validate" if tls.verify else "ignore"
        if tls.ca is not None:
            found["ansible_winrm_ca_trust_path"] = str(tls.ca)
    if auth == "certificate":
        found["ansible_winrm_cert_pem"] = str(tls.client_cert)
        found["ansible_winrm_cert_key_pem"] = str(tls.client_key)
        return found
    if hypervisor.user is not None:
        found["ansible_user"] = hypervisor.user
    if hypervisor.password is not None and (password := _lookup(hypervisor.password)):
        found["ansible_password"] = password
    return found


def _lookup(secret: Secret) -> str:
    """A template that fetches it; "" where a vault has it: ``-e @VAULT`` gives that to Ansible."""
    if secret.env is not None:
        return "{{ lookup('ansible.builtin.env', " + repr(secret.env) + ") }}"
    if secret.file is not None:
        path = repr(str(secret.file))
        return "{{ lookup('ansible.builtin.file', " + path + ").splitlines()[0] }}"
    return ""
