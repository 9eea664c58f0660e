"""``xl`` in a dom0: info, list, vcpu-list, vcpu-pin, vcpu-set, sched-credit and sched-credit2.

Output, messages and exit codes as in Xen's tools/xl: 2 for an option or a count of arguments that
a command does not know, 1 for all else that fails.
"""

from __future__ import annotations

import getopt
import re
from collections.abc import Callable, Mapping, Sequence

from tests.peers.xapi.xen import Domain, Xen

Result = tuple[int, str, str]
MAX_WEIGHT = 65535


class Quit(Exception):
    """The command ends with that exit code and that message."""

    def __init__(self, code: int, message: str, out: str = "") -> None:
        self.code, self.message, self.out = code, message, out
        super().__init__(message)


def run(xen: Xen, words: Sequence[str]) -> Result:
    commands: Mapping[str, Callable[[Xen, Sequence[str]], str]] = {
        "info": _info, "list": _list, "vcpu-list": _vcpu_list, "vcpu-pin": _vcpu_pin,
        "vcpu-set": _vcpu_set, "sched-credit": lambda x, w: _sched(x, w, "credit"),
        "sched-credit2": lambda x, w: _sched(x, w, "credit2"),
    }  # fmt: skip
    if not words:
        return 1, "Usage xl [-vfNtT] <subcommand> [args]\n", ""
    if words[0] not in commands:
        return 1, "", "command not implemented\n"
    try:
        return 0, commands[words[0]](xen, words[1:]), ""
    except Quit as e:
        return e.code, e.out, f"{e.message}\n"


def _options(
    command: str, words: Sequence[str], short: str, long: Sequence[str], least: int = 0
) -> tuple[dict[str, str], list[str]]:
    """As getopt has them, by their short names; raises Quit where the command does not know one."""
    try:
        found, rest = getopt.gnu_getopt([*words], short, [*long])
    except getopt.GetoptError as e:
        raise Quit(2, f"option `{e.opt[:1]}' not supported.") from None
    if len(rest) < least:
        s = "s" if least > 1 else ""
        raise Quit(2, f"'xl {command}' requires at least {least} argument{s}.\n")
    return {name.lstrip("-")[0]: text for name, text in found}, rest


def _domain(xen: Xen, word: str) -> Domain:
    if (found := xen.find(word)) is None:
        raise Quit(1, f"{word} is an invalid domain identifier (rc=-6)")
    return found


def _info(xen: Xen, words: Sequence[str]) -> str:
    options, rest = _options("info", words, "n", ("numa",))
    assert not options, "xl info -n is not here"
    pairs = {
        "host": xen.name, "release": "4.19.0+1", "version": "#1 SMP", "machine": "x86_64",
        "nr_cpus": xen.cpus, "max_cpu_id": xen.cpus - 1, "nr_nodes": 1,
        "cores_per_socket": xen.cpus, "threads_per_core": 1, "cpu_mhz": "2400.000",
        "hw_caps": "b7ebfbff:77bef3ff:2c100800:00000121:00000001:001cbfbb:00000000:00000000",
        "virt_caps": "pv hvm hvm_directio pv_directio hap shadow iommu_hap_pt_share",
        "total_memory": xen.memory_mib, "free_memory": xen.free_mib, "sharing_freed_memory": 0,
        "sharing_used_memory": 0, "outstanding_claims": 0, "free_cpus": 0, "xen_major": 4,
        "xen_minor": 17, "xen_extra": ".5", "xen_version": "4.17.5",
        "xen_caps": "xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64 ",
        "xen_scheduler": xen.scheduler, "xen_pagesize": 4096,
        "platform_params": "virt_start=0xffff800000000000", "xen_changeset": "",
        "xen_commandline": " ".join(xen.running), "cc_compiler": "gcc (GCC) 11.2.1",
        "cc_compile_by": "mockbuild", "cc_compile_domain": "[unknown]",
        "cc_compile_date": "Thu Jun 20 12:00:00 CEST 2024",
        "build_id": "9a5e5e6b6e0c5a8f9d3d0a1f7f3d3e1c", "xend_config_format": 4,
    }  # fmt: skip
    if rest:  # whatever begins with that, without its name
        return "".join(f"{v}\n" for k, v in pairs.items() if k.startswith(rest[0]))
    return "".join(f"{name:<23}: {text}\n" for name, text in pairs.items())


def _list(xen: Xen, words: Sequence[str]) -> str:
    _, rest = _options("list", words, "", ())
    domains = [_domain(xen, word) for word in rest] or [*xen.domains.values()]
    lines = ["Name                                        ID   Mem VCPUs\tState\tTime(s)"]
    for d in domains:
        state = "--p---" if d.paused else ("r-----" if d.domid == 0 else "-b----")
        lines.append(
            f"{d.name:<40} {d.domid:5d} {d.memory_mib:5d} {d.online or d.vcpus:5d}     "
            f"{state}  {1.0:8.1f}"
        )
    return "\n".join(lines) + "\n"


def _vcpu_list(xen: Xen, words: Sequence[str]) -> str:
    _, rest = _options("vcpu-list", words, "", ())
    domains = [_domain(xen, word) for word in rest] or [*xen.domains.values()]
    head = ("Name", "ID", "VCPU", "CPU", "State", "Time(s)", "Affinity (Hard / Soft)")
    lines = ["{:<32} {:>5} {:>5} {:>5} {:>5} {:>9} {}".format(*head)]
    for d in domains:
        for vcpu in range(d.vcpus):
            hard, soft = bitmap(d.hard[vcpu], xen.cpus), bitmap(d.soft[vcpu], xen.cpus)
            on = vcpu < (d.online or d.vcpus)
            allowed = d.hard[vcpu]
            cpu = min(allowed) if allowed else vcpu % xen.cpus
            place = f"{cpu:5d} " + ("  -b- " if vcpu else "  r-- ") if on else "    -   --p "
            lines.append(
                f"{d.name:<32} {d.domid:5d} {vcpu:5d} {place}{10.0 + vcpu:9.1f}  {hard} / {soft}"
            )
    return "\n".join(lines) + "\n"


def bitmap(cpus: frozenset[int] | None, total: int) -> str:
    """As xl prints a set of CPUs: ``all``, ``none``, ``0-2,5``."""
    if cpus is None or len(cpus) >= total:
        return "all"
    if not cpus:
        return "none"
    found: list[list[int]] = []
    for cpu in sorted(cpus):
        if found and cpu == found[-1][-1] + 1:
            found[-1].append(cpu)
        else:
            found.append([cpu])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in found)


def cpu_range(text: str, total: int) -> frozenset[int] | None:
    """A set of CPUs as xl takes it; raises Quit."""
    if text == "all":
        return None
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\^?)(\d+)(?:-(\d+))?", part.strip())
        if not match:
            raise Quit(1, "Error: Invalid argument.")
        first, last = int(match[2]), int(match[3] or match[2])
        cpus = set(range(first, last + 1))
        found = found - cpus if match[1] else found | cpus
    real = frozenset(cpu for cpu in found if cpu < total)
    return None if len(real) == total else real


def _vcpu_pin(xen: Xen, words: Sequence[str]) -> str:
    _, rest = _options("vcpu-pin", words, "f", ("force",), 3)
    domain = _domain(xen, rest[0])
    if rest[1] == "all":
        vcpus = [*range(domain.vcpus)]
    elif rest[1].isdigit():
        vcpus = [int(rest[1])]
    else:
        raise Quit(1, f"Error: Invalid argument {rest[1]} as VCPU.")
    hard = cpu_range(rest[2], xen.cpus) if rest[2] != "-" else "-"
    soft = cpu_range(rest[3], xen.cpus) if len(rest) > 3 and rest[3] != "-" else "-"
    if frozenset() in (hard, soft) or any(vcpu >= domain.vcpus for vcpu in vcpus):
        raise Quit(1, f"Could not set affinity for vcpu `{rest[1]}'.")
    for vcpu in vcpus:
        if not isinstance(hard, str):
            domain.hard[vcpu] = hard
        if not isinstance(soft, str):
            domain.soft[vcpu] = soft
    return ""


def _vcpu_set(xen: Xen, words: Sequence[str]) -> str:
    _, rest = _options("vcpu-set", words, "i", ("ignore-host",), 2)
    domain = _domain(xen, rest[0])
    if not rest[1].isdigit():
        raise Quit(1, "Error: Invalid argument.")
    if not 0 < int(rest[1]) <= domain.vcpus:
        raise Quit(
            1, f"libxl_set_vcpuonline failed domid={domain.domid} max_vcpus={rest[1]}, rc: -6"
        )
    domain.online = int(rest[1])
    return ""


def _sched(xen: Xen, words: Sequence[str], kind: str) -> str:
    names = ["domain=", "weight=", "cap=", "schedparam", "ratelimit_us=", "cpupool="]
    short = "d:w:c:p:r:s"
    if kind == "credit":
        short, names = f"{short}t:m:", [*names, "tslice_ms=", "migration_delay_us="]
    options, _ = _options(f"sched-{kind}", words, short, names)
    sets = options.keys() & {"w", "c"}
    if options.keys() & {"p", "s", "t", "r", "m"}:
        if sets or "d" in options:
            raise Quit(1, "Specifying a cpupool or schedparam is not allowed with domain options.")
        return _pool(xen, kind)
    head = f"{'Name':<33} {'ID':>4} {'Weight':>6} {'Cap':>4}\n"
    if "d" not in options:
        if sets:
            raise Quit(1, "Must specify a domain.")
        if xen.scheduler != kind:
            return ""
        return _pool(xen, kind) + head + "".join(_line(d) for d in xen.domains.values())
    domain = _domain(xen, options["d"])
    if sets:
        _set(xen, domain, options, kind)
        return ""
    if xen.scheduler != kind:
        raise Quit(1, f"libxl_domain_sched_params_get returned {xen.scheduler} not {kind}.", head)
    return head + _line(domain)


def _pool(xen: Xen, kind: str) -> str:
    if xen.scheduler != kind:
        return "Cpupool Pool-0: [sched params unavailable]\n"
    how = "ratelimit=1000us"
    return f"Cpupool Pool-0: {'tslice=30ms ' if kind == 'credit' else ''}{how}" + (
        " migration-delay=0us\n" if kind == "credit" else "\n"
    )


def _line(domain: Domain) -> str:
    return f"{domain.name:<33} {domain.domid:4d} {domain.weight:6d} {domain.cap:4d}\n"


def _set(xen: Xen, domain: Domain, options: Mapping[str, str], kind: str) -> None:
    failed = "libxl_domain_sched_params_set failed."
    if xen.scheduler != kind:
        raise Quit(1, f"libxl: error: Domain {domain.domid}:Getting domain sched {kind}\n{failed}")
    weight = _number(options.get("w", str(domain.weight)))
    cap = _number(options.get("c", str(domain.cap)))
    if not 1 <= weight <= MAX_WEIGHT:
        why = f"Cpu weight out of range, valid values are within range from 1 to {MAX_WEIGHT}"
        raise Quit(1, f"libxl: error: Domain {domain.domid}:{why}\n{failed}")
    if not 0 <= cap <= 100 * domain.vcpus:
        why = f"Cpu cap out of range, valid range is from 0 to {100 * domain.vcpus}"
        raise Quit(
            1, f"libxl: error: Domain {domain.domid}:{why} for specified number of vcpus\n{failed}"
        )
    domain.weight, domain.cap = weight, cap


def _number(text: str) -> int:
    """As strtol reads it: what begins like a number, else 0."""
    match = re.match(r"\s*[+-]?\d+", text)
    return int(match[0]) if match else 0
