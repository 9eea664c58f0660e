"""The bare host beside a testbed: what it is made of, in what order both are measured."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from provision import baseline
from provision.errors import PreflightError
from provision.measuring import take
from provision.measuring.results import BESIDE, Run
from provision.measuring.workloads import find
from provision.reporting import document, rows
from provision.spec import Spec
from provision.spec.file import loads
from tests.unit.streams import sample
from tests.unit.test_report import filled

REAL = """
name: a-name-of-20-letters
hypervisor: {type: kvm, uri: "qemu+ssh://root@hv7/system"}
guests: {count: 2, memory: 2GiB, nic: e1000, cpu: {pin: "0", emulator_pin: "1"}}
uplinks: [eth1, eth2, eth3, eth4]
load_generator: {ssh: root@lg7, ports: [p1, p2, p3, p4]}
"""


def test_it_has_the_guests_sizes_and_links_of_its_own() -> None:
    bare = baseline.of(loads(REAL, "spec"))
    assert bare.name == "a-name-of-20-l-native"
    assert (bare.hypervisor.type, bare.hypervisor.uri) == ("native", "ssh://root@hv7")
    assert (bare.guests.count, bare.guests.memory_mib, bare.guests.cpu.pin) == (2, 2048, "0")
    assert (bare.guests.nic.model, bare.guests.cpu.emulator_pin) == ("paravirtual", None)
    assert bare.uplinks == ("eth3", "eth4")
    assert bare.load_generator is not None
    assert bare.load_generator.ports == ("p3", "p4")
    assert bare.network.subnet == IPv4Network("198.18.128.0/17")


def test_in_the_emulated_lab_it_has_cables_of_its_own() -> None:
    bare = baseline.of(loads("lab: {rate: 1gbit}", "spec"))
    assert (bare.uplinks, bare.load_generator, bare.lab.rate_mbit) == ((), None, 1000)


def test_with_too_few_nics_for_both_it_has_the_guests_own() -> None:
    spec = loads(REAL, "spec").model_copy(update={"uplinks": ("eth1", "eth2", "eth3")})
    bare = baseline.of(spec)
    assert bare.uplinks == ("eth1", "eth2")
    assert bare.load_generator is not None
    assert bare.load_generator.ports == ("p1", "p2")
    assert bare.network == spec.network


def test_what_has_no_subnets_for_both_is_refused() -> None:
    network = Spec().network.model_copy(update={"prefix": 17})
    with pytest.raises(PreflightError, match="no subnets for two"):
        baseline.of(loads(REAL, "spec").model_copy(update={"network": network}))


def test_both_are_measured_in_turn_there_and_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[str] = []
    turns: list[str] = []

    def one(bench: take.Bench, workload: Any, repetition: int, *_: object) -> Any:
        told.append(f"{bench.run.testbed}{repetition}")
        return sample(workload.name, 5, repetition)

    monkeypatch.setattr(take, "_take", one)
    benches = [
        cast(
            take.Bench,
            SimpleNamespace(
                run=Run.create(tmp_path, name, {}),
                say=lambda *_: None,
                turn=lambda name=name: turns.append(name),
            ),
        )
        for name in ("bare", "kvm")
    ]
    taken = take.together(benches, [find("netperf-send")], repeat=3, redo=0)
    assert told == ["bare1", "kvm1", "kvm2", "bare2", "bare3", "kvm3"]
    assert turns == ["bare", "kvm", "kvm", "bare", "bare", "kvm"]
    assert [len(own) for own in taken] == [3, 3]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Run, Run]]:
    bare, kvm = filled(tmp_path, "bare", 2, hypervisor="native"), filled(tmp_path, "kvm")
    kvm.keep(BESIDE, {"runs": [bare.id]})
    yield bare, kvm


def test_every_report_of_the_run_has_its_ratio_to_the_bare_host(two: tuple[Run, Run]) -> None:
    bare, kvm = two
    assert [(c["run"], c["of native"]) for c in rows([kvm.path])] == [
        ("1", "1"),
        ("2", "0.50 (0.37 to 0.67)"),
    ]
    data = document([kvm.path])
    assert [run["id"] for run in data["runs"]] == [bare.id, kvm.id]
    (compared,) = data["compared"]
    assert compared["ratio"] == pytest.approx(0.5)
    assert rows([bare.path, kvm.path]) == rows([kvm.path])


def test_where_the_other_run_is_gone_this_one_stands_alone(two: tuple[Run, Run]) -> None:
    bare, kvm = two
    (bare.path / "results.jsonl").unlink()
    (row,) = rows([kvm.path])
    assert "of native" not in row
