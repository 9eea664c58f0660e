"""Guests that forward for real between two links, and neighbours that keep theirs busy."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from provision.errors import WorkloadError
from provision.measuring.capture import load
from provision.measuring.counters import Asked
from provision.measuring.results import Run, Subject
from provision.measuring.take import Bench, measure
from provision.measuring.verdict import Finding, judge
from provision.measuring.workload import Options, Workload
from provision.measuring.workloads import find
from provision.playing import Player, playbooks
from tests.root.machines import machine, marks, sh
from tests.root.streamlab import Lab, lab

pytestmark = marks
OPTIONS = Options(duration_s=1, ramp_s=0.5)
REDO = 3
RUNNER = playbooks() / "roles" / "streams" / "files" / "streams.py"
SCRIPT = playbooks() / "roles" / "forwarding" / "files" / "packets.py"
SWITCH = "/proc/sys/net/ipv4/ip_forward"
SUBJECT = Subject(
    "kvm", "1", "here", "tcg", "virtio", 2, 1, "none", "", OPTIONS.duration_s, OPTIONS.ramp_s,
    OPTIONS.message_bytes, OPTIONS.socket_buffer_bytes, nics_each=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def routers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two guests that forward."""
    with lab("pvfw", 2, tmp_path_factory.mktemp("lab"), nics_each=2) as made:
        for number in (1, 2):  # a namespace begins with what the host has
            sh("ip", "netns", "exec", made.guest(number), "sh", "-c", f"echo 0 > {SWITCH}")
        _play(made, "forward.yml")
        yield made
        _play(made, "forward-end.yml")
        assert _forwards(made, 1) == _forwards(made, 2) == "0"


def _play(made: Lab, playbook: str) -> None:
    folder = made.folder / f"play-{time.time_ns()}"
    Player(folder, made.inventory()).play(playbook, "play", {})


def _forwards(made: Lab, number: int) -> str:
    return sh("ip", "netns", "exec", made.guest(number), "cat", SWITCH).strip()


def _bench(made: Lab, root: Path) -> Bench:
    run = Run.create(root, "test", {})
    return Bench(run, made.inventory(), made.pairs, SUBJECT, made.usage, apart=False)


def _take(made: Lab, folder: Path, workload: Workload) -> Finding:
    """A sample without Ansible, anew where this machine was too busy to offer what was asked."""
    for attempt in range(1 + REDO):
        finding = _sample(made, folder / str(attempt), workload)
        if not any(" limits: " in reason for reason in finding.reasons):
            break
    return finding


def _sample(made: Lab, folder: Path, workload: Workload) -> Finding:
    order = workload.plan(made.pairs, OPTIONS) | {"folder": str(folder), "path": str(SCRIPT.parent)}
    words = ["ip", "netns", "exec", made.generator, "python3", str(RUNNER),
             base64.b64encode(json.dumps(order).encode()).decode()]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=90, check=False)
    assert not done.returncode, done.stderr
    found = load(folder / "streams.json", workload.read)
    return judge(found, Asked(workload, OPTIONS, made.pairs, apart=False), [])


@contextmanager
def narrow(made: Lab, number: int, rate_mbit: int) -> Iterator[None]:
    """The guest's way out is no faster than that."""
    device = ("-n", made.guest(number), "qdisc")
    shape = f"root tbf rate {rate_mbit}mbit burst 4kb latency 5ms".split()
    sh("tc", *device, "add", "dev", "eth1", *shape)
    try:
        yield
    finally:
        sh("tc", *device, "del", "dev", "eth1", "root")


def test_what_is_offered_comes_back(routers: Lab, tmp_path: Path) -> None:
    bench = _bench(routers, tmp_path)
    *_, sample = measure(bench, [find("forwarding-500B-20M-2src")], repeat=1, redo=REDO)
    assert bench.run.samples()[-1] == sample
    finding = sample.finding
    assert sample.valid, finding.reasons
    for figures in (finding.offered_mbit, finding.links_mbit, finding.counters_mbit):
        assert figures == {g: pytest.approx(20, rel=0.02) for g in ("vm1", "vm2")}
    assert finding.uplinks_mbit == {g: pytest.approx(20, rel=0.05) for g in ("vm1", "vm2")}
    assert finding.lost_percent == {"vm1": 0, "vm2": 0}
    assert sample.notes["generator_packets.py"].split()[0] in ("tcpreplay", "pktgen")
    told = json.loads((bench.run.path / sample.raw / "streams.json").read_text())
    (own_s,) = (s["cpu_s"] for s in told["streams"])
    assert own_s[-1] > 0.2, "the generator works, a child of the stream's"
    assert finding.clients_percent is not None
    assert finding.clients_percent > 10


def test_what_a_guest_cannot_forward_is_lost(routers: Lab, tmp_path: Path) -> None:
    with narrow(routers, 1, 10):
        finding = _take(routers, tmp_path, find("forwarding-500B-40M@1"))
    assert finding.valid, finding.reasons
    assert finding.offered_mbit == {"vm1": pytest.approx(40, rel=0.02)}
    # at most what its way out carries: a busy machine shapes to less
    assert 0 < finding.links_mbit["vm1"] < 10 * 524 / 500 * 1.05
    assert 70 < finding.lost_percent["vm1"] < 100


def test_a_guest_that_does_not_forward_is_told(routers: Lab, tmp_path: Path) -> None:
    sh("ip", "netns", "exec", routers.guest(1), "sh", "-c", f"echo 0 > {SWITCH}")
    try:
        finding = _take(routers, tmp_path, find("forwarding-64B-1M@1"))
    finally:
        sh("ip", "netns", "exec", routers.guest(1), "sh", "-c", f"echo 1 > {SWITCH}")
    assert [r for r in finding.reasons if "the guest does not forward" in r]


def test_a_neighbour_forwards_at_half_of_what_was_found_to_be_its_maximum(
    routers: Lab, tmp_path: Path
) -> None:
    workload = find("forwarding-1500B-20M+forward-50")
    wanted = workload.wants()
    assert wanted is not None
    with narrow(routers, 2, 4):
        maximum = _take(routers, tmp_path / "maximum", wanted)
        assert maximum.valid, maximum.reasons
        finding = _take(routers, tmp_path / "half", workload.given(maximum.aggregate))
    # 4 Mbit/s of frames of 64 bytes, which take 88 on a wire
    assert maximum.links_mbit == {"vm2": pytest.approx(4 * 88 / 64, rel=0.15)}
    assert finding.valid, finding.reasons
    assert finding.links_mbit == {"vm1": pytest.approx(20, rel=0.02)}
    half = maximum.aggregate / 2
    assert list(finding.neighbours_mbit) == ["vm2"]
    assert finding.neighbours_mbit["vm2"] == pytest.approx((half, half), rel=0.03)


@pytest.fixture
def stress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that is started as stress-ng is, with one worker; the file that tells its id."""
    folder, told = tmp_path / "tools", tmp_path / "tools" / "told"
    folder.mkdir()
    program = folder / "stress-ng"
    program.write_text(
        "#!/bin/sh\n"
        f'[ -e {folder}/first ] || echo $$ > {folder}/first\necho "$$ $*" > {told}\n'
        'echo "stress-ng: info: dispatching hogs: 1 cpu"\n'
        "sleep 300 & wait\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return told


def _alive(told: Path) -> bool:
    """Whether anything of the program's group is left."""
    try:
        os.killpg(int(told.read_text().split()[0]), 0)
    except ProcessLookupError:
        return False
    return True


def test_a_neighbour_is_busy_during_the_sample_alone_and_told_where_it_was_not(
    routers: Lab, stress: Path, tmp_path: Path
) -> None:
    def end() -> None:
        """End the second load as soon as it runs."""
        deadline = time.monotonic() + 60
        while "--cpu 1" not in (stress.read_text() if stress.exists() else ""):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(int(stress.read_text().split()[0]), signal.SIGKILL)

    ender = threading.Thread(target=end)
    ender.start()
    names = ("forwarding-64B-1M+heavy", "forwarding-64B-1M+light")
    heavy, light = measure(_bench(routers, tmp_path), [find(n) for n in names], repeat=1, redo=0)
    ender.join()
    assert heavy.valid, heavy.finding.reasons
    assert [r for r in light.finding.reasons if r.startswith("vm2: what kept it busy had ended")]
    with pytest.raises(ProcessLookupError):
        os.killpg(int(stress.with_name("first").read_text()), 0)


def test_no_generator_is_told_before_anything_is_sent(
    routers: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "tcpreplay"
    broken.write_text("#!/bin/sh\necho no such library >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(WorkloadError, match="tcpreplay does not run: no such library"):
        _play(routers, "forward.yml")


def test_no_load_for_a_neighbour_is_told_before_anything_is_measured(
    routers: Lab, tmp_path: Path
) -> None:
    assert ("neighbour-ready.yml", {}) in find("forwarding-64B-1M+heavy").before
    inventory = routers.inventory()
    for n, guest in enumerate(inventory["all"]["children"]["guests"]["hosts"].values(), 1):
        inside = f"ip netns exec {routers.guest(n)}"
        guest["neighbour_shell"] = f"{inside} env PATH={tmp_path} /bin/sh"
    words = "vm1: Look for what keeps a guest busy: neither stress-ng nor stress is on this guest"
    with pytest.raises(WorkloadError, match=words):
        Player(tmp_path / "play", inventory).play("neighbour-ready.yml", "play", {})


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
@pytest.mark.parametrize("before", ["0", "1"])
def test_guests_that_share_a_network_put_it_back_when_the_last_ends(
    tmp_path: Path, order: tuple[str, str], before: str
) -> None:
    """As the guests of a native host do."""
    script = SCRIPT.with_name("forwarding.sh")
    with machine("pvfwshare") as host:

        def play(verb: str, guest: str) -> str:
            host.run("env", f"FOLDER={tmp_path / guest}", "sh", str(script), verb)
            return host.read(SWITCH)

        host.write(SWITCH, before)
        assert play("begin", "one") == play("begin", "two") == play("begin", "one") == "1"
        first, last = order
        assert play("end", first) == play("end", first) == "1"
        assert play("end", last) == play("end", "nobody") == before
