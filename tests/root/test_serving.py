"""What starts servers on guests: a port that the kernel still remembers is waited for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.root.machines import marks

pytestmark = marks
SERVING = Path(__file__).parents[2] / "playbooks" / "serving.sh"
SERVER = """
import signal, socket
with socket.socket() as s:
    s.bind(("127.0.0.1", 7000))  # without SO_REUSEADDR
    s.listen()
    signal.pause()
"""
#: a server that went away while its client did not
LEFT = """
import pathlib, socket, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
pathlib.Path("/proc/sys/net/ipv4/tcp_fin_timeout").write_text(sys.argv[1])
with socket.create_server(("127.0.0.1", 7000)) as s:
    client = socket.create_connection(("127.0.0.1", 7000))
    s.accept()[0].close()
sys.exit(subprocess.run(sys.argv[2:]).returncode)
"""


def _start(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    script = f"FOLDER={folder} SERVER=python lifetime_s=60\n{SERVING.read_text()}\n{command}"
    words = ["unshare", "--net", sys.executable, "-c", LEFT, "2", "sh", "-c", script, "-", SERVER]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def test_a_port_that_is_not_forgotten_yet_is_waited_for(tmp_path: Path) -> None:
    serve = f'start 127.0.0.1 7000 {sys.executable} -c "$1"'
    done = _start(tmp_path, f"{serve}; listening 127.0.0.1 7000 && echo serves; stop")
    assert done.stdout == "serves\n", done.stderr
    assert "Address already in use" in (tmp_path / "python.log").read_text(), "it was never refused"


def test_what_cannot_start_is_told_at_once(tmp_path: Path) -> None:
    done = _start(tmp_path, "start 127.0.0.1 7001 python-of-nobody")
    assert done.returncode == 1
    assert done.stdout.startswith("python did not come up on 127.0.0.1:7001: ")
