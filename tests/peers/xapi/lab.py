"""A XenServer host on a test's desk: API and ssh at one address, NICs that are cabled, real guests.

eth0's network leads here, ethN's to lgN in the namespace of the load generator. Needs root, and
the guest image's folder for guests.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, TypeVar

from provision.host import Host
from tests.peers.scratch import scratch
from tests.peers.wires import Wires, subnets, wires
from tests.peers.xapi.core import World
from tests.peers.xapi.guests import Guests
from tests.peers.xapi.peer import Peer
from tests.peers.xapi.pool import xapi
from tests.peers.xapi.shell import shell

T = TypeVar("T")
CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class XapiLab:
    """``address`` is the host's, ``programs`` a folder to put first in PATH: its ssh knows it.

    ``wires.controller`` is this machine's own address in ``management``.
    """

    peer: Peer
    wires: Wires
    management: IPv4Network
    address: str
    programs: Path
    folder: Path

    @property
    def dom0(self) -> Host:
        """The host's namespace, without ssh."""
        return self.wires.esx


@contextmanager
def xapi_lab(
    *, pnics: int = 4, guests: bool = True, world: World | None = None, **more: Any
) -> Iterator[XapiLab]:
    """Start one; ``more`` as in ``xapi``. Nothing that runs outlives the process.

    Without ``guests`` the VMs have no inside.
    """
    world = world or World()
    with ExitStack() as stack:
        nets = stack.enter_context(subnets())
        folder = stack.enter_context(scratch("pvx-xapi-", Path("/var/tmp")))
        laid = stack.enter_context(wires(pnics, *nets))
        address = str([*nets[0].hosts()][1])
        _bridges(laid, pnics, f"{address}/{nets[0].prefixlen}")
        if guests:
            real = Guests(world, laid.esx, folder / "disks")
            world.machines = real
        inside = stack.enter_context(_inside(laid.esx))
        peer = stack.enter_context(
            xapi((address,), port=443, inside=inside, world=world, pnics=pnics, **more)
        )
        if guests:
            stack.callback(real.end)
        programs = stack.enter_context(shell(peer.dom0(), laid.esx, address, folder / "dom0"))
        yield XapiLab(peer, laid, nets[0], address, programs, folder)


def _bridges(laid: Wires, pnics: int, address: str) -> None:
    """Each NIC as dom0 calls it, on the bridge of its network, whose MAC is the NIC's for good.

    A bridge without one takes that of a guest's tap, and is lost to others when the tap goes.
    """
    lines = []
    for n in range(pnics):
        mac = f"00:1b:21:00:01:{n:02x}"  # as the pool has it
        lines += [
            f"link set vmnic{n} name eth{n} address {mac}",
            f"link add xenbr{n} address {mac} type bridge mcast_snooping 0",
            f"link set eth{n} master xenbr{n} up", f"link set xenbr{n} up",
        ]  # fmt: skip
    laid.batch([*lines, f"addr add {address} dev xenbr0"])


@contextmanager
def _inside(host: Host) -> Iterator[Callable[[Callable[[], T]], T]]:
    """Calls things within the network namespace of the host: sockets made so are of there."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter() -> None:
        with open(f"/proc/{host.prefix[2]}/ns/net", "rb") as there:  # noqa: PTH123
            if libc.setns(there.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    with ThreadPoolExecutor(1, thread_name_prefix="inside", initializer=enter) as pool:
        yield lambda work: pool.submit(work).result()
