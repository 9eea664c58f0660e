"""Open vSwitch on a Linux host: its daemons, and the steps that make or remove a bridge."""

from __future__ import annotations

from drivers.linux.links import Link, View
from drivers.linux.script import Script
from provision.errors import HostError, PreflightError
from provision.host import Host
from provision.resources import Switch

USERSPACE_OFFLOAD = "other_config:userspace-tso-enable"

_PLACES = 'run="${OVS_RUNDIR:-/var/run/openvswitch}"; ours="$run/provision.started"'
_LOCK = 'mkdir -p "$run"; exec 9>"$run/provision.lock"; flock 9'
_PID = 'pid() { cat "$run/$1.pid" 2>/dev/null || :; }'
# ovs-ctl starts the database only: for the switch it would load the kernel module by unloading
# that of Linux bridges. What ovs-ctl would do besides: file limit, locked memory, log, pid file.
# Without the kernel's datapath, frames come from veths and VMs with their checksums still open,
# and the userspace datapath drops them unless it keeps offloads; it reads that when it starts.
_START = f"""
{_PLACES}
ovs-appctl -t ovs-vswitchd version >/dev/null 2>&1 && exit 0
command -v ovs-vswitchd >/dev/null || {{ echo missing; exit 0; }}
[ ! -d /run/systemd/system ] || {{ echo managed; exit 0; }}
{_LOCK}; {_PID}
ovs-appctl -t ovs-vswitchd version >/dev/null 2>&1 && exit 0
before="$(pid ovsdb-server)"
modprobe -q openvswitch 2>/dev/null || :
/usr/share/openvswitch/scripts/ovs-ctl --no-ovs-vswitchd --no-record-hostname --no-monitor \
  --system-id=random start >&2 9>&-
ovs-dpctl dump-dps >/dev/null 2>&1 ||
  ovs-vsctl --no-wait set Open_vSwitch . {USERSPACE_OFFLOAD}=true
ulimit -n 65535 2>/dev/null || :
ovs-vswitchd "unix:$run/db.sock" -vconsole:emer -vsyslog:err -vfile:info --mlockall \
  --no-chdir --log-file --pidfile --detach 9>&-
echo "ovs-vswitchd $(pid ovs-vswitchd)" > "$ours"
[ "$before" = "$(pid ovsdb-server)" ] || echo "ovsdb-server $(pid ovsdb-server)" >> "$ours"
cut -d' ' -f1 "$ours"
"""
# What goes last takes the daemons with it, so a removal is one step: no other's is half done then.
# A shell has no event for the end of a process that is not its child: it looks, for 5 s at most.
_REMOVE = f"""
{_PLACES}; {_LOCK}; {_PID}
ovs-vsctl --timeout=30 --if-exists del-br "$1"
for qos in $(ovs-vsctl --bare --columns=_uuid find QoS "external_ids:provision-bridge=$1"); do
  ovs-vsctl --if-exists destroy QoS "$qos"
done
[ -e "$ours" ] || exit 0
[ -z "$(ovs-vsctl --timeout=10 list-br)" ] || exit 0
ovs-vsctl --no-wait remove Open_vSwitch . other_config userspace-tso-enable
n=0
while read -r name pid; do
  [ "$pid" = "$(pid "$name")" ] || continue
  ovs-appctl -t "$name" exit
  while [ $n -lt 500 ]; do
    case "$(cat "/proc/$pid/stat" 2>/dev/null)" in '' | *') Z '*) break ;; esac
    sleep 0.01; n=$((n + 1))
  done
done < "$ours"
rm -f "$ours"
"""


def ensure(host: Host) -> str:
    """See that Open vSwitch runs; returns what was started, "" where it ran already.

    Raises PreflightError where it is not installed, or a service manager has it stopped.
    """
    words = host.run("sh", "-ec", _START).split()
    if "missing" in words:
        raise PreflightError(
            f"{host.name} has no Open vSwitch", hint="apt-get install openvswitch-switch"
        )
    if "managed" in words:
        raise PreflightError(
            f"{host.name}: Open vSwitch does not run", hint="systemctl start openvswitch-switch"
        )
    return " and ".join(words)


def datapath(host: Host) -> str:
    """``system`` where the kernel switches, else ``netdev``: the daemon does.

    Raises PreflightError where the daemon would drop what veths and VMs send.
    """
    try:
        host.run("ovs-dpctl", "dump-dps")
    except HostError:
        words = ("ovs-vsctl", "--timeout=10", "get", "Open_vSwitch", ".", "other_config")
        if 'userspace-tso-enable="true"' not in host.run(*words):
            raise PreflightError(
                f"{host.name}: Open vSwitch has no kernel datapath here, and its own drops frames "
                "with open checksums unless userspace-tso-enable is set",
                hint=f"ovs-vsctl set Open_vSwitch . {USERSPACE_OFFLOAD}=true, then restart it",
            ) from None
        return "netdev"
    return "system"


def make(script: Script, want: Switch, seen: View, testbed: str, path: str) -> None:
    """The step that makes the bridge exactly so, in one transaction; its mark is part of it."""
    name = want.name
    words = ["ovs-vsctl", "--timeout=30", "--may-exist", "add-br", name]
    words += ["--", "set", "Bridge", name, "fail_mode=standalone", "stp_enable=false"]
    words += ["mcast_snooping_enable=false", f"external_ids:provision={testbed}"]
    words += [f"datapath_type={path}"] if name not in seen.bridges else []
    words += ["--", "set", "Interface", name, f"mtu_request={want.mtu}"]
    for bridge in seen.bridges.values():
        for port in strays(bridge.name, want, seen):
            words += ["--", "--if-exists", "del-port", bridge.name, port]
    if want.uplink is not None:
        words += ["--", "--may-exist", "add-port", name, want.uplink]
        if want.uplink not in [link.name for link in seen.members(name)]:
            # else Open vSwitch takes away the queueing discipline that it finds on the NIC: QoS
            # type linux-noop in ovs-vswitchd.conf.db(5)
            words += ["--", "--id=@qos", "create", "QoS", "type=linux-noop"]
            words += [f"external_ids:provision-bridge={name}"]
            words += ["--", "set", "Port", want.uplink, "qos=@qos"]
    script.run_words(*words)


def strays(bridge: str, want: Switch, seen: View) -> list[str]:
    """The ports that are in the way: foreign uplinks of ours, or our uplink elsewhere."""
    names = [link.name for link in seen.members(bridge) if is_uplink(link)]
    return [n for n in names if (n == want.uplink) != (bridge == want.name)]


def is_uplink(link: Link) -> bool:
    """Whether a port of a bridge leads out, and not to a VM."""
    return link.kind != "openvswitch" and not link.backs_vnic


def remove(host: Host, name: str) -> None:
    """Remove the bridge, leave its ports' devices alone, and stop the daemons if that is due."""
    host.run("sh", "-ec", _REMOVE, "sh", name)
