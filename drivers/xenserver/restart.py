"""Restarting a host through XenAPI, and waiting until it is back as before.

Nothing is restarted while guests run there that are not ours. XenAPI: host.disable, host.reboot.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from drivers.xenserver.api import Failure, Lost, but
from drivers.xenserver.connect import Session
from drivers.xenserver.place import MARK, Place
from provision.errors import DriverError, HostError, PreflightError, Unreachable
from provision.host import Host, hang_up

LEAVES_S = 60.0  # until a host that reboots is gone
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


@dataclass(frozen=True, slots=True)
class Restart:
    """Of one host, for one testbed. All raise failures."""

    session: Session
    place: Place
    dom0: Host
    testbed: str
    reboot_s: float

    def disabled_by_us(self) -> bool:
        """Whether an earlier restart was cut short before the host was enabled again."""
        if self.session.call("host.get_enabled", self.place.host):
            return False
        return bool(self._other().get(MARK) == self.testbed)

    def refuse(self) -> None:
        """Raise PreflightError where a VM runs on the host."""
        names = sorted(
            str(vm["name_label"])
            for vm in self.session.call("VM.get_all_records").values()
            if vm["resident_on"] == self.place.host
            and not vm["is_control_domain"]
            and vm["power_state"] in ("Running", "Paused")
        )
        if names:
            raise PreflightError(
                f"{self.place.name} cannot be restarted: on it runs {', '.join(names)}",
                hint="shut down or migrate what is not of this testbed",
            )

    def __call__(self) -> None:
        """Disable, reboot, wait for its return, enable. Raises PreflightError, DriverError.

        The host is marked meanwhile, so that what we disabled is told from what somebody did.
        """
        self.refuse()
        call, host = self.session.call, self.place.host
        before = self.dom0.read(_BOOT_ID)
        if MARK not in self._other():
            call("host.add_to_other_config", host, MARK, self.testbed)
        with but("HOST_DISABLED"):
            call("host.disable", host)
        if not self._reboot(before):
            raise DriverError(
                f"{self.place.name} was restarted, and is not back after {self.reboot_s:g} s",
                hint="look at its console; then the same command again",
            )
        self.enable()

    def _reboot(self, before: str) -> bool:
        """Whether it is back in time. Where no answer came, and it does not go, it is asked again.

        A host that has booted is enabled, and refuses to be rebooted.
        """
        heard = self._ask()
        hang_up(self.dom0)
        if not heard:
            if self.session.back(LEAVES_S, lambda: self._is_back(before)):
                return True
            with suppress(HostError, Unreachable, Failure):
                if self.dom0.read(_BOOT_ID) == before:
                    self._ask()
                    hang_up(self.dom0)
        return self.session.back(self.reboot_s, lambda: self._is_back(before))

    def _ask(self) -> bool:
        """Whether it was answered; it may be gone before."""
        with suppress(Lost):
            self.session.call("host.reboot", self.place.host)
            return True
        return False

    def enable(self) -> None:
        """Guests may run there again, and nothing of us is left."""
        call, host = self.session.call, self.place.host
        if not call("host.get_enabled", host):
            call("host.enable", host)
        if MARK in self._other():
            call("host.remove_from_other_config", host, MARK)

    def _other(self) -> dict[str, str]:
        found: dict[str, str] = self.session.call("host.get_other_config", self.place.host)
        return found

    def _is_back(self, before: str) -> bool:
        """Whether dom0 has booted anew, and XAPI there takes calls again."""
        try:
            if self.dom0.read(_BOOT_ID) == before:
                return False
        except (HostError, Unreachable):
            return False
        metrics = self.session.call("host.get_metrics", self.place.host)
        if not self.session.call("host_metrics.get_live", metrics):
            return False
        with suppress(Failure):
            return bool(self.session.call("host.get_enabled", self.place.host)) or self._enabled()
        return False

    def _enabled(self) -> bool:
        self.session.call("host.enable", self.place.host)
        return True
