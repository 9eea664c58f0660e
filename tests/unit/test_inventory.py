"""The inventory from the journal: what Ansible is told of guests and load generators."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from provision import inventory
from provision.errors import UserError
from provision.journal import Journal
from provision.resources import Guest, Vnic
from provision.spec import Spec, describe
from provision.spec import file as specfile
from provision.state import State
from provision.testbed import Link

LINKS = [
    Link(n, f"vm{n}", f"eth{n}", f"sw{n}", f"lg{n}", f"198.18.{n}.2/24", f"198.18.{n}.1/24",
         12863 + 2 * n)
    for n in (1, 2)
]  # fmt: skip
UPLINKS = "uplinks: [eth1, eth2]\nload_generator: {{ssh: '{ssh}', ports: [lg1, lg2]}}\n"


def spec_of(text: str = "") -> Spec:
    return specfile.loads(f"name: rack7\nhypervisor: fake\nguests: {{count: 2}}\n{text}", "test")


def guest(n: int) -> Guest:
    nic = Vnic(f"sw{n}", "virtio", f"52:54:00:12:34:5{n}", LINKS[n - 1].guest_address)
    management = Vnic("mgmt", "virtio", f"52:54:00:00:00:0{n}", f"198.19.7.1{n}/24")
    return Guest(f"vm{n}", 2, 512, "0f1e", management, (nic,), "none")


@pytest.fixture
def state(tmp_path: Path) -> State:
    """A journal of two guests, the first of them verified."""
    found = State(tmp_path)
    journal = Journal(found.root, "rack7")
    journal.open_testbed("fake", "", describe(spec_of()))
    for n in (1, 2):
        journal.begin(("guest", f"vm{n}"), None, guest(n))
        journal.done(("guest", f"vm{n}"))
    journal.remember(inventory.LINKS, {inventory.LINKS: [asdict(link) for link in LINKS]})
    journal.remember("vm1", {"started": "restored", "kernel": "6.1.0"})
    journal.close()
    return found


def hosts(found: dict[str, Any], group: str) -> dict[str, Any]:
    return dict(found["all"]["children"][group]["hosts"])


def test_a_guest_is_reached_by_its_management_and_measured_on_its_link(state: State) -> None:
    vm1 = hosts(inventory.build(state, spec_of()), "guests")["vm1"]
    assert vm1["ansible_host"] == "198.19.7.11"
    assert (vm1["netperf_address"], vm1["netperf_control_port"]) == ("198.18.1.2", 12865)
    assert vm1["provision_client_address"] == "198.18.1.1"
    assert (vm1["provision_uplink"], vm1["provision_switch"]) == ("eth1", "sw1")
    assert (vm1["provision_nic_model"], vm1["provision_nic_mac"]) == ("virtio", "52:54:00:12:34:51")
    assert (vm1["provision_started"], vm1["provision_kernel"]) == ("restored", "6.1.0")


def test_all_links_of_a_guest_are_told(state: State) -> None:
    """Both links are vm1's; what tells of one link is of its first."""
    journal = Journal(state.root, "rack7")
    both = [replace(link, guest="vm1", nic=n) for n, link in enumerate(LINKS, 1)]
    journal.remember(inventory.LINKS, {inventory.LINKS: [asdict(link) for link in both]})
    two = replace(guest(1), nics=(*guest(1).nics, *guest(2).nics))
    journal.begin(("guest", "vm1"), None, two)
    journal.done(("guest", "vm1"))
    journal.close()
    found = hosts(inventory.build(state, spec_of()), "guests")
    assert list(found) == ["vm1"]
    assert found["vm1"]["netperf_address"] == "198.18.1.2"
    assert found["vm1"]["netperf_endpoints"] == [
        {"address": "198.18.1.2", "port": 12865, "client": "198.18.1.1"},
        {"address": "198.18.2.2", "port": 12867, "client": "198.18.2.1"},
    ]  # fmt: skip
    second = found["vm1"]["provision_links"][1]
    assert (second["nic"], second["number"], second["uplink"]) == (2, 2, "eth2")
    assert (second["nic_mac"], second["client_address"]) == ("52:54:00:12:34:52", "198.18.2.1")


def test_a_guest_not_yet_verified_is_there_without_its_facts(state: State) -> None:
    vm2 = hosts(inventory.build(state, spec_of()), "guests")["vm2"]
    assert (vm2["provision_started"], vm2["provision_kernel"]) == ("", "")


def test_host_keys_are_known_and_nothing_is_asked(state: State) -> None:
    vm1 = hosts(inventory.build(state, spec_of()), "guests")["vm1"]
    words = vm1["ansible_ssh_common_args"]
    assert "StrictHostKeyChecking=yes" in words
    assert f"UserKnownHostsFile={state.folder('rack7')}/keys/known_hosts" in words
    assert "BatchMode=yes" in words
    assert not vm1["ansible_become"]


def test_another_login_user_becomes_root(state: State) -> None:
    spec = specfile.loads(
        "name: rack7\nhypervisor: fake\nguests: {count: 2, user: debian}\n", "test"
    )
    vm1 = hosts(inventory.build(state, spec), "guests")["vm1"]
    assert (vm1["ansible_user"], vm1["ansible_become"]) == ("debian", True)


def test_the_lab_is_its_namespaces_own_python(state: State) -> None:
    inventory.write_python(state, "rack7")
    host = hosts(inventory.build(state, spec_of()), "loadgenerators")[inventory.GENERATOR]
    assert host["ansible_connection"] == "local"
    assert host["provision_ports"] == ["lg1", "lg2"]
    python = Path(host["ansible_python_interpreter"])
    assert python.stat().st_mode & 0o111
    assert "ip netns exec pv-rack7-lg " in python.read_text()


@pytest.mark.parametrize(
    ("ssh", "told"),
    [
        ("lg.example", {"ansible_host": "lg.example"}),
        ("root@10.0.0.9", {"ansible_host": "10.0.0.9", "ansible_user": "root"}),
        ("ssh://me@lg:2222", {"ansible_host": "lg", "ansible_user": "me", "ansible_port": "2222"}),
        ("root@fd00::9", {"ansible_host": "fd00::9", "ansible_user": "root"}),
        ("ssh://[fd00::9]:22", {"ansible_host": "fd00::9", "ansible_port": "22"}),
    ],
)  # fmt: skip
def test_a_load_generator_of_ones_own(state: State, ssh: str, told: dict[str, str]) -> None:
    spec = spec_of(UPLINKS.format(ssh=ssh))
    host = hosts(inventory.build(state, spec), "loadgenerators")[inventory.GENERATOR]
    assert host.pop("ansible_python_interpreter") == "/usr/bin/python3"
    assert "ControlPersist=300" in host.pop("ansible_ssh_common_args")
    assert host == told | {"provision_ports": ["lg1", "lg2"]}


def test_the_form_of_scripts(state: State) -> None:
    found = inventory.script(inventory.build(state, spec_of()))
    assert found["guests"] == {"hosts": ["vm1", "vm2"]}
    assert found["all"] == {"children": ["guests", "loadgenerators"]}
    variables = found["_meta"]["hostvars"]
    assert {v["provision_testbed"] for v in variables.values()} == {"rack7"}
    assert json.loads(json.dumps(found)) == found


def test_one_host(state: State) -> None:
    found = inventory.build(state, spec_of())
    assert inventory.host_variables(found, "vm2")["provision_link"] == 2
    with pytest.raises(UserError, match="no host 'vm3'; there are: vm1, vm2, load-generator"):
        inventory.host_variables(found, "vm3")


def test_before_up_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'rack7' is not up"):
        inventory.build(State(tmp_path), spec_of())
