"""dom0 behind a real ssh: read, set, read back from ``xl``, put back; restarts included."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from drivers.xenserver import dom0 as dom0s
from drivers.xenserver import restart
from drivers.xenserver.driver import XenServer
from drivers.xenserver.place import MARK
from provision.driver import Dom0, Login, Target, Tls
from provision.errors import DriverError, Mismatch, PreflightError, SpecError
from provision.resources import BOOT, IRQBALANCE, Resource, Tuning, key
from tests.contract.peer import who
from tests.peers.xapi.core import World
from tests.peers.xapi.lab import XapiLab, xapi_lab
from tests.peers.xapi.peer import Inventory
from tests.peers.xapi.wire import When
from tests.peers.xapi.xen import Xen
from tests.root import machines
from tests.xenserver.day import GUEST, QUICK, SWITCH, TAG, TESTBED, TUNED

pytestmark = machines.marks
#: as a host is installed
FRESH = "dom0_max_vcpus=1-4 dom0_mem=4096M,max:4096M network_backend=openvswitch"


@dataclass
class Bed:
    """A host, and a driver that reaches its dom0."""

    lab: XapiLab
    driver: XenServer

    @property
    def xen(self) -> Xen:
        return self.lab.peer.world.xens[self.lab.peer.hosts[0]]

    def target(self, testbed: str = TESTBED) -> Target:
        peer = self.lab.peer
        return Target(
            testbed, Path("/nowhere"), peer.uri, identity=who, tag=TAG, tls=Tls(ca=peer.ca),
            login=Login(peer.user, lambda: peer.password),
        )  # fmt: skip

    def tunings(self, asked: Dom0) -> list[Tuning]:
        uplinks = {u.name: u for u in self.driver.facts.uplinks}
        return [*self.driver.facts.tunings(asked, (uplinks["eth1"], uplinks["eth2"]))]

    def now(self, wants: list[Tuning]) -> list[Resource | None]:
        return [self.driver.read(key(want)) for want in wants]

    def files(self) -> list[str]:
        """What is in the folder where a note of ours may be."""
        return self.lab.dom0.run("ls", "/etc/xensource").split()


@pytest.fixture(scope="module")
def lab() -> Iterator[XapiLab]:
    with xapi_lab(guests=False, pnics=3, world=World(task_s=0.0)) as found:
        yield found


@pytest.fixture
def bed(lab: XapiLab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    """At the end the host is as before, but that it was restarted."""
    monkeypatch.setenv("PATH", f"{lab.programs}:{os.environ['PATH']}")
    before = lab.peer.inventory()
    found = Bed(lab, None)  # type: ignore[arg-type]
    found.driver = XenServer(found.target(), QUICK)
    assert not found.driver.shell.why_not
    yield found
    found.driver.drop(key(GUEST))
    found.driver.drop(key(SWITCH))
    found.driver.close()
    assert lasting(lab.peer.inventory()) == lasting(before)
    assert found.files() == ["network.conf"]
    assert not lab.peer.sessions()
    assert not lab.peer.tasks()


def lasting(found: Inventory) -> Inventory:
    """All but interrupts, which irqbalance places."""
    return found | {"xen": {name: has | {"irqs": None} for name, has in found["xen"].items()}}


def test_the_facts_are_what_xl_says(bed: Bed) -> None:
    facts = bed.driver.facts
    assert facts.knobs["host.boot"] == FRESH
    assert (facts.knobs["dom0.weight"], facts.knobs["dom0.cap"]) == ("256", "0")
    assert facts.knobs["dom0.pin"] == "all"
    assert facts.knobs["irqbalance"] == "running"
    assert {u.name: u.irqs for u in facts.uplinks}["eth1"] == (66, 67)
    assert not [word for word in facts.cannot if word.startswith("dom0.")]


def test_what_takes_no_restart_is_set_read_back_and_put_back(bed: Bed) -> None:
    asked = Dom0(weight=512, cap_percent=150, irq_affinity=("0", "2-3"))
    wants, boots = bed.tunings(asked), bed.xen.boots
    before = bed.now(wants)
    assert [w.name for w in wants] == [
        "dom0.weight", "dom0.cap", "irqbalance", "irq/eth1", "irq/eth2",
    ]  # fmt: skip
    for want in wants:
        bed.driver.put(want)
    assert bed.now(wants) == wants
    dom0 = bed.xen.domains[0]
    assert (dom0.weight, dom0.cap) == (512, 150)
    assert bed.xen.irqs[66] == {0}
    assert bed.xen.irqs[69] == {2, 3}
    assert not bed.xen.balancing
    for was in reversed(before):
        assert was is not None
        bed.driver.put(was)
    assert bed.xen.boots == boots


@pytest.mark.parametrize(
    ("asked", "configured", "shows"),
    [
        (
            Dom0(pin="0-1", memory_mib=2048),
            "dom0_max_vcpus=2 dom0_mem=2048M,max:2048M dom0_vcpus_pin=true "
            "network_backend=openvswitch",
            ["0", "1"],
        ),
        (
            Dom0(vcpus=1, network_backend="bridge"),
            "dom0_max_vcpus=1 dom0_mem=4096M,max:4096M network_backend=bridge",
            ["all"],
        ),
    ],
    ids=["pin and memory", "vcpus and backend"],
)
def test_what_takes_a_restart_is_in_force_after_one_and_put_back_by_one(
    bed: Bed, asked: Dom0, configured: str, shows: list[str]
) -> None:
    wants, boots = bed.tunings(asked), bed.xen.boots
    (first,) = (want for want in wants if want.name == BOOT[1])
    assert first.value == configured
    assert bed.driver.read(BOOT) == Tuning(BOOT[1], FRESH)
    for want in wants:
        bed.driver.put(want)
    assert bed.xen.boots == boots + 1
    assert bed.now(wants) == wants
    dom0 = bed.driver.dom0
    assert dom0 is not None
    lines = dom0.host.run("xl", "vcpu-list", "Domain-0").splitlines()[1:]
    assert [line.split("/")[0].split()[-1] for line in lines] == shows
    assert set(bed.files()) == {"network.conf", "provision.boot"}
    for want in wants:
        bed.driver.put(want)
    assert bed.xen.boots == boots + 1
    bed.driver.put(Tuning(BOOT[1], FRESH))
    assert bed.xen.boots == boots + 2
    assert bed.driver.read(BOOT) == Tuning(BOOT[1], FRESH)


def test_interrupts_are_put_back_though_the_restart_brought_irqbalance_back(bed: Bed) -> None:
    wants = bed.tunings(Dom0(vcpus=2, irq_affinity=("1", "0")))
    before = bed.now(wants)
    for want in wants:
        bed.driver.put(want)
    assert [bed.xen.irqs[irq] for irq in (66, 67, 68, 69)] == [{1}, {1}, {0}, {0}]
    for was in (before[0], *reversed(before[1:])):
        assert was is not None
        bed.driver.put(was)
        assert bed.driver.read(key(was)) == was
    assert bed.xen.balancing
    assert bed.driver.read(IRQBALANCE) == Tuning("irqbalance", "running")


def test_a_host_is_not_restarted_under_others(bed: Bed) -> None:
    theirs = bed.lab.peer.foreign_vm("theirs", running=True)
    boots = bed.xen.boots
    with pytest.raises(PreflightError, match="cannot be restarted: on it runs theirs"):
        bed.driver.put(Tuning(BOOT[1], FRESH.replace("1-4", "1")))
    assert bed.xen.boots == boots
    assert bed.driver.read(BOOT) == Tuning(BOOT[1], FRESH)
    bed.lab.peer.stop(theirs)
    client = bed.lab.peer.connect()
    (vbd,) = client.xenapi.VM.get_VBDs(theirs)
    disk = client.xenapi.VBD.get_VDI(vbd)
    client.xenapi.VM.destroy(theirs)
    client.xenapi.VDI.destroy(disk)
    client.xenapi.session.logout()


@pytest.mark.parametrize(
    ("call", "when"),
    [("host.reboot", "cut before"), ("host.reboot", "instead")],
)
def test_a_restart_that_is_cut_short_is_done_again(
    bed: Bed, call: str, when: When, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, or done; the same once more ends as asked, and the host is no more disabled."""
    monkeypatch.setattr(restart, "LEAVES_S", 0.5)
    want, boots = Tuning(BOOT[1], FRESH.replace("1-4", "2")), bed.xen.boots
    error = ("INTERNAL_ERROR", "by the test") if when == "instead" else ()
    trouble = bed.lab.peer.wire.arm(call, *error, when=when)
    with suppress(DriverError):
        bed.driver.put(want)
        assert when != "instead"
    assert trouble.struck
    bed.lab.peer.wire.calm()
    bed.driver.put(want)
    assert bed.driver.read(BOOT) == want
    assert bed.xen.boots == boots + 1
    assert bed.lab.peer.get("host", bed.lab.peer.hosts[0])["enabled"]
    bed.driver.put(Tuning(BOOT[1], FRESH))


def test_a_host_that_was_left_disabled_by_us_is_enabled_by_the_next_try(bed: Bed) -> None:
    """As after a kill -9 between the calls; what somebody else has disabled stays so."""
    peer, host, boots = bed.lab.peer, bed.lab.peer.hosts[0], bed.xen.boots
    other = peer.get("host", host)["other_config"]
    peer.put("host", host, enabled=False)
    assert bed.driver.read(BOOT) == Tuning(BOOT[1], FRESH)
    peer.put("host", host, other_config={**other, MARK: TESTBED})
    half_way = bed.driver.read(BOOT)
    assert half_way == Tuning(BOOT[1], f"{FRESH} {dom0s.HALF_WAY}=true")
    again = XenServer(bed.target(), QUICK)  # a host that is disabled so is fit for its testbed
    again.put(Tuning(BOOT[1], FRESH))
    again.close()
    assert peer.get("host", host)["enabled"]
    assert MARK not in peer.get("host", host)["other_config"]
    assert bed.xen.boots == boots


def test_a_host_that_does_not_come_back_is_told(bed: Bed) -> None:
    world = bed.lab.peer.world
    driver = XenServer(bed.target(), replace(QUICK, reboot_s=0.5))
    want, quick = Tuning(BOOT[1], FRESH.replace("1-4", "2")), world.boot_s
    world.boot_s = 3.0
    with pytest.raises(DriverError, match=r"is not back after 0\.5 s"):
        driver.put(want)
    world.boot_s = quick
    driver.close()
    assert bed.driver.session.back(30, lambda: bool(bed.driver.session.call("pool.get_all")))
    bed.driver.put(want)
    assert bed.driver.read(BOOT) == want
    bed.driver.put(Tuning(BOOT[1], FRESH))


def test_another_testbeds_boot_options_are_its_own(bed: Bed) -> None:
    bed.driver.put(Tuning(BOOT[1], FRESH.replace("1-4", "1")))
    other = XenServer(bed.target("rival"), QUICK)  # which may stand there, dom0 as it is
    assert not [*other.facts.tunings(Dom0(), ())]
    with pytest.raises(PreflightError, match="changed by testbed bed") as e:
        other.put(Tuning(BOOT[1], FRESH.replace("1-4", "3")))
    assert "provision down -n bed" in e.value.hint
    other.close()
    bed.driver.put(Tuning(BOOT[1], FRESH))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (Dom0(weight=70000), r"dom0\.weight: 70000: Xen takes 1 to 65535"),
        (Dom0(vcpus=1, cap_percent=150), r"dom0\.cap_percent: 150: Xen takes 0 to 100"),
        (Dom0(irq_affinity=("9",)), r"dom0\.irq_affinity: dom0 has vCPUs 0-3, not 9"),
        (Dom0(memory_mib=1 << 20), r"dom0\.memory: the host has"),
    ],
)
def test_wishes_that_cannot_be(bed: Bed, asked: Dom0, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        bed.tunings(asked)


def test_what_a_guest_got_is_compared_with_xl(bed: Bed) -> None:
    """XAPI swallows what it cannot read: the guest then runs, and otherwise than asked."""
    for want in (SWITCH, TUNED):
        bed.driver.put(want)
    told = bed.driver.evidence(key(GUEST))["scheduled"]
    assert told == "by credit; weight 512, cap 50, hard affinity 0;1-2"
    host = bed.lab.peer.hosts[0]
    bed.lab.peer.put("host", host, guest_VCPUs_params={"mask": "4,5"})
    bed.driver.put(replace(TUNED, running=False))
    with pytest.raises(
        Mismatch, match=r"vm1 was started, and Xen shows vCPU 0 on .* in place of 0"
    ):
        bed.driver.put(TUNED)
    bed.lab.peer.put("host", host, guest_VCPUs_params={})


def test_dom0s_shell_says_why_there_is_none(bed: Bed) -> None:
    shell = dom0s.shell("nobody@192.0.2.1.invalid")
    assert "nobody@192.0.2.1.invalid" in shell.why_not
    shell.close()
