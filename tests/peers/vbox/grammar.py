"""Options as RTGetOpt takes them: ``--name=value`` or ``--name value``, some with a number."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from tests.peers.vbox.world import NICS, SyntaxFault, VboxError

NIC_KINDS = ("none", "null", "nat", "bridged", "intnet", "hostonly", "generic", "natnetwork")
NIC_TYPES = ("Am79C970A", "Am79C973", "82540EM", "82543GC", "82545EM", "virtio")
#: modifyvm's options that are modelled: how many values each has; those with a number end in N
MODIFY: Mapping[str, int] = {
    "--name": 1, "--groups": 1, "--description": 1, "--memory": 1, "--cpus": 1, "--ioapic": 1,
    "--cpuexecutioncap": 1, "--uartN": 2, "--uartmodeN": 2, "--nicN": 1, "--nictypeN": 1,
    "--macaddressN": 1, "--cableconnectedN": 1, "--bridgeadapterN": 1, "--hostonlyadapterN": 1,
    "--nicbandwidthgroupN": 1,
}  # fmt: skip
#: spelled with more hyphens since 7.0
NEWER = {
    "--cpu-execution-cap": "--cpuexecutioncap", "--uart-modeN": "--uartmodeN",
    "--nic-typeN": "--nictypeN", "--mac-addressN": "--macaddressN",
    "--cable-connectedN": "--cableconnectedN", "--bridge-adapterN": "--bridgeadapterN",
    "--host-only-adapterN": "--hostonlyadapterN",
    "--nic-bandwidth-groupN": "--nicbandwidthgroupN",
}  # fmt: skip
ONE_VALUE = {"file", "server", "client", "tcpserver", "tcpclient"}


def options(argv: Sequence[str], known: Mapping[str, int]) -> Iterator[tuple[str, int, list[str]]]:
    """Each option by its name, its number (0 = none) and its values."""
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise SyntaxFault(f"Invalid parameter '{word}'")
        name, equals, value = word.partition("=")
        number = 0
        if name not in known and name not in NEWER:
            found = re.fullmatch(r"(--[a-z-]+)(\d+)", name)
            name, number = (f"{found[1]}N", int(found[2])) if found else (name, 0)
        name = NEWER.get(name, name)
        if name not in known:
            raise SyntaxFault(f"Unknown option: {word}")
        values = [value] if equals else []
        while len(values) < known[name]:
            if name == "--uartmodeN" and values and values[0] not in ONE_VALUE:
                break
            if name == "--uartN" and values == ["off"]:
                break
            if not rest:
                raise SyntaxFault(f"Missing value for option '{word}'")
            values.append(rest.pop(0))
        if equals and not known[name]:
            raise SyntaxFault(f"Option '{name}' takes no value")
        yield name, number, values


def once(argv: Sequence[str], known: Mapping[str, int]) -> dict[str, str]:
    """Options that are given once each; those without a value have "on"."""
    return {name: values[0] if values else "on" for name, _, values in options(argv, known)}


def within(text: str, least: int, most: int, what: str) -> int:
    if not text.isdigit():
        raise SyntaxFault(f"Invalid value '{text}' for {what}")
    if not least <= int(text) <= most:
        raise VboxError(
            f"Invalid {what}: {text} (must be in range [{least}, {most}])", "E_INVALIDARG"
        )
    return int(text)


def on_off(text: str) -> bool:
    if text not in ("on", "off"):
        raise SyntaxFault(f"Invalid on/off value '{text}'")
    return text == "on"


def adapter(number: int) -> int:
    """The index of a NIC, from 0."""
    if not 1 <= number <= NICS:
        raise SyntaxFault(f"Invalid NIC number '{number}'")
    return number - 1


def limit(text: str) -> int:
    """Bytes a second; the letters are those of parseLimit in VBoxManageBandwidthControl.cpp."""
    found = re.fullmatch(r"(\d+)([kmgKMG]?)", text)
    if found is None:
        raise SyntaxFault("Invalid unit suffix. Valid suffixes are: k, m, g, K, M, G")
    unit = {"": 1 << 20, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30,
            "k": 125, "m": 125_000, "g": 125_000_000}  # fmt: skip
    return int(found[1]) * unit[found[2]]
