"""A guest's identity as a small disk of its own, uploaded through XenAPI's HTTP import handler.

XenAPI, "HTTP handlers": PUT /import_raw_vdi. The disk bears our mark from the moment it exists.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from urllib.parse import urlencode, urlsplit

from drivers.https import Endpoint, unreachable
from drivers.xenserver import shape
from drivers.xenserver.api import Failure, Lost, gone_is_fine
from drivers.xenserver.connect import Session
from drivers.xenserver.place import MARK
from drivers.xenserver.tasks import Tasks
from provision.errors import DriverError, ProvisionError

IMPORT = "/import_raw_vdi"
HOPS = 3
STEP = 2 << 20  # VHDs grow by so many bytes


@dataclass(frozen=True, slots=True)
class Seeds:
    """Of one testbed. All raise failures, Lost."""

    session: Session
    tasks: Tasks
    testbed: str

    def attach(self, vm: str, guest: str, storage: str, iso: bytes) -> None:
        """A new disk with the identity, read-only, on the next free device of a halted VM."""
        vdi = self.session.call("VDI.create", self._record(guest, storage, len(iso)))
        try:
            self._upload(vdi, iso)
            self.session.call("VBD.create", {
                "VM": vm, "VDI": vdi, "userdevice": self._device(vm), "bootable": False,
                "mode": "RO", "type": "Disk", "empty": False, "unpluggable": True,
                "other_config": {MARK: self.testbed, shape.SEED: guest},
                "qos_algorithm_type": "", "qos_algorithm_params": {},
            })  # fmt: skip
        except (Failure, ProvisionError):
            with suppress(Failure, Lost, ProvisionError):
                self.session.call("VDI.destroy", vdi)
            raise

    def detach(self, vm: str) -> None:
        """Remove the identity's disk of a halted VM; no error where there is none."""
        for vbd in self.session.call("VM.get_VBDs", vm):
            record = self.session.call("VBD.get_record", vbd)
            if shape.SEED in record["other_config"]:
                with gone_is_fine():
                    self.session.call("VBD.destroy", vbd)
                with gone_is_fine():
                    self.tasks.run("VDI.destroy", record["VDI"])

    def _record(self, guest: str, storage: str, size: int) -> dict[str, object]:
        return {
            "name_label": f"{self.testbed}-{guest} identity",
            "name_description": "made by provision", "SR": storage,
            "virtual_size": str(-(-size // STEP) * STEP), "type": "user", "sharable": False,
            "read_only": False, "xenstore_data": {}, "sm_config": {}, "tags": [],
            "other_config": {MARK: self.testbed, shape.GUEST: guest, shape.SEED: guest},
        }  # fmt: skip

    def _device(self, vm: str) -> str:
        free = self.session.call("VM.get_allowed_VBD_devices", vm)
        numbers = sorted(int(n) for n in free if n.isdecimal())
        if not numbers:
            raise DriverError("the template has so many disks that none is left for the identity")
        return str(numbers[0])

    def _upload(self, vdi: str, data: bytes) -> None:
        """PUT it, with its size known, so that what is cut short is seen as such."""
        task = self.session.call("task.create", "provision: identity", "")
        to, waited = self.session.to, False
        try:
            with self.session.lent() as ref:
                words = {"session_id": ref, "task_id": task, "vdi": vdi, "format": "raw"}
                path = f"{IMPORT}?{urlencode(words)}"
                for _ in range(HOPS):
                    status, reason, location = self._put(to, path, data)
                    if status not in (301, 302, 307) or not location:
                        break
                    parts = urlsplit(location)  # the host that has the storage
                    to = to.at(parts.hostname or to.host, parts.port)
            if status not in (200, 201):
                raise DriverError(f"the upload of an identity to {to.name}: {status} {reason}")
            waited = True
            self.tasks.wait(task, "the upload of an identity")
        finally:
            if not waited:
                with suppress(Failure, Lost, ProvisionError):
                    self.session.call("task.destroy", task)

    def _put(self, to: Endpoint, path: str, data: bytes) -> tuple[int, str, str]:
        link = to.connection()
        try:
            link.request("PUT", path, body=data,
                         headers={"Content-Type": "application/octet-stream"})  # fmt: skip
            reply = link.getresponse()
            reply.read()
            return reply.status, reply.reason, reply.headers.get("Location", "")
        except (OSError, HTTPException) as e:
            broke = unreachable(to, e)
            raise DriverError(
                f"the upload of an identity broke off: {broke}", hint=broke.hint
            ) from e
        finally:
            link.close()
