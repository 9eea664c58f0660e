"""A dom0 of files: an ``xl`` that remembers what it is told and refuses what Xen's refuses.

What it cannot judge: whether a real Xen does what it prints. Its output has the columns of Xen
4.17's, as seen on one.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from provision.host import Host

XL = r"""#!@python@ -S
import json, sys
from pathlib import Path
file = Path("@state@")
s = json.loads(file.read_text())
words = sys.argv[1:]
rows = lambda fmt, items: print("\n".join(fmt % i for i in items))
if words == ["info"]:
    print(s["info"] % {"sched": s["sched"], "boot": " ".join(s["boot"])})
elif words == ["vcpu-list"]:
    print("Name                                ID  VCPU   CPU State   Time(s) Affinity (Hard / Soft)")
    rows("%-32s %5d %5d   %2d   r-- %9.1f  %s / all", [
        ("Domain-0", 0, n, n, 27.9 + n, pin) for n, pin in enumerate(s["pins"])])
    print("%-32s %5d %5d   %2d   -b- %9.1f  %s / all" % ("a guest of mine", 7, 0, 1, 3.5, "0-1"))
elif words == ["list"]:
    print("Name                                        ID   Mem VCPUs\tState\tTime(s)")
    rows("%-40s %5d %5d %5d     %s  %8.1f", [
        ("Domain-0", 0, s["mem"], len(s["pins"]), "r-----", 33.8),
        ("a guest of mine", 7, 256, 1, "-b----", 3.5)])
elif words == [s["command"]]:
    print("Cpupool Pool-0: tslice=30ms ratelimit=1000us migration-delay=0us")
    print("Name                                ID Weight  Cap")
    rows("%-33s %4d %6d %4d", [("Domain-0", 0, s["weight"], s["cap"]),
                               ("a guest of mine", 7, 1024, 50)])
elif words[:3] == [s["command"], "-d", "0"] and words[3] in ("-w", "-c"):
    value = int(words[4])
    if words[3] == "-w" and not 1 <= value <= 65535:
        sys.exit("Cpu weight out of range, valid values are within range from 1 to 65535")
    if words[3] == "-c" and not 0 <= value <= 100 * len(s["pins"]):
        sys.exit("Cpu cap out of range, valid range is from 0 to %d for specified number of vcpus"
                 % (100 * len(s["pins"])))
    s["weight" if words[3] == "-w" else "cap"] = value
elif words[:2] == ["vcpu-pin", "0"]:
    s["pins"][int(words[2])] = words[3]
else:
    sys.exit(f"unknown command {words}")
if not s["deaf"]:
    file.write_text(json.dumps(s))
"""  # noqa: E501
PIDOF = '#!/bin/sh\n[ "$(cat "@folder@/balancer")" = running ]\n'
SYSTEMCTL = """#!/bin/sh
case "$1 $2" in
"stop irqbalance") echo stopped > "@folder@/balancer" ;;
"start irqbalance") echo running > "@folder@/balancer" ;;
*) exit 5 ;;
esac
"""
INFO = """host                   : xendom0
release                : 6.1.0-49-amd64
nr_cpus                : 4
max_cpu_id             : 3
cpu_mhz                : 2000.000
virt_caps              : pv
total_memory           : 8191
free_memory            : 4700
xen_major              : 4
xen_version            : 4.17.7
xen_caps               : xen-3.0-x86_64 hvm-3.0-x86_32
xen_scheduler          : %(sched)s
platform_params        : virt_start=0xffff800000000000
xen_changeset          :
xen_commandline        : placeholder %(boot)s console=com1 com1=115200,8n1
xend_config_format     : 4"""
FRESH: dict[str, Any] = {
    "info": INFO, "sched": "credit", "command": "sched-credit", "weight": 256, "cap": 0,
    "pins": ["all", "all"], "mem": 2656, "deaf": False,
    "boot": ["dom0_mem=2656M,max:2656M", "dom0_max_vcpus=1-2", "no-watchdog"],
}  # fmt: skip


class Machine:
    """``host`` has no more tools than this machine and these; ``root`` holds /proc and /sys."""

    def __init__(self, folder: Path, *, irqs: int = 2) -> None:
        self.folder = folder
        self.root = str(folder)
        self._state = folder / "state.json"
        self.set(**FRESH)
        for name, text in (("xl", XL), ("pidof", PIDOF), ("systemctl", SYSTEMCTL)):
            self.tool(name, text)
        self.tool("irqbalance", "#!/bin/sh\n")
        (folder / "balancer").write_text("stopped\n")
        for n in range(irqs):
            (folder / f"sys/class/net/eth1/device/msi_irqs/{47 + n}").mkdir(parents=True)
            irq = folder / f"proc/irq/{47 + n}"
            irq.mkdir(parents=True)
            (irq / "smp_affinity_list").write_text("0-1\n")
        path = f"PATH={folder}/bin:{os.environ['PATH']}"
        self.host = Host("xs1", ("env", path))

    def tool(self, name: str, text: str) -> None:
        """A program on the host's path."""
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        for word, value in (
            ("@python@", sys.executable), ("@state@", str(self._state)),
            ("@folder@", str(self.folder)),
        ):  # fmt: skip
            text = text.replace(word, value)
        path.write_text(text)
        path.chmod(0o755)

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._state.read_text())
        return found

    def set(self, **what: Any) -> None:
        have = self.state() if self._state.exists() else {}
        self._state.write_text(json.dumps(have | what))

    def affinity(self, irq: int) -> str:
        return (self.folder / f"proc/irq/{irq}/smp_affinity_list").read_text().strip()
