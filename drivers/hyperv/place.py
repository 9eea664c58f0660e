"""The host, looked at once when the driver opens: one request for all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drivers.hyperv import boot, groups, hostnet, uplinks, words
from drivers.hyperv.hostnet import Net
from drivers.hyperv.ops import Batch, Call, Operation, Refused, Row
from drivers.hyperv.pool import Pool, whole
from drivers.hyperv.wire import PORTS
from provision.driver import UplinkFacts
from provision.errors import PreflightError

_HOST = Call(
    "Get-VMHost",
    select=("ComputerName", "LogicalProcessorCount", "MemoryCapacity", "VirtualHardDiskPath"),
)
_SYSTEM = Call(
    "Get-CimInstance", {"ClassName": "Win32_OperatingSystem"},
    select=("Caption", "Version", "BuildNumber", "CSName", "LastBootUpTime", "ProductType"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """``cpus`` are the host's logical processors, ``root_cpus`` those of the root partition.

    ``root`` is the folder that guests' folders are made in, ``images`` the host's own of disks.
    """

    name: str
    version: str
    build: int
    server: bool
    cpus: int
    root_cpus: int
    memory_mib: int
    root: str
    images: str
    grouped: bool
    boot: str
    net: Net
    uplinks: tuple[UplinkFacts, ...]

    @property
    def refused(self) -> dict[str, str]:
        """Why adapters are no uplinks."""
        return {u.name: u.used_by for u in self.uplinks if u.used_by}


def find(pool: Pool, testbed: str, storage: str) -> Place:
    """Raises PreflightError where the host has no Hyper-V or we may not look at it."""
    ours = Call(
        "Get-NetTCPConnection",
        {"State": "Established"},
        select=("LocalAddress",),
        only={"LocalPort": [str(port) for port in (*PORTS.values(), pool.door.port)]}, lenient=True,
    )  # fmt: skip
    look: list[Operation] = [
        _HOST,
        _SYSTEM,
        boot.ROOT,
        boot.LOOK,
        groups.LOOK[0],
        ours,
        *hostnet.LOOK,
        *hostnet.USERS,
    ]
    try:
        rows = whole(pool.read([Batch(ops=look)])[0])
    except Refused as e:
        raise _unfit(pool.door.name, e) from e
    host, system = rows[0][0], rows[1][0]
    net = hostnet.read(rows[6:])
    users = rows[6 + len(hostnet.LOOK) :]
    used = hostnet.users(net, users, testbed, frozenset(_addresses(rows[5])))
    images = str(host["VirtualHardDiskPath"])
    root_cpus = int(rows[2][0]["NumberOfLogicalProcessors"])
    cpus = max(int(host["LogicalProcessorCount"]), root_cpus)
    return Place(
        name=str(system["CSName"] or host["ComputerName"]),
        version=f"{system['Caption']} {system['Version']}",
        build=int(system["BuildNumber"]),
        server=int(system["ProductType"]) != 1,
        cpus=cpus,
        root_cpus=root_cpus,
        memory_mib=int(host["MemoryCapacity"]) // words.MIB,
        root=storage or images,
        images=images,
        grouped=bool(rows[4]) and rows[4][0]["code"] == 0,
        boot=boot.value(str(rows[3][0]["lines"]), root_cpus, cpus),
        net=net,
        uplinks=uplinks.facts(net, used, users[0], users[1]),
    )


def _addresses(rows: Sequence[Row]) -> list[str]:
    """The host's addresses that WinRM is spoken at now, one of which is by us."""
    return [str(row["LocalAddress"]).removeprefix("::ffff:") for row in rows]


def _unfit(name: str, e: Refused) -> PreflightError:
    if e.id.startswith("CommandNotFound"):
        return PreflightError(
            f"{name}: it has no Hyper-V: {e.message}",
            hint="Install-WindowsFeature Hyper-V -IncludeManagementTools -Restart, on the host",
        )
    return PreflightError(
        f"{name}: {e}",
        hint="the user has to be one of Hyper-V Administrators and Remote Management Users: "
        "docs/hyperv.md",
    )
