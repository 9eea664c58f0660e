"""dom0's knobs: read, set, put back, and refused, on a dom0 of files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from drivers.dom0 import boot, wishes
from drivers.dom0.knobs import Knobs
from drivers.dom0.look import State, state
from provision.driver import Dom0, UplinkFacts
from provision.errors import (
    DriverError,
    HostError,
    Mismatch,
    PreflightError,
    SpecError,
    Unsupported,
)
from provision.resources import BOOT, Tuning, key, needs
from tests.dom0.machine import Machine

ETH1 = UplinkFacts("eth1", "00:1b:21:00:00:01", irqs=(47, 48))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def knobs(machine: Machine) -> Knobs:
    return Knobs(machine.host, machine.root)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [("dom0.weight", "256", "512"), ("dom0.cap", "0", "150"), ("dom0.pin", "all", "2;3"),
     ("dom0.pin", "all", "0-1"), ("irq/eth1", "0-1", "1"), ("irq/eth1", "0-1", "47=0;48=1"),
     ("irqbalance", "stopped", "running")],
)  # fmt: skip
def test_a_knob_is_read_back_and_put_back(knobs: Knobs, name: str, before: str, after: str) -> None:
    assert knobs.read(name) == Tuning(name, before)
    knobs.put(Tuning(name, after))
    assert knobs.read(name) == Tuning(name, after)
    knobs.put(Tuning(name, before))
    assert knobs.read(name) == Tuning(name, before)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [("dom0.weight", "0", "1 to 65535"), ("dom0.weight", "70000", "1 to 65535"),
     ("dom0.cap", "201", "0 to 200"), ("dom0.pin", "9", "no CPU 9"),
     ("dom0.pin", "1,0", "no CPU list"), ("irq/eth1", "1,0", "is written '0-1'"),
     ("irqbalance", "off", "running or stopped")],
)  # fmt: skip
def test_what_xen_would_refuse_changes_nothing(
    machine: Machine, knobs: Knobs, name: str, value: str, says: str
) -> None:
    before = machine.state()
    with pytest.raises(Unsupported, match=says):
        knobs.put(Tuning(name, value))
    assert machine.state() == before
    assert machine.affinity(47) == "0-1"


def test_pins_of_another_number_of_vcpus(knobs: Knobs) -> None:
    with pytest.raises(DriverError, match="3 CPU lists for dom0's 2 vCPUs"):
        knobs.put(Tuning("dom0.pin", "0;1;2"))


def test_interrupts_are_placed_though_a_restart_brought_irqbalance_back(
    machine: Machine, knobs: Knobs
) -> None:
    knobs.put(Tuning("irqbalance", "running"))
    with pytest.raises(Unsupported):
        knobs.put(Tuning("irq/eth1", "1,0"))
    assert knobs.balancer() == "running"
    knobs.put(Tuning("irq/eth1", "1"))
    assert machine.affinity(47) == "1"
    assert knobs.balancer() == "stopped"


def test_an_interrupt_that_came_since_keeps_its_place(machine: Machine, knobs: Knobs) -> None:
    knobs.put(Tuning("irq/eth1", "47=1;99=0"))
    assert (machine.affinity(47), machine.affinity(48)) == ("1", "0-1")


def test_all_that_is_in_force_is_told(machine: Machine, knobs: Knobs) -> None:
    knobs.put(Tuning("irq/eth1", "47=0;48=1"))
    assert knobs.served(["eth1", "eth9"]) == {"irq/eth1": "47=0;48=1"}


def test_a_nic_without_interrupts_has_no_such_knob(knobs: Knobs) -> None:
    assert knobs.read("irq/eth9") is None
    with pytest.raises(PreflightError, match="eth9 has no interrupts"):
        knobs.put(Tuning("irq/eth9", "0"))


def test_another_scheduler_has_no_weights(machine: Machine, knobs: Knobs) -> None:
    machine.set(sched="null")
    assert knobs.read("dom0.weight") is None
    with pytest.raises(Unsupported, match="sched=credit"):
        knobs.put(Tuning("dom0.weight", "512"))


def test_credit2_has_a_command_of_its_own(machine: Machine, knobs: Knobs) -> None:
    machine.set(sched="credit2", command="sched-credit2")
    knobs.put(Tuning("dom0.weight", "512"))
    assert machine.state()["weight"] == 512


def test_no_xen_is_said(machine: Machine, knobs: Knobs) -> None:
    machine.tool("xl", "#!/bin/sh\necho 'xencall: error: Could not obtain handle' >&2; exit 1\n")
    with pytest.raises(HostError, match=r"Could not obtain handle.*dom0"):
        knobs.read("dom0.weight")


class Options:
    """Boot options of a host in two dicts; ``restart`` makes them what it runs with."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.first = self.next = boot.of_xen(state(machine.host))
        self.restarts = 0

    def configured(self) -> Mapping[str, str]:
        return self.next

    def base(self) -> Mapping[str, str]:
        return self.first

    def configure(self, want: Mapping[str, str]) -> None:
        self.next = dict(want)

    def in_force(self, now: State | None = None) -> Mapping[str, str]:
        return boot.of_xen(state(self.machine.host))

    def restart(self) -> None:
        self.restarts += 1
        words = [n if v == "true" else f"{n}={v}" for n, v in self.next.items()]
        count = int(self.next["dom0_max_vcpus"].rpartition("-")[2])
        pinned = "dom0_vcpus_pin" in self.next
        pins = [str(n) if pinned else "all" for n in range(count)]
        self.machine.set(boot=words, pins=pins, weight=256, cap=0)


def test_boot_options_are_set_booted_and_put_back(machine: Machine) -> None:
    options = Options(machine)
    knob = boot.Boot(machine.host, options)
    before = knob.read()
    assert before == Tuning(BOOT[1], "dom0_max_vcpus=1-2 dom0_mem=2656M,max:2656M")
    dom0 = Dom0(vcpus=1, pin="0", memory_mib=1024)
    (want,) = wishes.tunings(dom0, (), state(machine.host), options.base(), "")
    assert want.value == "dom0_max_vcpus=1 dom0_mem=1024M,max:1024M dom0_vcpus_pin=true"
    knob.put(want, options.restart)
    assert knob.read() == want
    knob.put(want, options.restart)
    assert options.restarts == 1
    knob.put(before, options.restart)
    assert knob.read() == before


def test_what_was_set_and_not_booted_is_a_difference(machine: Machine) -> None:
    options = Options(machine)
    knob = boot.Boot(machine.host, options)
    options.next = options.next | {"dom0_max_vcpus": "1"}
    assert "dom0_max_vcpus=1-2 dom0_max_vcpus.next=1 " in knob.read().value
    options.first = options.next
    with pytest.raises(PreflightError, match="never booted"):
        knob.put(Tuning(BOOT[1], "dom0_max_vcpus=2"), options.restart)
    assert options.restarts == 0


@pytest.mark.parametrize("pins", [["all"], ["0", "1"]])
def test_options_without_effect_are_found_out(machine: Machine, pins: list[str]) -> None:
    options = Options(machine)

    def restart() -> None:
        options.restart()
        machine.set(pins=pins)

    with pytest.raises(Mismatch, match="dom0"):
        want = Tuning(BOOT[1], "dom0_max_vcpus=1 dom0_vcpus_pin=true")
        boot.Boot(machine.host, options).put(want, restart)


def test_a_host_that_ignores_its_options_is_found_out(machine: Machine) -> None:
    options = Options(machine)
    with pytest.raises(Mismatch, match="it runs with dom0_max_vcpus=1-2"):
        want = Tuning(BOOT[1], "dom0_max_vcpus=1")
        boot.Boot(machine.host, options).put(want, lambda: None)


def test_wishes_are_tunings(machine: Machine) -> None:
    dom0 = Dom0(pin="2-3", weight=512, cap_percent=50, irq_affinity=("1",))
    now = state(machine.host)
    found = list(wishes.tunings(dom0, (ETH1,), now, boot.of_xen(now), "running"))
    assert found == [
        Tuning(BOOT[1], "dom0_max_vcpus=1-2 dom0_mem=2656M,max:2656M"),
        Tuning("dom0.pin", "2;3"), Tuning("dom0.weight", "512"), Tuning("dom0.cap", "50"),
        Tuning("irqbalance", "stopped"), Tuning("irq/eth1", "1"),
    ]  # fmt: skip
    assert not list(wishes.tunings(Dom0(), (ETH1,), now, boot.of_xen(now), "running"))


def test_interrupts_are_moved_after_irqbalance_stopped() -> None:
    from provision.resources import Among

    stop, move = Tuning("irqbalance", "stopped"), Tuning("irq/eth1", "1")
    assert key(stop) in needs(move, Among.of({key(t): t for t in (stop, move)}))


@pytest.mark.parametrize(
    ("dom0", "says"),
    [(Dom0(weight=70000), "dom0.weight: 70000: Xen takes 1 to 65535"),
     (Dom0(cap_percent=201), "dom0.cap_percent: 201: Xen takes 0 to 200"),
     (Dom0(vcpus=1, cap_percent=101), "0 to 100"),
     (Dom0(irq_affinity=("0-3",)), "dom0 has vCPUs 0-1, not 2"),
     (Dom0(memory_mib=9000), "dom0.memory: the host has 8191 MiB")],
)  # fmt: skip
def test_wishes_that_cannot_be(machine: Machine, dom0: Dom0, says: str) -> None:
    now = state(machine.host)
    with pytest.raises(SpecError, match=says):
        list(wishes.tunings(dom0, (ETH1,), now, boot.of_xen(now), ""))
