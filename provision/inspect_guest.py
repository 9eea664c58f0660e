"""Runs inside a guest: prints what the guest itself sees, as one JSON document."""

import json
import os
import subprocess


def read(path):
    try:
        with open(path) as f:
            return f.read().strip()
    except OSError:
        return ""


def said(*words):
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""


def pci(device):
    """The ids and address of the PCI function that bears the NIC: itself, or virtio's parent."""
    path = os.path.realpath(device)
    while path != "/" and ("/virtio" in path or not os.path.exists(path + "/vendor")):
        path = os.path.dirname(path)
    ids = [read(path + "/" + name).replace("0x", "") for name in ("vendor", "device")]
    return {"pci_id": ":".join(ids), "pci": os.path.basename(path)} if all(ids) else {}


def driver(name, link):
    """Of real hardware, and of what has none: a veth pair's end."""
    if os.path.islink(link):  # where it leads may not be seen from here
        return os.path.basename(os.path.realpath(link))
    return said("ethtool", "-i", name).partition("\n")[0].replace("driver:", "").strip()


def groups():
    """What the control groups of this process hold it to; None = nothing, or it cannot be seen."""
    at = {}
    for line in read("/proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(",") if names else ["", "unified"]:
            at[name] = path
    quota, period = read_at(at, "cpu", "cpu.cfs_quota_us"), read_at(at, "cpu", "cpu.cfs_period_us")
    if not quota:
        quota, _, period = read_at(at, "", "cpu.max").partition(" ")
    limit = read_at(at, "memory", "memory.limit_in_bytes") or read_at(at, "", "memory.max")
    held = quota not in ("", "max", "-1")
    return {
        "quota_percent": int(quota) * 100 // int(period) if held else None,
        "memory_mib": int(limit) >> 20 if limit not in ("", "max") else None,
    }


def read_at(at, controller, name):
    if controller not in at:
        return ""
    return read("/".join(["/sys/fs/cgroup", controller, at[controller], name]))


def nic(name, addresses):
    base = "/sys/class/net/" + name
    found = {
        "name": name,
        "mac": read(base + "/address"),
        "mtu": int(read(base + "/mtu") or 0),
        "state": read(base + "/operstate"),
        "driver": driver(name, base + "/device/driver"),
        "addresses": addresses.get(name, []),
        "queues": len([q for q in os.listdir(base + "/queues") if q.startswith("rx-")]),
    }
    found.update(pci(base + "/device"))
    lines = [line.split(":") for line in said("ethtool", "-k", name).splitlines()[1:]]
    on = [line[0].strip() for line in lines if len(line) == 2 and line[1].strip().startswith("on")]
    found["offloads"] = sorted(on)
    return found


def nics(names, addresses):
    """Without those that go meanwhile: where the guest is a host, others make and remove some."""
    for name in names:
        try:
            yield nic(name, addresses)
        except OSError:
            if os.path.exists("/sys/class/net/" + name):
                raise


def main():
    links = [link for link in json.loads(said("ip", "-j", "-d", "addr") or "[]") if link]
    addresses = {
        link["ifname"]: [
            "{local}/{prefixlen}".format(**a) for a in link["addr_info"] if a["family"] == "inet"
        ]
        for link in links
    }
    veths = {i["ifname"] for i in links if i.get("linkinfo", {}).get("info_kind") == "veth"}
    names = [
        n
        for n in os.listdir("/sys/class/net")
        if n in veths or os.path.exists("/sys/class/net/" + n + "/device")
    ]
    memory = read("/proc/meminfo").split("MemTotal:")[-1].split()[0]
    print(
        json.dumps(
            {
                "hostname": os.uname().nodename,
                "kernel": os.uname().release,
                "cpus": os.cpu_count(),
                "memory_kib": int(memory),
                "clocksource": read(
                    "/sys/devices/system/clocksource/clocksource0/current_clocksource"
                ),
                "virt": said("systemd-detect-virt").strip(),
                "machine_id": read("/etc/machine-id"),
                "boot_id": read("/proc/sys/kernel/random/boot_id"),
                "netperf": (said("netperf", "-V").strip().splitlines() or [""])[0],
                "groups": groups(),
                "nics": list(nics(sorted(names), addresses)),
            }
        )
    )


main()
