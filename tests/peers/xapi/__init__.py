"""A XenServer or XCP-ng pool for tests, over the real XML-RPC wire to the real client package.

    with xapi() as peer:                    # or xapi(("127.0.0.1", "127.0.0.2")): master, slave
        driver = ...(peer.uri, peer.user, peer.password, peer.ca)
        before = peer.inventory()
        ...
        assert peer.inventory() == before

What it enforces: XenAPI's published data model (``model.json``: methods, arity, wire types, enums,
mandatory fields, what is read-only, removed messages, error codes with their parameters), and by
hand what xapi's sources say beyond it: operations by power state, back references, references that
end with a revert, the space of SRs, host and dom0. What is not modelled answers NOT_IMPLEMENTED and
is complained of; ``xapi`` fails a test that ends with a complaint.

What VMs really get is in ``peer.world.xens`` and shown by ``peer.dom0().run("xl", …)``: a mask,
weight or cap that XenAPI swallows is not there.

The pool: hosts xs1, … with eth0 (management, network xenbr0) to eth4; "Local storage" (ext, the
default SR); templates "debian12" (HVM, a disk, an empty CD drive, a VIF on xenbr0), "debian12-pv"
(a disk), and the default templates "Other install media" (HVM, no disk) and "Debian Bookworm 12"
(whose disks VM.provision makes).

Who a guest is: ``provision.seed.document``, either at the start of a disk that is attached to the
VM (upload: ``PUT /import_raw_vdi?session_id=…&vdi=…&format=raw``), such as ``provision.seed.iso``,
or as the value of one ``vm-data/…`` key of ``xenstore_data`` (4096 bytes at most). Its agent then
reports the addresses that stand there, unless ``vm-data/disable_pf`` is "1" (HVM): no platform
device, no agent, and the emulated NICs are the guest's.

With root, ``tests.peers.xapi.lab.xapi_lab`` is such a host on a test's desk: API (port 443) and
dom0's sshd at one address, NICs that are cabled, guests that are namespaces. ``lab.programs`` goes
first in PATH: its ``ssh`` knows the host.

``peer.wire`` notes all calls, and lets things befall them: ``peer.wire.arm("VM.start",
"VM_BAD_POWER_STATE", ref, "halted", "running")``, ``arm("VIF.create", when="cut after")``.
"""

from tests.peers.xapi.peer import Peer
from tests.peers.xapi.pool import xapi
from tests.peers.xapi.wire import Call, Trouble

__all__ = ["Call", "Peer", "Trouble", "xapi"]
