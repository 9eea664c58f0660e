"""A wire that tells what goes over it, judges it, and breaks when it is told to.

The judge is pyVmomi's own type information, which comes from the vSphere API's definition: pyVmomi
itself sends a wrong enum value, or a data object that lacks a required field, without a word.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pyVmomi import VmomiSupport

from drivers.vsphere.connect import HARMLESS
from drivers.vsphere.wire import Endpoint, Wire

support: Any = VmomiSupport
INT_RANGES: Mapping[Any, int] = {
    support.byte: 8,
    support.short: 16,
    int: 32,
    support.long: 64,
}


@dataclass(frozen=True)
class Call:
    """One that was sent; ``args`` by their names in the API."""

    method: str
    on: str
    args: Mapping[str, Any]


@dataclass
class Trouble:
    """What befalls the next call of a method: instead of it, or ``after`` the server has acted."""

    method: str
    what: Callable[[], Exception]
    after: bool = False
    times: int = 1


@dataclass
class Tap:
    """Makes wires (a ``WireType``). ``faults`` is what was wrong with what was sent."""

    calls: list[Call] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, to: Endpoint, version: str) -> Wire:
        return _Tapped(to, version, self)

    def sent(self, *methods: str) -> list[Call]:
        return [c for c in self.calls if c.method in methods]

    @property
    def changes(self) -> list[str]:
        """The calls that change something, in order; logging in is none."""
        ignored = {*HARMLESS, "Login", "Logout"}
        return [c.method for c in self.calls if c.method not in ignored]

    def break_(self, method: str, what: Callable[[], Exception], **more: Any) -> None:
        self.troubles.append(Trouble(method, what, **more))

    def note(self, mo: Any, info: Any, args: Any) -> None:
        named = {p.name: a for p, a in zip(info.params, args, strict=True)}
        with self.lock:
            self.calls.append(Call(info.wsdlName, str(mo._moId), named))
            for param, value in zip(info.params, args, strict=True):
                self.faults += [f"{info.wsdlName}.{f}" for f in judge(param, value)]

    def due(self, method: str, *, after: bool) -> Exception | None:
        with self.lock:
            for trouble in self.troubles:
                if (trouble.method, trouble.after) == (method, after) and trouble.times:
                    trouble.times -= 1
                    return trouble.what()
        return None


class _Tapped(Wire):
    def __init__(self, to: Endpoint, version: str, tap: Tap) -> None:
        super().__init__(to, version)
        self._tap = tap

    def InvokeMethod(  # noqa: N802 (pyVmomi's name)
        self,
        mo: Any,
        info: Any,
        args: Any,
        outerStub: Any = None,  # noqa: N803
    ) -> Any:
        self._tap.note(mo, info, args)
        if (error := self._tap.due(info.wsdlName, after=False)) is not None:
            return self._fail(error, outerStub)
        found = super().InvokeMethod(mo, info, args, outerStub)
        if (error := self._tap.due(info.wsdlName, after=True)) is not None:
            return self._fail(error, outerStub)
        return found

    def _fail(self, error: Exception, outer: Any) -> Any:
        """A fault comes as an answer, all else is raised."""
        if isinstance(error, support.GetVmodlType("vmodl.MethodFault")) and outer is not None:
            return 500, error
        raise error


def judge(info: Any, value: Any) -> Iterator[str]:
    """What is wrong with a value that is sent for a parameter or a field."""
    if value is None:
        if not info.flags & support.F_OPTIONAL:
            yield f"{info.name}: required, and not set"
        return
    if isinstance(value, list):
        item = getattr(info.type, "Item", info.type)
        for one in value:
            yield from (f"{info.name}[]{f}" for f in _value(item, one))
    else:
        yield from (f"{info.name}{f}" for f in _value(info.type, value))


def _value(kind: Any, value: Any) -> Iterator[str]:
    if isinstance(value, support.DataObject):
        for field_ in value._GetPropertyList():
            yield from (f".{f}" for f in judge(field_, getattr(value, field_.name)))
    elif (known := getattr(kind, "values", None)) is not None and issubclass(kind, support.Enum):
        if value not in known:
            yield f": {value!r} is none of {', '.join(known)}"
    elif (bits := INT_RANGES.get(kind)) and not -(1 << bits - 1) <= value < 1 << bits - 1:
        yield f": {value} has more than {bits} bits"
