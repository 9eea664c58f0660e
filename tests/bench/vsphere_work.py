"""What ``tests.bench.vsphere`` times: a testbed up and down, by provision and by bare pyvmomi."""

from __future__ import annotations

import json
import os
import resource
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from provision.resources import Guest, Resource, Switch, Vnic

TEMPLATE = "DC0_H0_VM0"
WORKERS = ("ours", "bare")
TESTBED, TAG = "bench", "bnch"
THREADS = 16
_DASHES = "-----{} OPENSSH PRIVATE KEY-----\n"
PEM = _DASHES.format("BEGIN") + "A" * 380 + "\n" + _DASHES.format("END")  # a key's length


def wants(guests: int) -> list[Resource]:
    """Each guest with a vSwitch of its own on a vmnic of its own."""
    found: list[Resource] = []
    for n in range(1, guests + 1):
        name, octets = f"pv{TAG}b{n}", f"{n >> 8:02x}:{n & 255:02x}"
        management = Vnic("VM Network", "vmxnet3", f"00:50:56:00:{octets}", "10.7.0.9/16")
        nic = Vnic(name, "vmxnet3", f"00:50:56:01:{octets}", "198.18.1.2/24")
        found += [
            Switch(name, "vswitch", f"vmnic{n}"),
            Guest(f"vm{n}", 1, 512, TEMPLATE, management, (nic,), "esxi"),
        ]
    return found


def timed(up: Callable[[], None], down: Callable[[], None]) -> dict[str, float]:
    """What both cost."""
    moments = [time.monotonic()]
    for work in (up, down):
        work()
        moments.append(time.monotonic())
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "up_s": moments[1] - moments[0],
        "down_s": moments[2] - moments[1],
        "cpu_s": used.ru_utime + used.ru_stime,
        "rss_mib": used.ru_maxrss / 1024,
    }


def ours(guests: int, uri: str, ca: Path, user: str, password: str) -> dict[str, float]:
    """As the verbs do it: plan, journal, engine; without the wait for guests, which it has none."""
    from drivers.vsphere.driver import Vsphere
    from provision.access import Access
    from provision.driver import Login, Target, Tls, look
    from provision.engine import Engine
    from provision.journal import Journal
    from provision.plan import backwards, graph, phases, steps, undoing
    from provision.progress import Progress, quiet
    from provision.resources import key
    from provision.seed import identity
    from provision.spec import Spec  # noqa: F401 (each verb has read one before it begins)

    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="provision-bench-") as name:
        access = Access(Path(name) / "keys")
        access.public_key()
        journal = Journal(Path(name), TESTBED)
        login = Login(user, lambda: password)
        target = Target(
            TESTBED, Path(name), uri, tag=TAG, login=login, tls=Tls(ca=ca),
            identity=lambda g: identity(g, access.public_key(), access.host_key(g.name)),
        )  # fmt: skip
        asked = wants(guests)
        # each verb is a process of its own: what one has seen, the next does not know
        drivers = [Vsphere(target), Vsphere(target)]

        def engine(driver: Vsphere) -> Engine:
            return Engine(lambda _kind: driver, journal, Progress(quiet), threading.Event())

        def up() -> None:
            driver = drivers[0]
            have = look(driver, map(key, asked))
            found = steps(asked, have.__getitem__, driver.facts.change, originals={})
            outcome = engine(driver).apply(phases(found)[1], graph(asked))
            assert len(outcome.done) == 2 * guests, outcome.failed

        def down() -> None:
            driver = drivers[1]
            found = undoing(journal.originals(), driver.read)
            after = backwards(graph(journal.wants().values()))
            outcome = engine(driver).apply(found, after)
            assert len(outcome.done) == 2 * guests, outcome.failed

        try:
            return timed(up, down)
        finally:
            for driver in drivers:
                driver.close()


class Bare:
    """The same changes and no more: many threads, then one wait for all tasks of a phase."""

    def __init__(self, guests: int, uri: str, ca: Path, user: str, password: str) -> None:
        from pyVim import connect
        from pyVmomi import vim, vmodl

        self.vim: Any = vim
        pyvim: Any = connect
        self.query: Any = vmodl.query.PropertyCollector
        url = urlsplit(uri)
        stub = pyvim.SmartStubAdapter(
            host=url.hostname, port=url.port,
            sslContext=ssl.create_default_context(cafile=str(ca)),
        )  # fmt: skip
        stub.poolSize = THREADS
        self.content: Any = self.vim.ServiceInstance("ServiceInstance", stub).RetrieveContent()
        self.content.sessionManager.Login(user, password, None)
        named = self._named(self.vim.HostSystem) | self._named(self.vim.VirtualMachine)
        self.host = next(v for k, v in named.items() if k.endswith("_H0"))
        self.template = named[TEMPLATE]
        self.folder, self.snapshot = self.template.parent, self.template.snapshot.currentSnapshot
        self.cards = self._cards()
        self.pool = self.host.parent.resourcePool
        self.net = self.host.configManager.networkSystem
        self.asked = wants(guests)
        self.guests = [r for r in self.asked if isinstance(r, Guest)]
        self.switches = [r for r in self.asked if isinstance(r, Switch)]
        self.vms: list[Any] = []

    def _named(self, kind: Any) -> dict[str, Any]:
        view = self.content.viewManager.CreateContainerView(self.content.rootFolder, [kind], True)
        return {found.name: found for found in view.view}

    def _cards(self) -> list[Any]:
        from drivers.vsphere import spec as wording

        return wording.cards(self.template.config.hardware.device)

    def up(self) -> None:
        # the simulator's network system is one lock: more threads only wait for it
        for switch in self.switches:
            self._switch(switch)
        clones = self._all(self._clone, self.guests)
        self.vms = [info["info.result"] for info in self._end(clones)]
        self._end(self._all(lambda vm: vm.PowerOnVM_Task(), self.vms))

    def down(self) -> None:
        self._end(self._all(lambda vm: vm.PowerOffVM_Task(), self.vms))
        self._end(self._all(lambda vm: vm.Destroy_Task(), self.vms))
        for switch in self.switches:
            self.net.RemovePortGroup(switch.name)
            self.net.RemoveVirtualSwitch(switch.name)

    def _all(self, work: Callable[[Any], Any], things: Iterable[Any]) -> list[Any]:
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(work, things))

    def _switch(self, switch: Switch) -> None:
        from drivers.vsphere import switches as wording

        self.net.AddVirtualSwitch(switch.name, wording.switch_spec(switch))
        self.net.AddPortGroup(wording.group_spec(switch.name, switch.name))

    def _clone(self, guest: Guest) -> Any:
        from drivers.vsphere import spec as wording
        from drivers.vsphere.networks import on_port_group
        from provision.seed import identity

        vim = self.vim
        config = wording.shape(guest, 2000)
        extra = wording.marks(TESTBED, guest, "linked")
        config.extraConfig = wording.options(
            extra | wording.handed(identity(guest, "ssh-ed25519 AAAA", PEM))
        )
        vnics = (guest.management, *guest.nics)
        config.deviceChange = [wording.remove(card) for card in self.cards]
        config.deviceChange += [
            wording.add(wording.card(vnic, on_port_group(vnic.switch), -200 - n))
            for n, vnic in enumerate(vnics)
        ]
        spec = vim.vm.CloneSpec(
            location=vim.vm.RelocateSpec(
                host=self.host, pool=self.pool,
                diskMoveType="createNewChildDiskBacking",
            ),
            snapshot=self.snapshot, config=config, powerOn=False, template=False,
        )  # fmt: skip
        return self.template.CloneVM_Task(self.folder, f"{TESTBED}-{guest.name}", spec)

    def _end(self, tasks: list[Any]) -> list[dict[str, Any]]:
        """The result of each; one collector, one filter, one wait."""
        query = self.query
        collector = self.content.propertyCollector.CreatePropertyCollector()
        collector.CreateFilter(query.FilterSpec(
            objectSet=[query.ObjectSpec(obj=task) for task in tasks],
            propSet=[query.PropertySpec(type=self.vim.Task, pathSet=["info.state", "info.result",
                                                                     "info.error"])],
        ), False)  # fmt: skip
        seen: dict[str, dict[str, Any]] = {task._moId: {} for task in tasks}
        version = ""
        while any(s.get("info.state") not in ("success", "error") for s in seen.values()):
            update = collector.WaitForUpdatesEx(version, query.WaitOptions(maxWaitSeconds=30))
            if update is None:
                continue
            version = update.version
            for part in update.filterSet:
                for thing in part.objectSet:
                    seen[thing.obj._moId] |= {c.name: c.val for c in thing.changeSet}
        collector.DestroyPropertyCollector()
        failed = [s["info.error"] for s in seen.values() if s["info.state"] == "error"]
        assert not failed, failed
        return [seen[task._moId] for task in tasks]


def bare(guests: int, uri: str, ca: Path, user: str, password: str) -> dict[str, float]:
    """The floor."""
    work = Bare(guests, uri, ca, user, password)
    return timed(work.up, work.down)


if __name__ == "__main__":
    _, who, number, at, ca_file, login_as = sys.argv
    chosen = {"ours": ours, "bare": bare}[who]
    secret = os.environ["BENCH_PASSWORD"]
    print(json.dumps(chosen(int(number), at, Path(ca_file), login_as, secret)))
