"""Runs on a host or load generator: prints all that may influence a figure, as one JSON document.

The arguments are the NICs to tell of. Python 3.6 and its standard library; what is not there is
left out.
"""

import glob
import json
import os
import re
import subprocess
import sys


def read(path):
    try:
        with open(path, errors="replace") as f:
            return f.read().strip()
    except OSError:
        return ""


def said(*words):
    try:
        done = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace")


def named(pattern):
    """The files' contents by name, alike ones told once: governors of 64 CPUs are one word."""
    return sorted({read(path) for path in glob.glob(pattern)} - {""})


def table(text):
    """Lines of ``name: value``, as ethtool writes them."""
    rows = [line.split(":", 1) for line in text.splitlines() if ":" in line]
    return {k.strip(): v.strip() for k, v in rows if v.strip()}


def current(text):
    """The second half of what ethtool says of rings and channels: what is set now."""
    return table(text.partition("Current hardware settings:")[2])


def nic(name):
    base = "/sys/class/net/" + name
    found = {
        "driver": table(said("ethtool", "-i", name)),
        "mtu": read(base + "/mtu"),
        "speed_mbit": read(base + "/speed"),
        "duplex": read(base + "/duplex"),
        "numa_node": read(base + "/device/numa_node"),
        "queues": len(glob.glob(base + "/queues/rx-*")),
        "offloads": sorted(
            k for k, v in table(said("ethtool", "-k", name)).items() if v.split()[0] == "on"
        ),
        "rings": current(said("ethtool", "-g", name)),
        "channels": current(said("ethtool", "-l", name)),
        "coalescing": table(said("ethtool", "-c", name)),
        "qdisc": said("tc", "qdisc", "show", "dev", name).split("\n")[0].strip(),
        "irq_affinity": {
            os.path.basename(path): read("/proc/irq/%s/smp_affinity_list" % os.path.basename(path))
            for path in glob.glob(base + "/device/msi_irqs/*")
        },
    }
    return {k: v for k, v in found.items() if v not in ("", {}, [])}


def processes():
    """CPU seconds of every process so far, by pid and name, and the OS-level guest it is in."""
    tick = os.sysconf("SC_CLK_TCK")
    found = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        head, _, tail = read(path).rpartition(")")
        fields = tail.split()
        if fields:
            pid, _, name = head.partition(" (")
            cell = re.search(r"/(provision\.[^/\n]+)", read(path[: -len("stat")] + "cgroup"))
            name += " in " + cell.group(1) if cell else ""
            found["%s %s" % (pid, name)] = (int(fields[11]) + int(fields[12])) / tick
    return found


def main(names):
    cpu = read("/proc/cpuinfo").split("\n\n")[0]
    dmi = "/sys/class/dmi/id/"
    system = "/sys/devices/system/"
    times = read("/proc/stat").split("\n")[0].split()
    document = {
        "name": os.uname().nodename,
        "boot_id": read("/proc/sys/kernel/random/boot_id"),
        "kernel": os.uname().release,
        "kernel_build": os.uname().version,
        "command_line": read("/proc/cmdline"),
        "os": table(read("/etc/os-release").replace("=", ":")).get("PRETTY_NAME", "").strip('"'),
        "cpu": table(cpu.replace("\t", "")).get("model name", ""),
        "microcode": table(cpu.replace("\t", "")).get("microcode", ""),
        "cpus": read(system + "cpu/online"),
        "smt": read(system + "cpu/smt/active"),
        "numa": {
            os.path.basename(path): read(path + "/cpulist")
            for path in sorted(glob.glob(system + "node/node[0-9]*"))
        },
        "governor": named(system + "cpu/cpu*/cpufreq/scaling_governor"),
        "frequency_driver": named(system + "cpu/cpu*/cpufreq/scaling_driver"),
        "turbo_off": read(system + "cpu/intel_pstate/no_turbo"),
        "boost": read(system + "cpu/cpufreq/boost"),
        "idle_driver": read(system + "cpu/cpuidle/current_driver"),
        "mitigations": {
            os.path.basename(path): read(path)
            for path in sorted(glob.glob(system + "cpu/vulnerabilities/*"))
        },
        "huge_pages": read("/sys/kernel/mm/transparent_hugepage/enabled"),
        "clocksource": read(system + "clocksource/clocksource0/current_clocksource"),
        "firmware": " ".join(
            filter(None, [read(dmi + "bios_" + name) for name in ("vendor", "version", "date")])
        ),
        "machine": " ".join(filter(None, [read(dmi + "sys_vendor"), read(dmi + "product_name")])),
        "tcp": {
            name: read("/proc/sys/net/ipv4/" + name)
            for name in ("tcp_congestion_control", "tcp_rmem", "tcp_wmem", "tcp_timestamps")
        },
        "nics": {name: nic(name) for name in names if os.path.exists("/sys/class/net/" + name)},
        # figures that move, apart from what should not
        "moving": {
            "load": read("/proc/loadavg"),
            "steal_s": int(times[8]) / os.sysconf("SC_CLK_TCK") if len(times) > 8 else 0,
            "processes": processes(),
        },
    }
    print(json.dumps(document))


main(sys.argv[1:])
