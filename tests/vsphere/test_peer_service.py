"""The peer as a service: privileges, TLS, sessions, delays, and who plays the host."""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from contextlib import suppress
from typing import Any

import pytest

from tests.peers import oracle
from tests.peers.oracle import all_of, bond, done, host
from tests.peers.vcsim import pyvim, vcsim, vim

Fault = vim.fault


def test_privileges_may_lack() -> None:
    with vcsim(lacking=("Network.Assign", "Host.Config.Network@HostSystem")) as peer:
        si = peer.connect()
        content = si.RetrieveContent()
        asked = ["Network.Assign", "Host.Config.Network", "VirtualMachine.State.CreateSnapshot"]
        key = content.sessionManager.currentSession.key
        manager = content.authorizationManager

        def granted(entity: Any) -> list[bool]:
            (said,) = manager.HasPrivilegeOnEntities([entity], key, asked)
            return [p.isGranted for p in said.privAvailability]

        assert granted(host(si)) == [False, False, True]
        assert granted(content.rootFolder) == [False, True, True]
        with pytest.raises(Fault.NoPermission) as refused:
            host(si).configManager.networkSystem.AddVirtualSwitch("pv1", bond())
        assert refused.value.privilegeId == "Host.Config.Network"
        assert refused.value.object == host(si)


def test_a_call_without_its_privilege_is_refused() -> None:
    lacking = ("VirtualMachine.Interact.PowerOn", "VirtualMachine.Inventory.Create@Folder")
    with vcsim(lacking=lacking, vms=1) as peer:
        si = peer.connect()
        with pytest.raises(Fault.NoPermission):
            oracle.create(si, "one")
        (vm,) = all_of(si, vim.VirtualMachine).values()
        done(vm.PowerOffVM_Task())
        with pytest.raises(Fault.NoPermission):
            vm.PowerOnVM_Task()
        assert vm.runtime.powerState == "poweredOff"


def test_a_newer_api_may_be_offered() -> None:
    with vcsim(api="8.0.2.0") as peer:
        si = peer.connect()
        assert si.RetrieveContent().about.apiVersion == "8.0.2.0"
        vm = oracle.create(si, "one", [("vmxnet3", "VM Network", "")], with_disk=True)
        done(vm.PowerOnVM_Task())
        assert vm.runtime.powerState == "poweredOn"


def test_tls_is_by_the_authority_given() -> None:
    with vcsim() as peer, pytest.raises(ssl.SSLCertVerificationError):
        pyvim.SmartConnect(
            host="127.0.0.1", port=int(peer.uri.rsplit(":", 1)[1].strip("/")), user="x", pwd="y",
            sslContext=ssl.create_default_context(),
        )  # fmt: skip


def test_a_session_that_is_idle_ends() -> None:
    with vcsim(idle_s=0.2) as peer:
        si = peer.connect()
        end = time.monotonic() + 10
        with pytest.raises(vim.fault.NotAuthenticated):
            while time.monotonic() < end:
                time.sleep(0.5)  # that nothing is asked meanwhile is what is tested
                si.CurrentTime()


def test_a_method_may_be_slow() -> None:
    with vcsim(delay_ms={"AddVirtualSwitch": 300}) as peer:
        net = host(peer.connect()).configManager.networkSystem
        began = time.monotonic()
        net.AddVirtualSwitch("pv1", bond())
        assert time.monotonic() - began >= 0.3
        with pytest.raises(Fault.NotFound):
            net.RemoveVirtualSwitch("pv2")


def test_it_ends_while_a_client_waits() -> None:
    with vcsim(delay_ms={"CurrentTime": 60_000}) as peer:
        si = peer.connect()

        def ask() -> None:
            with suppress(OSError, http.client.HTTPException):
                si.CurrentTime()

        waiting = threading.Thread(target=ask, daemon=True)
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        began = time.monotonic()
    assert time.monotonic() - began < 4


def test_a_reader_plays_the_host() -> None:
    with vcsim(agent=True) as peer:
        si = peer.connect()
        vm = oracle.create(si, "one", [("e1000e", "VM Network", "00:50:56:00:00:01")], {"a": "b"})
        task = vm.PowerOnVM_Task
        result: list[Any] = []
        caller = threading.Thread(target=lambda: result.append(task().info))
        caller.start()
        event = peer.events.get(timeout=10)
        assert event is not None
        assert (event["event"], event["name"], event["extra"]["a"]) == ("powerOn", "one", "b")
        assert event["nics"] == [
            {"model": "VirtualE1000e", "mac": "00:50:56:00:00:01", "network": "VM Network",
             "connected": True},
        ]  # fmt: skip
        assert not result
        peer.answer(event["number"], "no memory left")
        caller.join(10)
        assert result[0].error.reason == "no memory left"
        assert vm.runtime.powerState == "poweredOff"


def test_a_guest_reports_until_it_is_another() -> None:
    with vcsim(agent=True) as peer:
        si = peer.connect()
        mac = "00:50:56:00:00:01"
        vm = oracle.create(si, "one", [("e1000e", "VM Network", mac)])

        def start(method: Any) -> int:
            caller = threading.Thread(target=method)
            caller.start()
            while (event := peer.events.get(timeout=10)) is not None and "number" not in event:
                pass
            assert event is not None
            peer.answer(event["number"], "")
            caller.join(10)
            return int(event["number"])

        first = start(vm.PowerOnVM_Task)
        second = start(vm.ResetVM_Task)
        report = {"vm": vm._moId, "host": "vm1", "nics": {mac: ["192.0.2.7"]}}
        content = si.RetrieveContent()
        collector = content.propertyCollector
        kinds = vim.PropertyCollector
        collector.CreateFilter(
            kinds.FilterSpec(
                objectSet=[kinds.ObjectSpec(obj=vm)],
                propSet=[kinds.PropertySpec(type=vim.VirtualMachine, pathSet=["guest.ipAddress"])],
            ),
            False,
        )
        version = collector.WaitForUpdatesEx("", None).version
        peer.tools(report | {"number": first, "nics": {mac: ["192.0.2.6"]}})
        peer.tools(report | {"number": second})
        options = kinds.WaitOptions(maxWaitSeconds=10)
        update = collector.WaitForUpdatesEx(version, options)
        (change,) = update.filterSet[0].objectSet[0].changeSet
        assert change.val == "192.0.2.7"
        assert vm.guest.net[0].ipAddress == ["192.0.2.7"]
        assert (vm.guest.hostName, vm.guest.toolsRunningStatus) == ("vm1", "guestToolsRunning")
        peer.tools(report | {"number": second, "down": True})
        while vm.guest.toolsRunningStatus == "guestToolsRunning":
            assert collector.WaitForUpdatesEx(update.version, options)
        assert vm.runtime.powerState == "poweredOff"
