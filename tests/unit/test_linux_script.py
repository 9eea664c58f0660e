"""Changes as one command: its text, and an error that names the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.linux.script import Script
from provision.errors import DriverError, HostError
from provision.host import Host

TEXT = """\
ip -batch - <<'END' || { echo step 0 >&2; exit 1; }
link add b1 type bridge
link set b1 up
END
[ ! -e /proc/x ] || echo 1 > /proc/x
ip -n lg -batch - <<'END' || { echo step 2 >&2; exit 1; }
link set c1 up
END
tc -batch - <<'END' || { echo step 3 >&2; exit 1; }
qdisc del dev b1 root
END
ovs-vsctl add-br 'a b'
"""


def test_lines_for_one_tool_are_one_batch() -> None:
    script = Script()
    script.ip("link", "add", "b1", "type", "bridge")
    script.ip("link", "set", "b1", "up")
    script.write("/proc/x", 1)
    script.ip("link", "set", "c1", "up", inside="lg")
    script.tc("qdisc", "del", "dev", "b1", "root")
    script.run_words("ovs-vsctl", "add-br", "a b")
    assert script.text() == TEXT


@pytest.mark.parametrize("word", ["", "a b", "a\nlink del eth0", "#", "'", '"', "a\\"])
def test_a_word_cannot_end_its_line(word: str) -> None:
    with pytest.raises(DriverError, match="cannot be a word"):
        Script().ip("link", "set", word)


def test_nothing_to_do_is_no_command() -> None:
    assert Script().run(Host("h", ("/no/such/command",))) == ""


def test_a_failure_names_its_line_and_ends_it(tmp_path: Path) -> None:
    script = Script()
    script.sh(f"touch {tmp_path}/first")
    script.ip("link", "show", "lo")
    script.ip("link", "show", "pv-nosuch")
    script.ip("link", "show", "lo")
    script.sh(f"touch {tmp_path}/last")
    with pytest.raises(HostError) as e:
        script.run(Host())
    assert "(ip link show pv-nosuch)" in str(e.value)
    assert "does not exist" in str(e.value)
    assert "step" not in str(e.value)
    assert [p.name for p in tmp_path.iterdir()] == ["first"]


def test_a_refusal_says_who_may() -> None:
    script = Script()
    script.sh("echo 'RTNETLINK answers: Operation not permitted' >&2; exit 2")
    with pytest.raises(HostError, match="not permitted") as e:
        script.run(Host())
    assert "root" in e.value.hint
