"""Plays by the real ansible-runner on this machine: results, events, and each known trap."""

from __future__ import annotations

import json
import multiprocessing
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provision import playing as playbook
from provision.errors import Interrupted, PreflightError, Unreachable, WorkloadError
from provision.playing import Player
from provision.playing.events import Played, TaskEvent, note

LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}


def inventory(*hosts: str, **variables: Any) -> dict[str, Any]:
    return {"all": {"children": {"guests": {"hosts": {h: LOCAL | variables for h in hosts}}}}}


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of playbooks in place of ours."""
    folder = tmp_path / "books"
    folder.mkdir()
    (folder / "ansible.cfg").write_text((playbook.playbooks() / "ansible.cfg").read_text())
    monkeypatch.setattr(playbook, "playbooks", lambda: folder)
    return folder


def book(folder: Path, *tasks: dict[str, Any], hosts: str = "guests") -> str:
    """A playbook of one play; JSON is YAML."""
    play = {"name": "The play", "hosts": hosts, "gather_facts": False, "tasks": tasks}
    (folder / "book.yml").write_text(json.dumps([play]))
    return "book.yml"


def command(words: str, name: str = "Say") -> dict[str, Any]:
    return {"name": name, "ansible.builtin.raw": words, "changed_when": False}


def test_a_play_gives_results_stats_and_events(books: Path, tmp_path: Path) -> None:
    seen: list[TaskEvent] = []
    book(
        books,
        command("echo hello {{ who }}"),
        {
            "name": "Tell",
            "ansible.builtin.set_stats": {"data": {"told": "{{ who }}"}},
            "run_once": True,
        },
        {"name": "Skip", "ansible.builtin.debug": {}, "when": False},
        {"name": "Change", "ansible.builtin.raw": "true", "changed_when": True},
    )
    player = Player(tmp_path / "run", inventory("vm1", "vm2"), seen.append)
    played = player.play("book.yml", "first", {"who": "world"})
    assert played.hosts == {"vm1", "vm2"}
    assert played.results["vm2"]["Say"]["stdout"].strip() == "hello world"
    assert played.stats == {"told": "world"}
    mine = [(e.task, e.status) for e in seen if e.host == "vm1"]
    assert mine == [
        ("Say", "start"), ("Say", "ok"), ("Tell", "start"), ("Tell", "ok"),
        ("Skip", "start"), ("Skip", "skipped"), ("Change", "start"), ("Change", "changed"),
    ]  # fmt: skip
    assert all(e.elapsed_s >= 0 for e in seen)


def test_variables_of_one_play_do_not_reach_the_next(books: Path, tmp_path: Path) -> None:
    book(books, command("echo {{ who | default('nobody') }}"))
    player = Player(tmp_path / "run", inventory("vm1"))
    first = player.play("book.yml", "first", {"who": "me"})
    second = player.play("book.yml", "second", {})
    said = [p.results["vm1"]["Say"]["stdout"].strip() for p in (first, second)]
    assert said == ["me", "nobody"]


def test_an_ident_is_used_once(books: Path, tmp_path: Path) -> None:
    book(books, command("true"))
    player = Player(tmp_path / "run", inventory("vm1"))
    player.play("book.yml", "first", {})
    with pytest.raises(WorkloadError, match="has been run before"):
        player.play("book.yml", "first", {})


def test_only_what_is_listed_of_the_environment_passes(
    books: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "s3cret-t0ken")
    # what an automation controller sets for its own runner, and would break this one
    monkeypatch.setenv("ANSIBLE_STDOUT_CALLBACK", "awx_display_of_another")
    monkeypatch.setenv("ANSIBLE_FORKS", "1")
    monkeypatch.setenv("ANSIBLE_CONFIG", "/dev/null")
    book(books, command("env; echo forks {{ lookup('config', 'DEFAULT_FORKS') }}, "
                        "gathering {{ lookup('config', 'DEFAULT_GATHERING') }}"))  # fmt: skip
    played = Player(tmp_path / "run", inventory("vm1", "vm2", "vm3")).play("book.yml", "a", {})
    said = played.results["vm1"]["Say"]["stdout"]
    assert "forks 3, gathering explicit" in said  # of our ansible.cfg
    assert "SOME_TOKEN" not in said
    for path in (tmp_path / "run").rglob("*"):
        assert path.is_dir() or "s3cret-t0ken" not in path.read_text(), path


def test_a_failure_tells_host_task_and_the_commands_own_words(books: Path, tmp_path: Path) -> None:
    book(books, command("echo no disk of {{ inventory_hostname }} >&2; exit 3", name="Try"))
    with pytest.raises(WorkloadError) as e:
        Player(tmp_path / "run", inventory("vm1", "vm2")).play("book.yml", "a", {})
    assert sorted(str(e.value).splitlines()) == [
        "vm1: Try: no disk of vm1",
        "vm2: Try: no disk of vm2",
    ]


def test_a_failure_that_the_play_ignores_is_none(books: Path, tmp_path: Path) -> None:
    book(books, command("exit 3", name="Try") | {"ignore_errors": True})
    played = Player(tmp_path / "run", inventory("vm1")).play("book.yml", "a", {})
    assert played.results["vm1"]["Try"]["rc"] == 3


def test_a_failure_in_a_loop_tells_the_item_that_failed(books: Path, tmp_path: Path) -> None:
    book(books, command("test {{ item }} = good || { echo bad {{ item }}; exit 1; }")
         | {"loop": ["good", "worse"]})  # fmt: skip
    with pytest.raises(WorkloadError) as e:
        Player(tmp_path / "run", inventory("vm1")).play("book.yml", "a", {})
    assert str(e.value) == "vm1: Say: bad worse"


def test_a_host_out_of_reach_is_told(books: Path, tmp_path: Path) -> None:
    book(books, command("true"))
    away = inventory("vm1", ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=1)
    with pytest.raises(Unreachable, match=r"vm1: Say: .*Connection refused"):
        Player(tmp_path / "run", away).play("book.yml", "a", {})


def test_a_play_that_means_nobody_has_failed(books: Path, tmp_path: Path) -> None:
    book(books, command("true"), hosts="loadgenerators")
    with pytest.raises(WorkloadError, match="The play: no host in the inventory is meant"):
        Player(tmp_path / "run", inventory("vm1")).play("book.yml", "a", {})


def test_a_playbook_that_cannot_be_read_is_told(books: Path, tmp_path: Path) -> None:
    (books / "book.yml").write_text("- hosts: guests\n  taks: []\n")
    with pytest.raises(WorkloadError, match="'taks' is not a valid attribute"):
        Player(tmp_path / "run", inventory("vm1")).play("book.yml", "a", {})


def test_ansible_that_is_not_installed_is_told(
    books: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book(books, command("true"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sysconfig.get_path", lambda _name: str(tmp_path))
    with pytest.raises(PreflightError, match="ansible-playbook could not be started") as e:
        Player(tmp_path / "run", inventory("vm1")).play("book.yml", "a", {})
    assert "ansible-core" in e.value.hint


def _alive(mark: str) -> list[str]:
    """The processes that bear a mark, but for those that have ended and wait for their parent."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text().replace("\0", " ")
        except OSError:
            continue
        if mark in words:
            found.append(words)
    return found


@pytest.mark.parametrize("how", ["cancelled", "too long"])
def test_nothing_goes_on_after_the_end(books: Path, tmp_path: Path, how: str) -> None:
    mark = f"mark-{time.time_ns()}"
    started: list[TaskEvent] = []
    book(books, command(f"sh -c 'sleep 60; echo {mark}'"))
    player = Player(
        tmp_path / "run", inventory("vm1"), started.append,
        cancelled=lambda: how == "cancelled" and bool(_alive(f"sleep 60; echo {mark}")),
    )  # fmt: skip
    with pytest.raises(Interrupted if how == "cancelled" else WorkloadError):
        player.play("book.yml", "a", {}, timeout_s=60 if how == "cancelled" else 3)
    assert [e.status for e in started] == ["start"]
    assert _alive(mark) == []


def test_nothing_goes_on_after_its_controller_was_killed(books: Path, tmp_path: Path) -> None:
    mark = f"mark-{time.time_ns()}"
    book(books, command(f"sh -c 'sleep 60; echo {mark}'"))
    context = multiprocessing.get_context("fork")
    victim = context.Process(
        target=Player(tmp_path / "run", inventory("vm1")).play, args=("book.yml", "a", {})
    )
    victim.start()
    _until(lambda: _alive(f"sleep 60; echo {mark}"))
    victim.kill()
    victim.join(30)
    _until(lambda: not _alive(mark))


def _until(so: Callable[[], object], limit_s: float = 30) -> None:
    """Processes that are not our children give no event: they have to be looked for."""
    deadline = time.monotonic() + limit_s
    while not so():
        assert time.monotonic() < deadline
        select.select([], [], [], 0.05)


def test_words_that_are_no_event_are_kept() -> None:
    played = Played()
    for line in (b"", b"Traceback: no such thing", b"[1]", b'{"event": 5}'):
        assert list(note(line, played, {})) == []
    assert played.words == ["Traceback: no such thing", "[1]"]


def test_hosts_are_counted_through_all_groups() -> None:
    groups = {
        "all": {
            "hosts": {"a": None},
            "children": {
                "x": {"hosts": {"b": {}, "c": {}}},
                "y": {"children": {"z": {"hosts": {"d": {}}}}},
                "n": None,
            },
        }
    }
    assert playbook.environment(playbook._count(groups))["ANSIBLE_FORKS"] == "4"
