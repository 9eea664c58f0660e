"""``showvminfo``, as VBoxManageInfo.cpp prints it: for machines, and for people."""

from __future__ import annotations

from collections.abc import Iterator

from tests.peers.vbox.world import Machine, Nic


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def machinereadable(m: Machine) -> str:
    return "".join(f"{line}\n" for line in _lines(m))


def _lines(m: Machine) -> Iterator[str]:
    hw = m.hardware
    yield f"name={quoted(m.name)}"
    yield 'encryption="disabled"'
    yield f"groups={quoted(','.join(m.groups))}"
    yield 'ostype="Debian (64-bit)"'
    yield f'UUID="{m.uuid}"'
    yield f"CfgFile={quoted(str(m.settings))}"
    yield f"SnapFldr={quoted(str(m.folder / 'Snapshots'))}"
    yield f"memory={hw.memory}"
    yield f"cpuexecutioncap={hw.cap}"
    yield 'chipset="piix3"'
    yield f"cpus={hw.cpus}"
    yield f'ioapic="{"on" if hw.ioapic else "off"}"'
    yield f'VMState="{m.state}"'
    yield 'VMStateChangeTime="2026-01-01T00:00:00.000000000"'
    for n, (name, ports) in enumerate(hw.controllers.items()):
        yield f"storagecontrollername{n}={quoted(name)}"
        yield f'storagecontrollerportcount{n}="{ports}"'
    for name, ports in hw.controllers.items():
        for port in range(ports):
            for device in range(2 if name == "IDE" else 1):
                medium = hw.media.get((name, port, device), "none")
                yield f'"{name}-{port}-{device}"={quoted(medium)}'
                if medium not in ("none", "emptydrive"):
                    yield f'"{name}-ImageUUID-{port}-{device}"="00000000"'
                    yield f'"{name}-nonrotational-{port}-{device}"="off"'
    for n, nic in enumerate(hw.nics, 1):
        yield from _nic(n, nic)
    if hw.uart[0]:
        mode, path = hw.uart
        yield 'uart1="0x03f8,4"'
        yield f'uartmode1="{mode},{path}"' if path else f'uartmode1="{mode}"'
    else:
        yield 'uart1="off"'
    yield " rec_screen0"  # a heading, among the pairs, in some versions
    yield "rec_screen_enabled=off"
    for n, (name, (kind, bytes_s)) in enumerate(hw.limits.items()):
        yield f"BandwidthGroup{n}={quoted(name)},{kind.capitalize()},{bytes_s}"
    prefix = ""
    for snapshot in m.snapshots:
        yield f"SnapshotName{prefix}={quoted(snapshot.name)}"
        yield f'SnapshotUUID{prefix}="{snapshot.uuid}"'
        if snapshot is m.current:
            yield f"CurrentSnapshotName={quoted(snapshot.name)}"
            yield f'CurrentSnapshotUUID="{snapshot.uuid}"'
            yield f'CurrentSnapshotNode="SnapshotName{prefix}"'
        prefix += "-1"
    yield "GuestMemoryBalloon=0"


def _nic(n: int, nic: Nic) -> Iterator[str]:
    if nic.kind == "none":
        yield f'nic{n}="none"'
        return
    if nic.kind == "bridged":
        yield f'bridgeadapter{n}="{nic.bridge}"'
    elif nic.kind == "hostonly":
        yield f'hostonlyadapter{n}="{nic.hostonly}"'
    yield f'macaddress{n}="{nic.mac}"'
    yield f'cableconnected{n}="{"on" if nic.connected else "off"}"'
    yield f'nic{n}="{nic.kind}"'
    yield f'nictype{n}="{nic.type}"'
    yield f'nicspeed{n}="0"'


def human(m: Machine) -> str:
    lines = [f"Name:                        {m.name}", f"UUID:                        {m.uuid}"]
    for n, nic in enumerate(m.hardware.nics, 1):
        if nic.kind == "none":
            lines.append(f"NIC {n}:                       disabled")
            continue
        on = {"bridged": f"Bridged Interface '{nic.bridge}'"}
        on["hostonly"] = f"Host-only Interface '{nic.hostonly}'"
        at = on.get(nic.kind, nic.kind)
        lines.append(
            f"NIC {n}:                       MAC: {nic.mac}, Attachment: {at}, Cable connected: "
            f"{'on' if nic.connected else 'off'}, Trace: off (file: none), Type: {nic.type}, "
            "Reported speed: 0 Mbps, Boot priority: 0, Promisc Policy: deny, Bandwidth group: "
            f"{nic.limit}"
        )
    return "".join(f"{line}\n" for line in lines)
