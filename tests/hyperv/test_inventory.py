"""The Windows host in the inventory, and that Ansible itself gets there by what is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision import inventory, windows
from provision.spec import file as specfile
from provision.spec.hypervisor import Hypervisor
from tests.peers import certs
from tests.peers.hyperv.peer import Peer, hyperv_host

END_S = 60


def section(text: str) -> Hypervisor:
    return specfile.loads(f"name: a\nhypervisor: {{type: hyperv, {text}}}\n", "test").hypervisor


def test_no_other_hypervisor_is_there() -> None:
    kvm = specfile.loads("name: a\nhypervisor: kvm\n", "test")
    assert inventory._hypervisors(kvm) == {}
    hyperv = specfile.loads("name: a\nhypervisor: {type: hyperv, uri: 'http://hv7'}\n", "test")
    assert [*inventory._hypervisors(hyperv)["hypervisors"]["hosts"]] == [inventory.HYPERVISOR]


def test_over_http_all_is_sealed() -> None:
    told = windows.variables(section("uri: 'http://hv7', user: bench, password: {env: HV_PW}"))
    assert told == {
        "ansible_connection": "winrm", "ansible_shell_type": "powershell",
        "ansible_host": "hv7", "ansible_port": 5985, "ansible_winrm_scheme": "http",
        "ansible_winrm_transport": "ntlm", "ansible_winrm_message_encryption": "always",
        "ansible_user": "bench", "ansible_password": "{{ lookup('ansible.builtin.env', 'HV_PW') }}",
    }  # fmt: skip


def test_over_https_by_a_certificate(tmp_path: Path) -> None:
    """With the CA named; no user and no password."""
    made = certs.make(tmp_path)
    told = windows.variables(section(
        f"uri: 'https://hv7:8443', auth: certificate, tls: {{ca: '{made.ca}', "
        f"client_cert: '{made.cert}', client_key: '{made.key}'}}"
    ))  # fmt: skip
    assert (told["ansible_port"], told["ansible_winrm_transport"]) == (8443, "certificate")
    assert told["ansible_winrm_server_cert_validation"] == "validate"
    assert told["ansible_winrm_ca_trust_path"] == str(made.ca)
    assert told["ansible_winrm_cert_pem"] == str(made.cert)
    assert told["ansible_winrm_cert_key_pem"] == str(made.key)
    assert not {"ansible_user", "ansible_password"} & told.keys()


def test_who_trusts_anybody_says_so() -> None:
    told = windows.variables(section("uri: 'https://hv7', auth: basic, tls: {verify: false}"))
    assert told["ansible_winrm_server_cert_validation"] == "ignore"


@pytest.fixture(params=[False, True], ids=["http", "https"])
def host(request: pytest.FixtureRequest) -> Iterator[Peer]:
    with hyperv_host(tls=request.param, password="ascii only", judge=False) as found:
        yield found


def test_ansible_runs_a_command_on_the_host(host: Peer, tmp_path: Path) -> None:
    """Its own connection plugin, with our variables alone."""
    ca = f", tls: {{ca: '{host.ca}'}}" if host.ca else ""
    kept = tmp_path / "its password"
    kept.write_text("ascii only\nand more\n")
    password = f"{{file: '{kept}'}}" if host.ca else "{env: HV_PW}"
    uri = host.uri.removesuffix("/wsman")
    told = windows.variables(section(f"uri: '{uri}', user: {host.user}, password: {password}{ca}"))
    source = tmp_path / "hosts.yml"
    source.write_text(json.dumps({"hypervisors": {"hosts": {"hypervisor": told}}}))
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "adhoc", "hypervisor", "-i", str(source),
         "-m", "ansible.builtin.raw", "-a", "whoami /groups /fo csv /nh"],
        env=os.environ | {"HV_PW": "ascii only", "ANSIBLE_HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=END_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "S-1-5-32-544" in done.stdout
    assert not host.endpoint.shells.open
    assert not host.endpoint.complaints
