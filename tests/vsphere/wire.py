"""A wire that writes down each call, judges it, and does to it what servers and networks do.

The judge is pyVmomi's own type information, which comes from the vSphere API's definition: pyVmomi
itself sends a wrong enum value, or a data object that lacks a required field, without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from threading import Event, Lock
from typing import Any, Literal

from pyVmomi import SoapAdapter, VmomiSupport

from drivers.https import Reply
from drivers.vsphere.connect import HARMLESS
from drivers.vsphere.reply import Replies
from drivers.vsphere.request import Unusual
from drivers.vsphere.wire import Endpoint, Wire
from tests.peers.vcsim import vim, vmodl

Fault: Any = vmodl.MethodFault
_QUERY: Any = vmodl.query.PropertyCollector
_support: Any = VmomiSupport
_soap: Any = SoapAdapter
_TASKS: Any = _support.GetVmodlType("vim.Task[]")
#: ``instead``: the server never acts; ``after``: it has; ``task``: it starts one, which fails;
#: ``late``: it starts one, which ends only when somebody waits for it
When = Literal["instead", "after", "task", "late"]
OURSELVES = frozenset({"Login", "Logout"})  # what a session is made of, and nothing of a testbed
TICK_S = 0.05
_BITS: Mapping[Any, int] = {_support.byte: 8, _support.short: 16, int: 32, _support.long: 64}


@dataclass(frozen=True, slots=True)
class Call:
    """One call; ``info`` is pyVmomi's description of the method. ``done``: the server did it."""

    on: Any
    info: Any
    args: tuple[Any, ...]
    done: bool

    @property
    def method(self) -> str:
        return str(self.info.wsdlName)

    @property
    def named(self) -> dict[str, Any]:
        """The arguments by their names in the API."""
        return {p.name: a for p, a in zip(self.info.params, self.args, strict=True)}

    @property
    def changes(self) -> bool:
        return self.method not in HARMLESS | OURSELVES


@dataclass(slots=True)
class Trouble:
    """What befalls the ``nth`` call of a method ("*": of all), and ``times - 1`` more."""

    method: str
    error: Callable[[Any], BaseException]
    when: When = "instead"
    nth: int = 1
    times: int = 1
    met: int = 0

    def due(self, method: str) -> bool:
        """Whether this call is one; it is counted."""
        if self.method not in ("*", method):
            return False
        self.met += 1
        return self.nth <= self.met < self.nth + self.times

    @property
    def struck(self) -> bool:
        return self.met >= self.nth


@dataclass(frozen=True, slots=True)
class Late:
    """A task that runs on the object ``on``; ``act`` is what it does."""

    task: Any
    on: Any
    act: Callable[[], None]


@dataclass(slots=True)
class Wires:
    """Makes wires (a ``WireType``) that share a log and their troubles.

    ``faults`` is what was wrong with what was sent, where that is ``judged``; ``unlike`` what is
    not as pyVmomi itself writes or reads it, where both are ``compared``, and ``left`` the replies
    that only pyVmomi reads.
    """

    judged: bool = False
    compared: bool = False
    unlike: list[str] = field(default_factory=list)
    left: list[bytes] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    log: list[Call] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    tasks: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)
    numbers: count[int] = field(default_factory=count)
    late: list[Late] = field(default_factory=list)

    def __call__(self, to: Endpoint, version: str) -> Wire:
        return _Faulty(to, version, self)

    def arm(self, method: str, error: Callable[[Any], BaseException], **more: Any) -> Trouble:
        """From now on this, and nothing else; the log starts anew."""
        self.calm()
        self.troubles.append(Trouble(method, error, **more))
        return self.troubles[0]

    def calm(self) -> None:
        self.troubles.clear()
        self.log.clear()
        self.late.clear()
        self.tasks.clear()

    @property
    def changes(self) -> list[str]:
        """The calls that would change something, whatever became of them, in order."""
        return [c.method for c in self.log if c.changes]

    def sent(self, method: str) -> list[Call]:
        return [c for c in self.log if c.method == method]

    def done(self, *methods: str) -> list[str]:
        """The calls that the server did and that change something, of these methods or of any."""
        with self.lock:
            return [
                c.method for c in self.log
                if c.done and (c.method in methods if methods else c.changes)
            ]  # fmt: skip

    def task(self, **info: Any) -> Any:
        """A task that the server knows nothing of, in this state."""
        found = vim.Task(f"task-of-the-test-{next(self.numbers)}")
        self.tasks[found._moId] = {f"info.{name}": value for name, value in info.items()}
        return found

    @property
    def stuck(self) -> bool:
        """Whether a task that we made up never ends."""
        return any(has["info.state"] == "running" for has in self.tasks.values())

    def due(self, method: str, on: Any) -> tuple[When, BaseException] | None:
        with self.lock:
            for trouble in self.troubles:
                if trouble.due(method):
                    return trouble.when, trouble.error(on)
        return None

    def note(self, on: Any, info: Any, args: Sequence[Any], *, done: bool) -> None:
        with self.lock:
            self.log.append(Call(on, info, tuple(args), done))
            for param, value in zip(info.params, args, strict=True) if self.judged else ():
                self.faults += [f"{info.wsdlName}.{f}" for f in judge(param, value)]


class _Faulty(Wire):
    def __init__(self, to: Endpoint, version: str, wires: Wires) -> None:
        super().__init__(to, version)
        self._wires = wires
        self._pause = Event()

    def InvokeMethod(self, mo: Any, info: Any, args: Any, outer: Any = None) -> Any:  # noqa: N802
        if (made_up := self._of_ours(info.wsdlName, mo, args, outer)) is not None:
            return made_up
        when, error = self._wires.due(info.wsdlName, mo) or ("", None)
        if when in ("instead", "task"):
            self._wires.note(mo, info, args, done=False)
        if when == "task":
            return 200, self._wires.task(state="error", error=error)
        if when == "late":
            self._begin(mo, info, args)
        if when in ("instead", "late"):
            return _struck(error, outer)
        if self._wires.late and info.wsdlName.endswith("_Task"):
            return _struck(_busy(self._wires.late[0], mo), outer)
        try:
            found = super().InvokeMethod(mo, info, args, outer)
        except Exception:
            self._wires.note(mo, info, args, done=False)
            raise
        failed = outer is not None and found[0] != 200
        self._wires.note(mo, info, args, done=not failed)
        return _struck(error, outer) if when == "after" else found

    def SerializeRequest(self, mo: Any, info: Any, args: Any) -> bytes:  # noqa: N802
        plain: bytes = super().SerializeRequest(mo, info, args)
        if self._wires.compared:
            by_pyvmomi = _soap.SoapStubAdapter.SerializeRequest(self, mo, info, args)
            if not self._requests.write(mo, info, args) == by_pyvmomi == plain:
                self._wires.unlike.append(f"the request of {info.wsdlName}")
        return plain

    def _read(self, reply: Reply, stub: Any, result: Any) -> Any:
        found = super()._read(reply, stub, result)
        if self._wires.compared and reply.status == 200:
            by_pyvmomi = _soap.SoapResponseDeserializer(stub).Deserialize(reply.body, result)
            self._wires.unlike += unlike(found, by_pyvmomi)
            try:
                Replies(stub).quickly(reply.body, result)
            except Unusual:
                self._wires.left.append(reply.body)
        return found

    def _begin(self, mo: Any, info: Any, args: Any) -> None:
        """A task that has begun, and that nobody was told of."""

        def act() -> None:
            super(_Faulty, self).InvokeMethod(mo, info, args)
            self._wires.note(mo, info, args, done=True)

        self._wires.late.append(Late(self._wires.task(state="running"), mo, act))

    def _of_ours(self, method: str, mo: Any, args: Any, outer: Any) -> tuple[int, Any] | None:
        """The answer to a question after a task that we made up, None for all others."""
        known, late = self._wires.tasks, self._wires.late
        if method == "RetrievePropertiesEx":
            asked = [o.obj for part in args[0] for o in part.objectSet]
            paths = [*args[0][0].propSet[0].pathSet]
            if late and paths == ["recentTask"] and asked[0]._moId == late[0].on._moId:
                return 200, _answer({asked[0]: {"recentTask": _TASKS([late[0].task])}})
            if asked and all(ref._moId in known for ref in asked):
                self._end(asked)
                return 200, _answer({ref: known[ref._moId] for ref in asked})
        elif method == "CreateFilter" and args[0].objectSet[0].obj._moId in known:
            return 200, _QUERY.Filter(f"of-{args[0].objectSet[0].obj._moId}", outer)
        elif method == "DestroyPropertyFilter" and mo._moId.removeprefix("of-") in known:
            return 200, None
        elif method == "WaitForUpdatesEx" and self._wires.stuck:
            self._pause.wait(TICK_S)
            return 200, None
        return None

    def _end(self, asked: Sequence[Any]) -> None:
        """Who waits for a task that is late has it end."""
        names = [ref._moId for ref in asked]
        while self._wires.late and self._wires.late[0].task._moId in names:
            one = self._wires.late.pop(0)
            one.act()
            self._wires.tasks[one.task._moId] = {"info.state": "success"}


def _answer(found: Mapping[Any, Mapping[str, Any]]) -> Any:
    objects = [
        _QUERY.ObjectContent(
            obj=ref, propSet=[vmodl.DynamicProperty(name=k, val=v) for k, v in has.items()]
        )
        for ref, has in found.items()
    ]
    return _QUERY.RetrieveResult(objects=objects)


def _busy(late: Late, on: Any) -> Any:
    """What another task is answered meanwhile: a name that is taken already, or a busy VM."""
    if isinstance(late.on, vim.Folder) or on._moId != late.on._moId:
        return vim.fault.DuplicateName(name="one that is being made", object=late.on)
    return vim.fault.TaskInProgress(task=late.task)


def _struck(error: BaseException | None, outer: Any) -> tuple[int, Any]:
    """A fault is an answer; what breaks a connection is raised."""
    assert error is not None
    if isinstance(error, Fault) and outer is not None:
        return 500, error
    raise error


def unlike(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Where two replies differ, types and all."""
    if type(one) is not type(other):
        yield f"{path}: {type(one)}, not {type(other)}"
    elif isinstance(one, list):
        if len(one) != len(other):
            yield f"{path}: {len(one)} of {len(other)}"
        for number, (mine, its) in enumerate(zip(one, other, strict=False)):
            yield from unlike(mine, its, f"{path}[{number}]")
    elif isinstance(one, (_support.DataObject, _support.ManagedObject)):
        if list(vars(one)) != list(vars(other)):
            yield f"{path}: other fields"
        for name, mine in vars(one).items():
            yield from unlike(mine, vars(other)[name], f"{path}.{name}")
    elif one != other:
        yield f"{path}: {one!r}, not {other!r}"


def judge(info: Any, value: Any) -> Iterator[str]:
    """What is wrong with a value that is sent for a parameter or a field."""
    if value is None:
        if not info.flags & _support.F_OPTIONAL:
            yield f"{info.name}: required, and not set"
        return
    if isinstance(value, list):
        item = getattr(info.type, "Item", info.type)
        for one in value:
            yield from (f"{info.name}[]{f}" for f in _value(item, one))
    else:
        yield from (f"{info.name}{f}" for f in _value(info.type, value))


def _value(kind: Any, value: Any) -> Iterator[str]:
    if isinstance(value, _support.DataObject):
        for field_ in value._GetPropertyList():
            yield from (f".{f}" for f in judge(field_, getattr(value, field_.name)))
    elif (known := getattr(kind, "values", None)) is not None and issubclass(kind, _support.Enum):
        if value not in known:
            yield f": {value!r} is none of {', '.join(known)}"
    elif (bits := _BITS.get(kind)) and not -(1 << bits - 1) <= value < 1 << bits - 1:
        yield f": {value} has more than {bits} bits"
