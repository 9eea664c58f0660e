#!/usr/bin/env python3
"""Send frames that guests are to forward, and count those that come back by the other NIC.

Needs Python 3.8, root and a generator: the kernel's pktgen, else tcpreplay, which paces as evenly.
The one argument is ``check``, which tells the generator, or the plan, JSON in base64:

``generator``            "" = the best there is
``length_s``, ``tick_s``
``flows``                each with ``name``, ``out`` and ``back`` (NICs), ``source``, ``gateway``,
                         ``target`` (ours, the guest's, ours), ``frame_bytes``
                         (without checksum), ``delay_ns`` between frames (0 = none), ``sources`` and
                         ``port``
``search``               or none: the delay of the first ``flows`` of them, the same for each, is
                         found before, the least at which they lose no more than ``lost_percent``
                         together, by trials of ``trial_s``, to within ``resolution`` (a share) or
                         down to ``least`` frames a second

Prints one JSON object a line: the generator, every tick what was sent and counted, each trial, when
that which counts begins, and how it ended. No generator outlives this process.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PKTGEN = Path("/proc/net/pktgen")
MAGIC = 0xBE9BE955  # pktgen's own, so that captures of both generators look alike
ANSWER_S = 3.0  # for a guest to tell its MAC
ETH_P_IP, ETH_P_ARP = 0x0800, 0x0806
SOL_PACKET, PACKET_STATISTICS, SO_ATTACH_FILTER = 263, 6, 26
SBIN = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
ENDS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
DROPS = ("rx_dropped", "rx_missed_errors")
DRAIN_S = 1.0  # for the last frames to come
STRAY = 3  # frames by the sending NIC that are none of the flow's, such as ARP
EARLY_S = 0.3  # by which the kernel's count of frames may end it before its time


class Fault(Exception):
    """Nothing can be sent; one line for each flow or cause."""


def mac(text: str) -> bytes:
    return bytes(int(octet, 16) for octet in text.split(":"))


def own_mac(nic: str) -> bytes:
    try:
        return mac(Path(f"/sys/class/net/{nic}/address").read_text().strip())
    except OSError as e:
        raise Fault(f"the load generator has no link {nic}") from e


def gateway_mac(flow: dict[str, Any]) -> bytes:
    """Ask the guest by ARP who it is."""
    ours, theirs = (socket.inet_aton(flow[k]) for k in ("source", "gateway"))
    own = own_mac(flow["out"])
    ask = struct.pack(
        "!6s6sHHHBBH6s4s6s4s", b"\xff" * 6, own, ETH_P_ARP, 1, ETH_P_IP, 6, 4, 1, own, ours,
        bytes(6), theirs,
    )  # fmt: skip
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP)) as sock:
        try:
            sock.bind((flow["out"], ETH_P_ARP))
            end = time.monotonic() + ANSWER_S
            while (left := end - time.monotonic()) > 0:
                sock.send(ask)
                again = time.monotonic() + min(left, 0.5)
                while select.select([sock], [], [], max(0.0, again - time.monotonic()))[0]:
                    got = sock.recv(64)
                    if got[20:22] == b"\0\2" and got[28:32] == theirs:
                        return got[22:28]
        except OSError as e:
            raise Fault(f"{flow['name']}: {flow['out']}: {e.strerror}") from e
    raise Fault(f"{flow['name']}: {flow['gateway']} does not answer on {flow['out']}")


def sum16(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def frame(flow: dict[str, Any], guest: bytes, source: int) -> bytes:
    """One whole frame without its checksum; each source has a UDP port of its own."""
    size = flow["frame_bytes"]
    ends = socket.inet_aton(flow["source"]) + socket.inet_aton(flow["target"])
    ip = struct.pack("!BBHHHBBH", 0x45, 0, size - 14, 0, 0x4000, 32, 17, 0) + ends
    ip = ip[:10] + struct.pack("!H", sum16(ip)) + ip[12:]
    udp = struct.pack("!HHHHI", flow["port"] + source, flow["port"], size - 34, 0, MAGIC)
    head = guest + own_mac(flow["out"]) + struct.pack("!H", ETH_P_IP) + ip + udp
    return head + bytes(size - len(head))


class Counter:
    """Counts a flow's whole frames as they come back.

    The kernel counts what passes a socket's filter whether or not it has room for it, so nothing
    that reached this socket can be missed, and nothing is copied.
    """

    def __init__(self, flow: dict[str, Any]) -> None:
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        target = struct.unpack("!I", socket.inet_aton(flow["target"]))[0]
        words = [
            (0x30, 0, 0, 23), (0x15, 0, 7, 17),  # UDP
            (0x20, 0, 0, 30), (0x15, 0, 5, target),
            (0x28, 0, 0, 36), (0x15, 0, 3, flow["port"]),
            (0x80, 0, 0, 0), (0x15, 0, 1, flow["frame_bytes"]),
            (0x6, 0, 0, 1), (0x6, 0, 0, 0),
        ]  # fmt: skip
        code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *w) for w in words))
        program = struct.pack("HL", len(words), ctypes.addressof(code))
        self.sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        try:
            self.sock.bind((flow["back"], ETH_P_IP))
        except OSError as e:
            raise Fault(f"{flow['name']}: {flow['back']}: {e.strerror}") from e
        self.total = 0
        self.read()
        self.total = 0

    def read(self) -> int:
        """All so far; the kernel starts again from nothing whenever it is asked."""
        packets, _ = struct.unpack("II", self.sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        self.total += packets
        return self.total


def dropped(nic: str) -> int:
    """What the receiving NIC had to throw away or never took up."""
    folder = Path(f"/sys/class/net/{nic}/statistics")
    return sum(int((folder / name).read_text()) for name in DROPS)


def sent(nic: str) -> int:
    return int(Path(f"/sys/class/net/{nic}/statistics/tx_packets").read_text())


def arrived(nic: str) -> int:
    return int(Path(f"/sys/class/net/{nic}/statistics/rx_packets").read_text())


def backlogged() -> int:
    """Frames that this machine's CPUs dropped, all NICs together."""
    rows = Path("/proc/net/softnet_stat").read_text().splitlines()
    return sum(int(row.split()[1], 16) for row in rows)


def child(argv: list[str]) -> subprocess.Popen[bytes]:
    """Dies with us; a group of its own, so that one signal ends all of it."""
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", *argv], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


class Tcpreplay:
    """One process a source, each with its frame preloaded."""

    name = "tcpreplay"

    def __init__(self, program: str) -> None:
        self.program = program
        told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
        words = (told.stdout + told.stderr).split()
        if told.returncode or words[:2] != ["tcpreplay", "version:"]:
            raise Fault(f"{program} does not run: {' '.join(words)}")
        self.version = words[2]
        self.folder = tempfile.TemporaryDirectory(prefix="packets-")

    def start(self, flows: list[dict[str, Any]], length_s: float) -> list[subprocess.Popen[bytes]]:
        del length_s  # it is ended
        found = []
        for flow in flows:
            guest = gateway_mac(flow)
            for source in range(flow["sources"]):
                one = frame(flow, guest, source)
                path = Path(self.folder.name, f"{flow['name']}-{source}.pcap")
                # several, so that going back to the first does not count
                record = struct.pack("<IIII", 0, 0, len(one), len(one)) + one
                head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
                path.write_bytes(head + 1000 * record)
                rate = 1e9 / (flow["delay_ns"] * flow["sources"]) if flow["delay_ns"] else 0
                found.append(
                    child(
                        [self.program, "-i", flow["out"], "--preload-pcap", "--loop=0", "--quiet",
                         "--no-flow-stats", *(["--timer=nano", f"--pps={rate:.6f}"] if rate
                                              else ["--topspeed"]), str(path)]
                    )
                )  # fmt: skip
        return found

    def clear(self) -> None:
        """Nothing is left of a process."""

    def end(self) -> None:
        self.folder.cleanup()


class Pktgen:
    """The kernel's own: a thread a CPU, each source on one of them."""

    name, version = "pktgen", os.uname().release

    def __init__(self) -> None:
        self.threads = sorted(PKTGEN.glob("kpktgend_*"), key=lambda p: int(p.name.split("_")[1]))
        self.devices: list[str] = []
        for thread in self.threads:
            lists = [line.split(":", 1) for line in thread.read_text().splitlines() if ":" in line]
            if taken := " ".join(
                names for key, names in lists if names.strip() and key != "Result"
            ):
                raise Fault(f"pktgen is in use by another program: {thread.name}: {taken.strip()}")

    def start(self, flows: list[dict[str, Any]], length_s: float) -> list[subprocess.Popen[bytes]]:
        for flow in flows:
            guest = ":".join(f"{octet:02x}" for octet in gateway_mac(flow))
            for source in range(flow["sources"]):
                number = len(self.devices)
                device = f"{flow['out']}@{number}"
                thread = self.threads[number % len(self.threads)]
                delay_ns = flow["delay_ns"] * flow["sources"]
                # bounded, whatever becomes of us; without a delay the bound is what no CPU reaches
                count = int(length_s * 1e9 / max(delay_ns, 100)) + 1
                tell(thread, f"add_device {device}")
                self.devices.append(device)
                for words in (
                    f"count {count}", "clone_skb 0", f"pkt_size {flow['frame_bytes']}",
                    f"delay {delay_ns:.0f}", f"src_min {flow['source']}",
                    f"src_max {flow['source']}", f"dst {flow['target']}", f"dst_mac {guest}",
                    f"udp_src_min {flow['port'] + source}", f"udp_src_max {flow['port'] + source}",
                    f"udp_dst_min {flow['port']}", f"udp_dst_max {flow['port']}",
                ):  # fmt: skip
                    tell(PKTGEN / device, words)
        return [child(["/bin/sh", "-c", f"echo start > {PKTGEN}/pgctrl"])]

    def clear(self) -> None:
        """Take our devices off again; that also ends one that still sends."""
        with contextlib.suppress(Fault):
            tell(PKTGEN / "pgctrl", "stop")
        for thread in self.threads if self.devices else ():
            with contextlib.suppress(Fault):
                tell(thread, "rem_device_all")
        self.devices.clear()

    end = clear


def tell(path: Path, words: str) -> None:
    try:
        path.write_text(words + "\n")
    except OSError as e:
        raise Fault(f"pktgen: {path.name}: {words}: {e.strerror}") from e


def generator(asked: str) -> Pktgen | Tcpreplay:
    """The one asked for, else the best there is."""
    if asked in ("", "pktgen"):
        if not PKTGEN.exists() and (modprobe := shutil.which("modprobe", path=SBIN)):
            subprocess.run([modprobe, "-q", "pktgen"], stderr=subprocess.DEVNULL, check=False)
        if (PKTGEN / "pgctrl").exists():
            return Pktgen()
        if asked:
            raise Fault("pktgen: this kernel has none (CONFIG_NET_PKTGEN)")
    if program := shutil.which("tcpreplay", path=SBIN):
        return Tcpreplay(program)
    why = "" if asked else ", and this kernel has no pktgen"
    raise Fault(f"tcpreplay: not found on the load generator{why}: apt-get install tcpreplay")


def say(**what: Any) -> None:
    print(json.dumps(what, separators=(",", ":")), flush=True)


class Watch:
    """What was sent and counted so far, told at every tick."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.flows, self.tick_s = plan["flows"], plan["tick_s"]
        self.searched = [flow["name"] for flow in self.flows[: searched(plan)]]
        self.counters = {flow["name"]: Counter(flow) for flow in self.flows}
        self.first = {flow["name"]: sent(flow["out"]) for flow in self.flows}
        self.began = {flow["name"]: arrived(flow["back"]) for flow in self.flows}

    def tell(self) -> tuple[int, int]:
        """Frames sent and counted, of those flows whose rate is searched, else of the first."""
        told = {n: c.read() for n, c in self.counters.items()}
        out = {f["name"]: sent(f["out"]) - self.first[f["name"]] for f in self.flows}
        back = {f["name"]: arrived(f["back"]) - self.began[f["name"]] for f in self.flows}
        say(
            at=round(time.time(), 6), sent=out, counted=told, arrived=back, backlogged=backlogged(),
            dropped={f["name"]: dropped(f["back"]) for f in self.flows},
        )  # fmt: skip
        return sum(out[n] for n in self.searched), sum(told[n] for n in self.searched)

    def for_(self, length_s: float) -> Iterator[None]:
        """Tick for so long; comes back meanwhile, whenever a child may have ended."""
        due = time.monotonic()
        end = due + length_s
        while due < end:
            due = min(max(due + self.tick_s, time.monotonic()), end)
            while (left := due - time.monotonic()) > 0:
                got = signal.sigtimedwait({*ENDS, signal.SIGCHLD}, left)
                if got and got.si_signo in ENDS:
                    raise Fault(f"ended by signal {got.si_signo}")
                yield
            self.tell()

    def drained(self) -> tuple[int, int]:
        """What came after the last frame was sent included."""
        was, end = self.tell(), time.monotonic() + DRAIN_S
        while time.monotonic() < end:
            for _ in self.for_(self.tick_s):
                pass
            if (now := self.tell())[1] == was[1]:
                break
            was = now
        return self.tell()


def traffic(made: Any, watch: Watch, flows: list[dict[str, Any]], length_s: float) -> float:
    """Send for so long; the per cent of the frames that ``Watch.tell`` has that never came back.

    Raises Fault where a generator ends before.
    """
    before = watch.tell()
    children: list[subprocess.Popen[bytes]] = []
    try:
        children += made.start(flows, length_s)
        began = time.monotonic()
        for _ in watch.for_(length_s):
            gone = [c for c in children if c.poll() is not None]
            if gone and time.monotonic() - began < length_s - EARLY_S:
                assert gone[0].stdout
                told = gone[0].stdout.read().decode(errors="replace").split("\n")
                words = [line.strip() for line in told if line.strip()]
                raise Fault(f"{made.name} ended by itself: {words[-1] if words else 'no word'}")
    finally:
        for one in children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(one.pid, signal.SIGKILL)
        for one in children:
            one.wait()
        made.clear()
    after = watch.drained()
    out, back = after[0] - before[0], after[1] - before[1]
    stray = STRAY * len(watch.searched)
    return 100 * max(0, out - back - stray) / out if out > stray else 100.0


def searched(plan: dict[str, Any]) -> int:
    """How many flows' rate is to be found."""
    wish = plan.get("search") or {}
    return int(wish.get("flows", 1))


def slowed(plan: dict[str, Any], delay_ns: float) -> list[dict[str, Any]]:
    """The flows whose rate is searched with that delay, the others as they are."""
    flows, count = plan["flows"], searched(plan)
    return [*(dict(flow, delay_ns=delay_ns) for flow in flows[:count]), *flows[count:]]


def search(made: Any, watch: Watch, plan: dict[str, Any]) -> float:
    """The least delay (ns) between a flow's frames at which no more is lost than allowed.

    By halving between what surely is and what surely is not too fast, until both are closer than
    the resolution.
    """
    wish, flows = plan["search"], plan["flows"]

    def lost(delay_ns: float) -> float:
        percent = traffic(made, watch, slowed(plan, delay_ns), wish["trial_s"])
        say(trial=round(delay_ns, 1), lost_percent=round(percent, 3))
        return percent

    before = watch.tell()[0]
    if lost(0.0) <= wish["lost_percent"]:
        return 0.0  # the generator is slower than the guest
    # it needs some of the trial to start
    low, high = 0.0, 1.2 * (watch.tell()[0] - before) / wish["trial_s"] / searched(plan)
    while high - low > wish["resolution"] * high and high > wish["least"]:
        middle = (low + high) / 2
        if lost(1e9 / middle) <= wish["lost_percent"]:
            low = middle
        else:
            high = middle
    if not low:
        raise Fault(f"{flows[0]['name']}: frames are lost at every rate")
    return 1e9 / low


def run(plan: dict[str, Any]) -> None:
    """Until its time is over."""
    made = generator(plan["generator"])
    try:
        watch = Watch(plan)
        say(generator=made.name, version=made.version)
        flows = plan["flows"]
        if plan.get("search"):
            flows = slowed(plan, search(made, watch, plan))
        say(begins=round(time.time(), 6), delay_ns=flows[0]["delay_ns"])
        traffic(made, watch, flows, plan["length_s"])
        say(ended=round(time.time(), 6))
    finally:
        made.end()


def main(words: list[str]) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, {*ENDS, signal.SIGCHLD})
    try:
        if words == ["check"]:
            made = generator("")
            made.end()
            print(made.name, made.version)
        else:
            run(json.loads(base64.b64decode(words[0])))
    except Fault as e:
        print(e, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
