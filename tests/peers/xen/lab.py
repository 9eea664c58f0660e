"""A Xen host on a test's desk: its NICs' far ends in a load generator, and the ways to both."""

from __future__ import annotations

import atexit
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Interface
from pathlib import Path

from provision.image import Image, find
from provision.state import default
from tests.peers.sshd import behind_ssh
from tests.peers.wires import HERE, cable, give_address, machine, subnets
from tests.peers.xen.machine import PV_CPU, XenHost, running

GENERATOR = "lg7"
DOM0 = """
Host 127.0.0.1
  IdentityFile {key}
  UserKnownHostsFile {known}
  StrictHostKeyChecking yes
"""


@dataclass(frozen=True)
class XenLab:
    """``programs`` is a folder to put first in PATH: its ssh knows dom0 and GENERATOR."""

    xen: XenHost
    image: Image
    programs: Path

    @property
    def uri(self) -> str:
        return f"xen+ssh://root@127.0.0.1:{self.xen.port}/system"

    def images_at(self, folder: Path) -> None:
        """Lay the guests' image where a driver with that state folder would push it."""
        self.xen.host.run("mkdir", "-p", str(folder / "testbeds"))
        self.xen.host.run("ln", "-sfn", "/store/.images", str(folder / "testbeds/.images"))


@contextmanager
def xen_lab(nics: int = 2, cpus: int = 2, cpu: str = PV_CPU) -> Iterator[XenLab]:
    """Boot it; the thread that does must outlive it."""
    image = find(default().images)
    assert image is not None, "the guest image is not built: make image"
    near = f"pvx{secrets.token_hex(3)}g"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pvxen-")))
        generator = stack.enter_context(machine("generator"))
        _, between = stack.enter_context(subnets())
        here, there = (IPv4Interface((a, between.prefixlen)) for a in [*between.hosts()][:2])
        stack.callback(HERE.run, "ip", "link", "del", near, check=False)
        cable((HERE, near), (generator, "mgmt"))
        give_address(HERE, near, here)
        give_address(generator, "mgmt", there)
        xen = stack.enter_context(running(folder, generator, image, nics, cpus, cpu))
        keys = folder / "ssh"
        keys.mkdir(mode=0o700)
        far = [(GENERATOR, generator, str(there.ip))]
        programs = stack.enter_context(behind_ssh(keys, far))
        with (keys / "config").open("a") as f:
            f.write(DOM0.format(key=xen.key, known=xen.known))
        yield XenLab(xen, image, programs)


@cache
def shared() -> XenLab:
    """One for all tests of this process: a boot costs most of what they do."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(xen_lab())
