"""Disks in a datastore: an image that is uploaded once, copies, children.

An image lies under its digest, whole or not at all, and is never written to. It comes as a sparse
VMDK, which CopyVirtualDisk_Task makes a disk of the host's own. vSphere API: VirtualDiskManager,
FileManager; "Accessing Datastore Files by HTTP".
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from drivers.vsphere.api import Gone, vim
from drivers.vsphere.connect import Session
from drivers.vsphere.place import Place
from drivers.vsphere.tasks import Tasks
from drivers.vsphere.vms import STORE
from provision.errors import DriverError, PreflightError

if TYPE_CHECKING:
    from provision.image import Image

BLOCK = 1 << 20
CONVERT_S = 3600
Say = Callable[[str], None]


@dataclass(slots=True)
class Disks:
    """One datastore's."""

    session: Session
    place: Place
    tasks: Tasks
    testbed: str
    _placed: dict[str, str] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def place_image(self, image: Image, say: Say) -> str:
        """The path of the image's disk in the datastore, uploaded if it is not there yet.

        Raises DriverError, PreflightError, faults; nothing half made is ever taken for whole.
        """
        with self._lock:
            if image.digest not in self._placed:
                self._placed[image.digest] = self._ensure(image, say)
            return self._placed[image.digest]

    def copy(self, source: str, path: str, say: Say = lambda _phase: None) -> None:
        """A disk of its own, in the format that the server takes for it. Raises faults."""
        manager, center = self.session.content.virtualDiskManager, self.place.datacenter
        self.tasks.run(
            lambda: manager.CopyVirtualDisk_Task(source, center, path, center, None, True), say
        )

    def folder(self, path: str) -> None:
        """No error where it is there already. Raises faults."""
        with suppress(vim.fault.FileAlreadyExists):
            self.session.content.fileManager.MakeDirectory(path, self.place.datacenter, True)

    def remove(self, path: str) -> None:
        """A file, or a folder with all in it; no error where there is none. Raises faults."""
        manager, center = self.session.content.fileManager, self.place.datacenter
        with suppress(vim.fault.FileNotFound, Gone):
            self.tasks.run(lambda: manager.DeleteDatastoreFile_Task(path, center))

    def sweep(self) -> None:
        """Remove what an upload left that was cut short; no error where there is none."""
        self.remove(self._part())

    def _part(self) -> str:
        """Where an upload of this testbed comes to lie; there is one at a time."""
        return self.place.datastore.path(STORE, f"{self.testbed}.part")

    def _ensure(self, image: Image, say: Say) -> str:
        at, short = self.place.datastore.path, image.digest[:16]
        store, part = at(STORE, short), self._part()
        disk = at(STORE, short, "disk.vmdk")
        if self._there(store, "disk.vmdk"):
            return disk
        manager, center = self.session.content.fileManager, self.place.datacenter
        self.remove(part)  # of an upload that was cut short
        self.folder(part)
        try:
            with TemporaryDirectory(prefix="provision-") as scratch:
                sent = _sparse(image, Path(scratch), say)
                self._upload(sent, f"{part.partition('] ')[2]}/sent.vmdk", say)
            say("the host makes a disk of the image")
            self.copy(f"{part}/sent.vmdk", f"{part}/disk.vmdk", lambda p: say(f"disk {p}"))
            self.remove(f"{part}/sent.vmdk")
            with suppress(vim.fault.FileAlreadyExists):
                self.tasks.run(
                    lambda: manager.MoveDatastoreFile_Task(part, center, store, center, False)
                )
        finally:
            self.remove(part)
        return disk

    def _there(self, folder: str, file: str) -> bool:
        """Whether a folder of the datastore has that file."""
        from drivers.vsphere.read import get

        browser = get(self.session, self.place.datastore.ref, "browser")["browser"]
        asked = vim.host.DatastoreBrowser.SearchSpec(matchPattern=[file])
        try:
            found = self.tasks.run(lambda: browser.SearchDatastore_Task(folder, asked))
        except (vim.fault.FileNotFound, vim.fault.InvalidDatastorePath):
            return False
        return any(f.path == file for f in found.file or ())

    def _upload(self, file: Path, path: str, say: Say) -> None:
        """PUT it, with its size known, so that what is cut short is seen as such."""
        vim.ServiceInstance("ServiceInstance", self.session).CurrentTime()  # a session that lives
        size = file.stat().st_size
        where = {"dcPath": self.place.datacenter_path, "dsName": self.place.datastore.name}
        link = self.session.to.connection()
        try:
            link.putrequest("PUT", f"/folder/{quote(path)}?{urlencode(where, quote_via=quote)}")
            for name, value in (
                ("Cookie", self.session.cookie), ("Content-Length", str(size)),
                ("Content-Type", "application/octet-stream"),
            ):  # fmt: skip
                link.putheader(name, value)
            link.endheaders()
            _pour(file, size, link.send, say)
            reply = link.getresponse()
            reply.read()
        except (OSError, HTTPException) as e:
            raise DriverError(
                f"the upload to {self.place.datastore.name} broke off: {e}",
                hint="the same command again starts it anew",
            ) from e
        finally:
            link.close()
        if reply.status not in (200, 201):
            raise DriverError(
                f"the upload to {self.place.datastore.name}: {reply.status} {reply.reason}",
                hint="provision doctor says whether a privilege or room is lacking",
            )


def _pour(file: Path, size: int, send: Callable[[bytes], Any], say: Say) -> None:
    done = told = 0
    with file.open("rb") as f:
        while block := f.read(BLOCK):
            send(block)
            done += len(block)
            if (percent := 100 * done // max(size, 1)) >= told + 10:
                told = percent
                say(f"uploading the image: {percent} % of {size >> 20} MiB")


def _sparse(image: Image, scratch: Path, say: Say) -> Path:
    """As a VMDK with only what is in use: what OpenStack's driver has sent to vSphere for years."""
    target = scratch / "sent.vmdk"
    say("converting the image")
    options = "subformat=monolithicSparse,adapter_type=lsilogic"
    argv = [
        "qemu-img", "convert", "-f", image.info["format"], "-O", "vmdk", "-o", options,
        str(image.disk), str(target),
    ]  # fmt: skip
    try:
        subprocess.run(argv, check=True, capture_output=True, text=True, timeout=CONVERT_S)
    except FileNotFoundError as e:
        raise PreflightError("qemu-img: not installed", hint="apt-get install qemu-utils") from e
    except subprocess.TimeoutExpired as e:
        raise DriverError(f"{image.disk}: qemu-img: no end after {CONVERT_S} s") from e
    except subprocess.CalledProcessError as e:
        raise DriverError(f"{image.disk}: {e.stderr.strip() or e}") from e
    return target
