"""A shell with a state of its own, and a host that must be the same before and after."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from provision import image, state
from provision.journal import testbeds

Done = subprocess.CompletedProcess[str]
ROOT = Path(__file__).parents[2]
URI = "qemu:///system"


class Shell:
    """Runs ``provision WORDS…`` with a state folder of its own that QEMU's user can reach."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {k: os.environ[k] for k in ("PATH", "HOME", "LANG") if k in os.environ}
        self.env = kept | {"PROVISION_STATE_DIR": str(folder), "PYTHONPATH": str(ROOT)}

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-P", "-m", "provision", *words]

    def __call__(self, *words: str, timeout_s: float = 300, code: int | None = 0) -> Done:
        """Run to the end; ``code`` is the exit code that must come, None = any."""
        done = subprocess.run(
            self.argv(*words), env=self.env, cwd=self.folder, capture_output=True, text=True,
            timeout=timeout_s, check=False,
        )  # fmt: skip
        assert code is None or done.returncode == code, f"{words}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def json(self, *words: str, **how: Any) -> Any:
        return json.loads(self(*words, "--json", **how).stdout)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Run beside the test; its progress can be read line by line from ``stderr``."""
        return subprocess.Popen(
            self.argv(*words), env=self.env, cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip


def a_stranger_is_refused(shell: Shell, spec: Callable[..., Path], fingerprint: str) -> Path:
    """Servers that are not the one that was meant; gives a spec with the right one's certificate.

    ``spec`` writes a spec of that name, with ``tls`` as a mapping's inside.
    """
    told = [
        (spec("other", tls=f"fingerprint: 'ab{'0' * 62}'"), 4, "certificate"),
        (spec("nobody", tls="ca: wrong.pem"), 2, "no such file"),
    ]
    for path, code, words in told:
        done = shell("up", "-f", str(path), code=code)
        assert words in done.stderr
        assert "next:" in done.stderr
    return spec("pinned", tls=f"fingerprint: {fingerprint}")


def a_wrong_password_is_told(shell: Shell, spec: Path) -> None:
    """And not shown; the spec takes it from the environment."""
    shell.env["LAB_PASSWORD"] = "hunter2"
    done = shell("up", "-f", str(spec), code=4)
    assert "wrong name or password" in done.stderr
    assert "hunter2" not in done.stderr


@pytest.fixture(scope="session")
def images() -> Path:
    """The folder with the guest image; the tests build none."""
    store = state.default().images
    if image.find(store) is None:
        pytest.fail("the guest image is not built: make image")
    return store


@pytest.fixture
def shell(images: Path) -> Iterator[Shell]:
    folder = Path(tempfile.mkdtemp(prefix="provision-test-", dir="/var/tmp"))
    folder.chmod(0o755)
    (folder / "images").symlink_to(images)
    golden = images.parent / "testbeds" / ".golden"  # else each test would boot its own
    golden.mkdir(parents=True, exist_ok=True)
    (folder / "testbeds").mkdir()
    (folder / "testbeds" / ".golden").symlink_to(golden)
    found = Shell(folder)
    yield found
    for name in {name for name, _, _ in testbeds(folder)}:
        found("down", "-n", name)
    shutil.rmtree(folder)


def host_now() -> dict[str, Any]:
    """All that a testbed could leave behind on this host."""

    def said(*words: str) -> str:
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout

    links = json.loads(said("ip", "-j", "link"))
    return {
        "links": sorted((x["ifname"], x["flags"], x["mtu"], x.get("master")) for x in links),
        "addresses": said("ip", "-br", "addr"),
        "routes": said("ip", "route"),
        "namespaces": sorted(said("ip", "netns").split("\n")),
        "domains": said("virsh", "-c", URI, "list", "--all", "--name").split(),
        "qemu": said("pgrep", "-fa", "qemu-system").count("guest=test"),
        "qdiscs": said("tc", "qdisc"),
        "groups": sorted(str(p) for p in Path("/sys/fs/cgroup").glob("*/provision.test*")),
        "sshd": said("pgrep", "-fa", "provision-sshd").count("testbeds/test"),
        "mounts": said("grep", "-c", "testbeds/test/", "/proc/mounts"),
    }


@pytest.fixture
def as_before() -> Callable[[], None]:
    """Call it at the end: it fails where the host is not as at the beginning."""
    before = host_now()

    def check() -> None:
        assert host_now() == before

    return check


@pytest.fixture
def xen(shell: Shell) -> Iterator[Any]:
    """An emulated Xen host, whose dom0 must be the same before and after."""
    from tests.live.xen_bed import bed
    from tests.peers.xen.lab import shared

    with bed(shell, shared()) as found:
        yield found
