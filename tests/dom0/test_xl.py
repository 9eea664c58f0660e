"""What ``xl`` prints, read: output of Xen 4.17 and of others, with what is odd in it."""

from __future__ import annotations

import pytest

from drivers.dom0 import counters, xl
from provision.errors import HostError

VCPUS = """\
Name                                ID  VCPU   CPU State   Time(s) Affinity (Hard / Soft)
(XEN) livepatch: do_domctl was called
Domain-0                             0     0    0   r--      27.9  0 / all
Domain-0                             0     1    -   --p       0.0  0,2-3 / all
Windows 10 (64-bit) 2                7     0    1   -b-      67.7  all / 0-1
"""
CREDIT = """\
Cpupool Pool-0: tslice=30ms ratelimit=1000us migration-delay=0us
Name                                ID Weight  Cap
Domain-0                             0    512    0
my guest 4                          12   1024   50
"""
CREDIT2 = """\
Cpupool Pool-0: ratelimit=1000us
Name                                ID Weight  Cap
Domain-0                             0    256    0
"""
LIST = """\
Name                                        ID   Mem VCPUs\tState\tTime(s)
Domain-0                                     0   768     1     r-----      33.8
Windows 10 (64-bit) 2                        7   256     1     -b----       3.5
"""
INFO = """\
host                   : xen-node01
nr_cpus                : 16
total_memory           : 32699
free_memory            : 28229
xen_version            : 4.13.0
xen_scheduler          : credit2
xen_commandline        : placeholder dom0_mem=2048M,max:2048M dom0_max_vcpus=2 dom0_vcpus_pin no-bootscrub
cc_compile_domain      :
"""  # noqa: E501
IDLE = """\
Max possible C-state: C7

cpu id               : 0
total C-states       : 2
idle time(ms)        : 90500
C0                   : transition [                1234]
                       residency  [                 100 ms]

cpu id               : 1
total C-states       : 2
idle time(ms)        : 40000
"""
DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop
    lo:     120       2    0    0    0     0          0         0      120       2    0    0
  eth1:12345678     900    0    0    0     0          0         0  9876543     700    0    0
"""


def test_vcpus_are_read_from_the_right() -> None:
    assert xl.vcpus(VCPUS) == (
        xl.Vcpu("Domain-0", 0, 0, 0, "r--", 27.9, "0", "all"),
        xl.Vcpu("Domain-0", 0, 1, None, "--p", 0.0, "0,2-3", "all"),
        xl.Vcpu("Windows 10 (64-bit) 2", 7, 0, 1, "-b-", 67.7, "all", "0-1"),
    )


def test_shares_of_both_schedulers() -> None:
    assert xl.shares(CREDIT) == (
        xl.Share("Domain-0", 0, 512, 0),
        xl.Share("my guest 4", 12, 1024, 50),
    )
    assert xl.shares(CREDIT2) == (xl.Share("Domain-0", 0, 256, 0),)


def test_domains() -> None:
    assert [(d.name, d.domid, d.memory_mib, d.vcpus) for d in xl.domains(LIST)] == [
        ("Domain-0", 0, 768, 1), ("Windows 10 (64-bit) 2", 7, 256, 1),
    ]  # fmt: skip


def test_info_has_the_options_it_was_booted_with() -> None:
    found = xl.info(INFO)
    assert (found.version, found.scheduler, found.cpus) == ("4.13.0", "credit2", 16)
    assert (found.memory_mib, found.free_mib) == (32699, 28229)
    assert found.boot["dom0_mem"] == "2048M,max:2048M"
    assert found.boot["dom0_vcpus_pin"] == "true"
    assert found.boot["bootscrub"] == "false"


@pytest.mark.parametrize("text", ["", "xl: command not found", INFO.replace("nr_cpus", "cpus")])
def test_what_is_no_info_says_so(text: str) -> None:
    with pytest.raises(HostError, match="xl info"):
        xl.info(text)


@pytest.mark.parametrize(
    ("given", "on"),
    [("dom0_vcpus_pin", True), ("dom0_vcpus_pin=1", True), ("dom0_vcpus_pin=off", False),
     ("no-dom0_vcpus_pin", False), ("", False)],
)  # fmt: skip
def test_flags(given: str, on: bool) -> None:
    assert xl.flag(xl.options(given).get("dom0_vcpus_pin")) is on


def test_counters() -> None:
    assert counters.busy(IDLE, 100.0) == (9.5, 60.0)
    assert counters.busy("", 100.0) == ()
    assert counters.nics(DEV)["eth1"] == (12345678, 9876543, 900, 700)
