"""The driver in dom0 itself, at xen:///system: its code is sent there and run by dom0's Python."""

from __future__ import annotations

import io
import tarfile
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.peers.xen.lab import XenLab

ROOT = Path(__file__).parents[3]
AT = "/root/inside"
#: as pip would install it there: dom0 has this Python too, and Debian's pydantic is of another time
NEEDED = ("annotated_types", "pydantic", "pydantic_core", "typing_extensions", "typing_inspection")
#: argv: the image's digest, and its files' names
PROGRAM = """
import sys
from dataclasses import replace
from pathlib import Path

from drivers.xen.driver import Xen
from provision.driver import Target
from provision.image import Image
from provision.resources import Guest, Switch, Vnic, key

digest, disk, kernel, initrd = sys.argv[1:]
folder = Path("/store/.images", digest[:16])
files = (folder / name for name in (disk, kernel, initrd))
image = Image(digest, folder, *files, "", {"format": "qcow2"})
driver = Xen(Target("inside", Path("/var/lib/provision/testbeds/inside"), image=image))
assert driver.host.local
bridge = Switch("pvinsideb", uplink="eth2")
nic = Vnic(bridge.name, "netfront", "00:16:3e:00:00:77", "198.18.9.2/24")
first = replace(nic, mac="00:16:3e:00:00:78")
guest = Guest("vm1", 1, 192, digest, first, (nic,), "pv", pins=("1",))
try:
    for want, word in (
        (bridge, ""), (guest, "made"), (replace(guest, weight=700, cap_percent=40), "changed"),
    ):
        driver.put(want)
        assert driver.read(key(want)) == want, driver.read(key(want))
        print(word)
    driver.checkpoint(key(guest))
    driver.revert(key(guest))
    assert driver.read(key(want)) == want, driver.read(key(want))
    print("kept")
finally:
    driver.drop(key(guest))
    driver.drop(key(bridge))
assert not [*driver.owned()]
driver.close()
print("gone")
"""


def in_dom0(lab: XenLab) -> str:
    """What the program there printed. Raises HostError where it failed."""
    host, image = lab.xen.host, lab.image
    assert image.kernel is not None
    assert image.initrd is not None
    with TemporaryDirectory() as folder:
        packed = Path(folder) / "code.tar"
        with tarfile.open(packed, "w") as tar:
            for package in ("provision", "drivers"):
                for file in sorted((ROOT / package).rglob("*.py")):
                    tar.add(file, file.relative_to(ROOT))
            for package in NEEDED:
                found = find_spec(package)
                assert found is not None
                assert found.origin is not None
                file = Path(found.origin)
                where = file.parent if found.submodule_search_locations else file
                tar.add(where, where.name)
            data = PROGRAM.encode()
            info = tarfile.TarInfo("program.py")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        host.run("mkdir", "-p", AT)
        host.push(packed, f"{AT}/code.tar")
    host.run("tar", "-C", AT, "-xf", f"{AT}/code.tar")
    words = (image.digest, image.disk.name, image.kernel.name, image.initrd.name)
    try:
        return host.run(
            "env", f"PYTHONPATH={AT}", "python3", f"{AT}/program.py", *words, timeout_s=900
        )
    finally:
        host.run("rm", "-rf", AT, "/var/lib/provision/testbeds/inside")
