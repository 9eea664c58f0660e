"""Flags and ``--set`` over a file, and what is said of each; files that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.errors import SpecError
from provision.spec import Spec
from provision.spec import file as specfile
from provision.spec.file import Flags

FILE = """\
guests:
  count: 2
  memory: 1GiB
  nic: e1000
uplinks: [eth1, eth2]
load_generator: {ssh: root@10.0.0.9, ports: [eth1, eth2]}
"""


def problems(text: str, *sets: tuple[str, str], flags: Flags | None = None) -> list[str]:
    with pytest.raises(SpecError) as caught:
        specfile.loads(text, "f.yml", sets, flags)
    return list(caught.value.problems)


def test_no_file_is_the_defaults() -> None:
    assert specfile.load(None) == Spec()


def test_flags_go_over_the_file_and_sets_over_flags() -> None:
    flags: Flags = {"guests.count": ("--vms", 1), "guests.nic.model": ("--nic", "rtl8139")}
    sets = [("guests.memory", "2GiB"), ("guests.nic.rate", "400mbit"), ("guests.count", "2")]
    spec = specfile.loads(FILE, "f.yml", sets, flags)
    assert (spec.guests.count, spec.guests.memory_mib) == (2, 2048)
    assert (spec.guests.nic.model, spec.guests.nic.rate_mbit) == ("rtl8139", 400)
    assert spec.uplinks == ("eth1", "eth2")


def test_a_set_keeps_the_word_that_stands_for_a_section() -> None:
    spec = specfile.loads("hypervisor: kvm\nswitch: ovs\n", "f.yml", [("switch.mtu", "9000")])
    assert (spec.switch.type, spec.switch.mtu) == ("ovs", 9000)


def test_a_set_takes_any_yaml() -> None:
    sets = [("guests", "{count: 2, cpu: {pin: [0, 1]}}"), ("load_generator", ""), ("uplinks", "[]")]
    spec = specfile.loads(FILE, "f.yml", sets)
    assert spec.guests.cpu.pin == ("0", "1")
    assert spec.load_generator is None


def test_what_an_alias_shares_is_set_in_one_place_only() -> None:
    text = "uplinks: &u [a]\nload_generator: &l {ssh: h, ports: *u}\n"
    spec = specfile.loads(text, "f.yml", [("load_generator.ports", "[b]")])
    assert (spec.uplinks, spec.load_generator and spec.load_generator.ports) == (("a",), ("b",))


def test_faults_name_the_flag_or_the_set() -> None:
    sets = [
        ("guests.memroy", "2GiB"),
        ("guests.nic.rate", "fast"),
        ("guests.cpu", "{pin: x"),
        ("guest.vcpus", "2"),
        ("run.duration", ""),
    ]
    assert problems("name: 5\n", *sets, flags={"guests.count": ("--vms", "four")}) == [
        "f.yml:1:1: name: should be text, not 5; write it in quotes",
        "--vms: should be a whole number, not 'four'",
        "--set guests.memroy: no such field (did you mean 'memory'?)",
        "--set guests.nic.rate: should be a rate such as '400mbit' or '1gbit', not 'fast'",
        "--set guests.cpu: ends in the middle; a bracket or a quote is still open",
        "--set guest.vcpus: guest: no such field (did you mean 'guests'?)",
        "--set run.duration: should be a time such as '10s' or '2min', not nothing",
    ]


def test_a_fault_of_flag_and_file_together_points_at_the_flag() -> None:
    assert problems(FILE, flags={"guests.count": ("--vms", 4)}) == [
        "--vms: 4 guests want an uplink each; there are 2"
    ]
    assert problems(FILE, ("lab.rate", "1gbit")) == [
        "--set lab.rate: only the emulated lab has a rate; uplinks have that of their cables"
    ]


def test_a_fault_of_the_file_alone_points_into_the_file() -> None:
    assert problems(FILE.replace("2]}", "1]}"), ("guests.memory", "2GiB")) == [
        "f.yml:6:52: load_generator.ports.1: eth1 is in the list already"
    ]


def test_the_last_set_is_the_one_that_is_told() -> None:
    assert problems(FILE, ("guests.vcpus", "x"), ("guests.vcpus", "0")) == [
        "--set guests.vcpus: should be at least 1, not 0"
    ]


def test_a_set_of_what_a_flag_set_is_the_one_that_is_told() -> None:
    flags: Flags = {"guests.count": ("--vms", 2)}
    assert specfile.loads(FILE, "f.yml", [], flags).guests.count == 2
    assert problems(FILE, ("guests.count", "3"), flags=flags) == [
        "--set guests.count: 3 guests want an uplink each; there are 2"
    ]


def test_a_set_of_a_section_takes_the_place_of_the_fields_in_it() -> None:
    text = "guests:\n  nic:\n    rate: 1gbit\n"
    assert problems(text, ("guests.nic", "{rate: fast}")) == [
        "--set guests.nic: guests.nic.rate: should be a rate such as '400mbit' or '1gbit', "
        "not 'fast'"
    ]


def test_a_section_that_a_set_began_lacks_fields() -> None:
    assert problems("uplinks: [a]", ("load_generator.ssh", "h")) == [
        "--set load_generator.ssh: load_generator.ports: is required"
    ]


@pytest.mark.parametrize("path", ["name.x", "guests.count.x", "uplinks.0"])
def test_nothing_is_set_inside_a_plain_value(path: str) -> None:
    (said,) = problems(FILE + "name: lab\n", (path, "1"))
    assert said.startswith(f"--set {path}: there is no field {path[-1]!r} in ")


def test_a_set_does_not_mend_a_wrong_section_by_hiding_it() -> None:
    assert problems("guests: 5\n", ("guests.count", "2")) == [
        "f.yml:1:1: guests: should be a mapping, not 5",
        "--set guests.count: there is no field 'count' in 5",
    ]


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "disk.qcow2").touch()
    (tmp_path / "lab" / "p.yml").write_text("guests: {image: disk.qcow2}\n")
    monkeypatch.chdir(tmp_path)
    spec = specfile.load(Path("lab/p.yml"))
    assert spec.guests.image == str(tmp_path / "lab" / "disk.qcow2")
    assert specfile.loads(specfile.text(spec), "again") == spec


def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "disk").touch()
    spec = specfile.loads("guests: {image: ~/disk}", "f.yml")
    assert spec.guests.image == str(tmp_path / "disk")


@pytest.mark.parametrize("image", ["./dir.qcow2", f"./{'x' * 300}", '"./a\\0b"', "./none"])
def test_no_image(tmp_path: Path, image: str) -> None:
    (tmp_path / "dir.qcow2").mkdir()
    (tmp_path / "p.yml").write_text(f"guests: {{image: {image}}}\n")
    with pytest.raises(SpecError, match=r"p\.yml:1:10: guests\.image: ") as caught:
        specfile.load(tmp_path / "p.yml")
    assert len(caught.value.problems) == 1


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="No such file") as caught:
        specfile.load(tmp_path / "none.yml")
    assert caught.value.hint == "provision init"
    with pytest.raises(SpecError, match="Is a directory"):
        specfile.load(tmp_path)
    (tmp_path / "big.yml").write_bytes(b"# \n" * 70_000)
    with pytest.raises(SpecError, match="more than 64 KiB"):
        specfile.load(tmp_path / "big.yml")
