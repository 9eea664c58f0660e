"""Questions of several threads go in one call; each gets its own answer, none waits for ever."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyVmomi")

from drivers.vsphere import together as room
from drivers.vsphere.api import Gone, vim
from drivers.vsphere.together import Together

END_S = 20


@dataclass
class Server:
    """Answers a path with the object's name and the path; each call waits to be let through."""

    gone: set[str] = field(default_factory=set)
    error: BaseException | None = None
    held: bool = False
    calls: list[list[str]] = field(default_factory=list)
    came: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    through: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def RetrievePropertiesEx(self, specs: Any, _options: Any) -> Any:  # noqa: N802 (the API's name)
        asked = [
            (one.obj, [*prop.pathSet]) for s in specs for one in s.objectSet for prop in s.propSet
        ]
        self.calls.append([ref._moId for ref, _ in asked])
        self.came.release()
        if self.held:
            assert self.through.acquire(timeout=END_S)
        if self.error is not None:
            raise self.error
        found = [
            SimpleNamespace(
                obj=ref, missingSet=[],
                propSet=[SimpleNamespace(name=p, val=f"{ref._moId} {p}") for p in paths],
            )
            for ref, paths in asked if ref._moId not in self.gone
        ]  # fmt: skip
        return SimpleNamespace(objects=found, token=None)


def over(server: Server) -> Together:
    content = SimpleNamespace(propertyCollector=server)
    session: Any = SimpleNamespace(content=content)
    return Together(session)


def vm(number: int) -> Any:
    return vim.VirtualMachine(f"vm-{number}")


def test_who_is_alone_asks_at_once() -> None:
    server = Server()
    asked = over(server)
    assert asked.get(vm(1), "name", "parent") == {"name": "vm-1 name", "parent": "vm-1 parent"}
    assert asked.ask([(vm(1), ("name",)), (vm(2), ("parent",))]) == [
        {"name": "vm-1 name"}, {"parent": "vm-2 parent"},
    ]  # fmt: skip
    assert len(server.calls) == 2


def test_who_comes_meanwhile_goes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PATIENCE_S", END_S)
    server = Server(held=True)
    asked = over(server)
    with ThreadPoolExecutor(10) as pool:
        first = pool.submit(asked.get, vm(0), "name")
        assert server.came.acquire(timeout=END_S)
        others = [pool.submit(asked.get, vm(n), "name") for n in range(1, 9)]
        _until(lambda: len(asked._waiting) == 8)
        server.through.release(2)
        assert first.result(END_S) == {"name": "vm-0 name"}
        found = [f.result(END_S) for f in others]
    assert found == [{"name": f"vm-{n} name"} for n in range(1, 9)]
    assert [len(c) for c in server.calls] == [1, 8]


def test_a_call_that_takes_long_is_overtaken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PATIENCE_S", 0.01)
    server = Server(held=True)
    asked = over(server)
    with ThreadPoolExecutor(4) as pool:
        slow = pool.submit(asked.get, vm(0), "name")
        assert server.came.acquire(timeout=END_S)
        quick: list[Future[Any]] = [pool.submit(asked.get, vm(1), "name")]
        assert server.came.acquire(timeout=END_S)  # the second call, beside the first
        server.held = False
        server.through.release(2)
        assert quick[0].result(END_S) == {"name": "vm-1 name"}
        assert slow.result(END_S) == {"name": "vm-0 name"}
    assert asked.get(vm(2), "name") == {"name": "vm-2 name"}
    assert (asked._asking, asked._waiting) == (0, [])


def test_one_that_is_gone_is_the_error_of_who_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PATIENCE_S", END_S)
    server = Server(held=True, gone={"vm-2"})
    asked = over(server)
    with ThreadPoolExecutor(4) as pool:
        pool.submit(asked.get, vm(0), "name")
        assert server.came.acquire(timeout=END_S)
        one, two = (pool.submit(asked.get, vm(n), "name") for n in (1, 2))
        _until(lambda: len(asked._waiting) == 2)
        server.through.release(2)
        assert one.result(END_S) == {"name": "vm-1 name"}
        with pytest.raises(Gone):
            two.result(END_S)
    assert len(server.calls) == 2


def test_whatever_breaks_is_told_to_all_and_the_next_may_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "PATIENCE_S", END_S)
    server = Server(held=True)
    asked = over(server)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(asked.get, vm(0), "name")
        assert server.came.acquire(timeout=END_S)
        others = [pool.submit(asked.get, vm(n), "name") for n in (1, 2)]
        _until(lambda: len(asked._waiting) == 2)
        server.error = ValueError("broken")
        server.through.release(2)
        for each in (first, *others):
            with pytest.raises(ValueError, match="broken"):
                each.result(END_S)
    server.error, server.held = None, False
    assert asked.get(vm(3), "name") == {"name": "vm-3 name"}


def _until(seen: Any) -> None:
    """Threads that are about to wait give no event."""
    waited = threading.Event()
    for _ in range(END_S * 200):
        if seen():
            return
        waited.wait(0.005)
    raise AssertionError("it did not come to that")
