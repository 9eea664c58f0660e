"""What restarts the hypervisor's host: told by the plan, asked for, waited for, and undone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event as Flag
from typing import Any

import pytest

from drivers.fake import Fake
from provision.driver import Change, Dom0, Target, UplinkFacts, host_tunings
from provision.engine import Engine, Outcome
from provision.journal import Journal
from provision.plan import Step, backwards, graph, phases, render, steps, undoing
from provision.progress import Progress, quiet
from provision.resources import (
    BOOT,
    Guest,
    Resource,
    Switch,
    Tuning,
    Uplink,
    Vnic,
    key,
)

WORDS = ("up", "--hv", "fake", "--vms", "1")


def bed(memory_mib: int | None, mtu: int = 9000) -> list[Resource]:
    """A guest on a real uplink, dom0's weight, and perhaps its memory."""
    nic = Vnic("b1", "virtio", "52:54:00:00:00:02", "198.18.1.2/24")
    guest = Guest("vm1", 1, 512, "", replace(nic, mac="52:54:00:00:00:01"), (nic,), "none")
    boot = [Tuning(BOOT[1], f"dom0_mem={memory_mib}")] if memory_mib else []
    weight = Tuning("dom0.weight", "512")
    return [*boot, weight, Uplink("eth1", mtu, up=True), Switch("b1", uplink="eth1"), guest]


class Bench:
    """A fake host, a journal, and what ``up`` and ``down`` do with both."""

    def __init__(self, folder: Path) -> None:
        self.driver = Fake(Target("t", folder))
        self.journal = Journal(folder, "t")
        self.order: list[tuple[str, str]] = []
        put = self.driver.put

        def noting(want: Resource) -> None:
            self.order.append(key(want))
            put(want)

        self.driver.put = noting  # type: ignore[method-assign]

    def plan(self, wants: list[Resource]) -> list[Step]:
        return steps(
            wants, self.driver.read, self.driver.facts.change, originals=self.journal.originals()
        )

    def up(self, wants: list[Resource]) -> list[Step]:
        found = self.plan(wants)
        goes, comes = phases(found)
        after = graph({**self.journal.wants(), **{key(w): w for w in wants}}.values())
        self._well(goes, backwards(after))
        self._well(comes, after)
        return found

    def down(self) -> None:
        found = undoing(self.journal.originals(), self.driver.read)
        self._well(found, backwards(graph(self.journal.wants().values())))

    def _well(self, found: list[Step], after: Any) -> None:
        engine = Engine(lambda _kind: self.driver, self.journal, Progress(quiet), Flag())
        outcome: Outcome = engine.apply(found, after)
        assert not outcome.failed
        assert not outcome.skipped


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_all_else_waits_for_the_restart(bench: Bench) -> None:
    before = dict(bench.driver.world)
    bench.up(bed(2048))
    assert bench.order[0] == BOOT
    assert bench.driver.read(("tuning", "dom0.weight")) == Tuning("dom0.weight", "512")
    bench.down()
    assert bench.driver.world == before


def test_a_testbed_that_stands_is_taken_down_for_the_restart(bench: Bench) -> None:
    bench.up(bed(None))
    found = bench.up(bed(2048))
    told = {s.key: s for s in found}
    assert told[BOOT].change is Change.REBOOT
    assert told["guest", "vm1"].change is Change.RECREATE
    assert told["switch", "b1"].reason == "tuning/host.boot restarts the host"
    assert all(bench.driver.read(key(want)) == want for want in bed(2048))
    assert not bench.plan(bed(2048))


def test_what_is_lost_by_the_restart_is_put_back_after_it(bench: Bench) -> None:
    """A weight that somebody had set live is there again in the end, as before us."""
    weight = Tuning("dom0.weight", "300")
    bench.driver.put(weight)
    bench.driver.put(Uplink("eth1", 1400))
    bench.up(bed(2048))
    bench.order.clear()
    bench.down()
    assert bench.order.index(BOOT) < bench.order.index(key(weight))
    assert bench.driver.read(key(weight)) == weight
    assert bench.driver.read(("uplink", "eth1")) == Uplink("eth1", 1400)


def test_a_state_that_was_right_before_the_restart_is_put_after_it(bench: Bench) -> None:
    bench.driver.put(Tuning("dom0.weight", "512"))
    bench.up(bed(2048))
    assert bench.driver.read(("tuning", "dom0.weight")) == Tuning("dom0.weight", "512")


def test_no_longer_asked_for_restarts_too(bench: Bench) -> None:
    bench.up(bed(2048))
    found = bench.up(bed(None))
    assert [s.key for s in found if s.restarts_host] == [BOOT]
    assert all(bench.driver.read(key(want)) == want for want in bed(None))
    assert bench.driver.read(BOOT) == Tuning(BOOT[1], "dom0_mem=4096")


def test_as_it_is_already_restarts_nothing(bench: Bench) -> None:
    assert not any(s.restarts_host for s in bench.plan(bed(4096)))
    (line, field) = render([s for s in bench.plan(bed(2048)) if s.key == BOOT])
    assert line == "~ tuning/host.boot  [restarts the host]"
    assert field == "    value: dom0_mem=4096 -> dom0_mem=2048"


def test_a_host_that_is_its_own_dom0_is_tuned_live() -> None:
    uplinks = (UplinkFacts("eth0", "", irqs=(40, 41)), UplinkFacts("eth1", "", irqs=(42,)))
    dom0 = Dom0(vcpus=2, weight=512, irq_affinity=("0", "1"))
    assert list(host_tunings(dom0, uplinks)) == [
        Tuning("dom0.cpus", "0-1"), Tuning("dom0.weight", "512"),
        Tuning("irq/40", "0"), Tuning("irq/41", "0"), Tuning("irq/42", "1"),
    ]  # fmt: skip
    assert Dom0(pin="6-7", vcpus=2).cpus == "6-7"
    assert Dom0().cpus is None


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    kept = {k: os.environ[k] for k in ("PATH", "HOME", "LANG") if k in os.environ}
    root = str(Path(__file__).parents[2])
    env = kept | {"PROVISION_STATE_DIR": str(tmp_path / "state"), "PYTHONPATH": root}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "provision", *words], env=env, cwd=tmp_path,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    return run


def test_nothing_restarts_without_yes(
    shell: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    world = tmp_path / "world.json"
    words = [*WORDS, "--set", f"hypervisor.uri=fake://{world}", "--set", "dom0.memory=2GiB"]
    assert "[restarts the host]" in shell("plan", *words[1:]).stdout
    refused = shell(*words)
    assert refused.returncode == 4
    assert "restarts the host fake: value: dom0_mem=4096 -> dom0_mem=2048" in refused.stderr
    assert "--yes" in refused.stderr
    assert not shell("status", "--json").stdout.strip("[]\n")
    assert shell(*words, "--yes").returncode == 0
    kept = shell("down")
    assert kept.returncode == 4
    assert "--yes" in kept.stderr
    assert "host.boot" in shell("status").stdout
    assert shell("down", "-y").returncode == 0
    values = [r["value"] for r in json.loads(world.read_text())["world"] if r["kind"] == "tuning"]
    assert "dom0_mem=4096" in values
