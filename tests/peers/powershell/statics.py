"""The .NET types that a script may use by name: [Convert], [Console], [IO.File] and a few more."""

from __future__ import annotations

import base64
import binascii
import math
import ntpath
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from tests.peers.powershell.convert import integer
from tests.peers.powershell.errors import Unsupported, method_failed
from tests.peers.powershell.host import FileFault, Host
from tests.peers.powershell.values import (
    NOTHING,
    EnumValue,
    NetList,
    PSObject,
    Table,
    TypeRef,
    text,
)

UTF8 = ("utf-8", False)


class Encoding:
    """A text encoding; ``bom``: whether text that is written begins with its mark."""

    def __init__(self, name: str, *, bom: bool, strict: bool = False) -> None:
        self.name, self.bom, self.strict = name, bom, strict

    def ps_get(self, name: str) -> Any:
        if name == "webname":
            return self.name
        raise Unsupported(f"the property {name} of an encoding")

    def ps_call(self, name: str, given: list[Any]) -> Any:
        if name == "getbytes" and len(given) == 1:
            return text(given[0]).encode(self.name, "surrogatepass" if self.strict else "replace")
        if name == "getstring" and len(given) == 1 and isinstance(given[0], bytes):
            try:
                return given[0].decode(self.name, "strict" if self.strict else "replace")
            except UnicodeDecodeError as e:
                raise method_failed(
                    "GetString", 1, "System.Text.DecoderFallbackException", str(e)
                ) from e
        raise Unsupported(f"the method {name} of an encoding")


class Reader:
    """[Console]::In."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def ps_get(self, name: str) -> Any:
        raise Unsupported(f"[Console]::In.{name}")

    def ps_call(self, name: str, given: list[Any]) -> Any:
        if name == "readline" and not given:
            return self._host.read_line()
        if name == "readtoend" and not given:
            return self._host.read_all()
        raise Unsupported(f"[Console]::In.{name}")


class Writer:
    """[Console]::Out and [Console]::Error."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def ps_get(self, name: str) -> Any:
        raise Unsupported(f"[Console]::Out.{name}")

    def ps_call(self, name: str, given: list[Any]) -> Any:
        if name in ("write", "writeline") and len(given) <= 1:
            self._write("".join(text(v) for v in given) + ("\r\n" if name == "writeline" else ""))
            return NOTHING
        if name == "flush":
            return NOTHING
        raise Unsupported(f"[Console]::Out.{name}")


class Mutex:
    """System.Threading.Mutex by a name that the whole machine knows."""

    def __init__(self, host: Host, name: str) -> None:
        self._host, self._name = host, name

    def ps_get(self, name: str) -> Any:
        raise Unsupported(f"the property {name} of a mutex")

    def ps_call(self, name: str, given: list[Any]) -> Any:
        if name == "waitone":
            if given and isinstance(given[0], bool):
                raise Unsupported("WaitOne of a truth")
            wait_s = integer(given[0]) / 1000 if given else -1.0
            return self._host.mutexes.take(self._name, wait_s)
        if name == "releasemutex":
            if not self._host.mutexes.give(self._name):
                raise method_failed(
                    "ReleaseMutex",
                    0,
                    "System.ApplicationException",
                    "Object synchronization method was called from an"
                    " unsynchronized block of code.",
                )
            return NOTHING
        if name in ("dispose", "close"):
            return NOTHING
        raise Unsupported(f"the method {name} of a mutex")


class Stopwatch:
    """System.Diagnostics.Stopwatch, running since it was made."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def ps_get(self, name: str) -> Any:
        if name == "elapsedmilliseconds":
            return int((time.monotonic() - self._since) * 1000)
        raise Unsupported(f"the property {name} of a stopwatch")

    def ps_call(self, name: str, _given: list[Any]) -> Any:
        raise Unsupported(f"the method {name} of a stopwatch")


class Statics:
    """Static members, and what ``New-Object`` makes, for one process."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def get(self, kind: TypeRef, name: str) -> Any:
        at = f"{kind.name}::{name}".lower()
        found: Mapping[str, Callable[[], Any]] = {
            "system.console::in": lambda: Reader(self._host),
            "system.console::out": lambda: Writer(self._host.write_out),
            "system.console::error": lambda: Writer(self._host.write_err),
            "system.text.encoding::utf8": lambda: Encoding("utf-8", bom=True),
            "system.text.encoding::ascii": lambda: Encoding("ascii", bom=False),
            "system.text.encoding::unicode": lambda: Encoding("utf-16-le", bom=True),
            "system.datetime::utcnow": lambda: datetime.now(UTC),
            "system.datetime::now": datetime.now,
            "system.environment::newline": lambda: "\r\n",
            "system.environment::machinename": lambda: self._host.environment("COMPUTERNAME"),
            "system.guid::empty": lambda: uuid.UUID(int=0),
            "system.int32::maxvalue": lambda: 2**31 - 1,
            "system.intptr::size": lambda: 8,
        }
        if at in found:
            return found[at]()
        enum = _ENUMS.get(kind.name.lower(), {})
        for member, number in enum.items():
            if member.lower() == name.lower():
                return EnumValue(kind.name, member, number)
        raise Unsupported(f"[{kind.name}]::{name}")

    def put(self, kind: TypeRef, name: str, value: Any) -> None:
        at = f"{kind.name}::{name}".lower()
        if at == "system.console::outputencoding" and isinstance(value, Encoding):
            return  # what is written is text of one byte a letter, or we complain
        raise Unsupported(f"setting [{kind.name}]::{name}")

    def call(self, kind: TypeRef, name: str, given: list[Any]) -> Any:
        if name.lower() == "new":
            return self.new(kind.name, given)
        at = f"{kind.name}::{name}".lower()
        if at.startswith(("system.io.file::", "system.io.directory::")):
            return self._file(kind, name, given)
        method = _PURE.get(at)
        if method is None:
            raise Unsupported(f"[{kind.name}]::{name}()")
        try:
            return method(*given)
        except (TypeError, ValueError, binascii.Error) as e:
            raise method_failed(name, len(given), "System.FormatException", str(e)) from e

    def _file(self, kind: TypeRef, name: str, given: list[Any]) -> Any:
        files = self._host.files
        methods: Mapping[str, Callable[..., Any]] = {
            "system.io.file::exists": files.is_file,
            "system.io.file::readallbytes": files.read,
            "system.io.file::writeallbytes": files.write,
            "system.io.file::delete": files.remove,
            "system.io.directory::exists": files.is_folder,
            "system.io.directory::createdirectory": files.make_folder,
            "system.io.directory::delete": files.remove_empty,
        }
        method = methods.get(f"{kind.name}::{name}".lower())
        if method is None:
            raise Unsupported(f"[{kind.name}]::{name}()")
        if name.lower() == "writeallbytes" and not isinstance(given[-1], bytes):
            raise Unsupported("WriteAllBytes of anything but bytes")
        try:
            found = method(*given)
        except FileFault as e:
            raise method_failed(name, len(given), e.kind, str(e)) from e
        return NOTHING if found is None else found

    def new(self, name: str, given: list[Any]) -> Any:
        """An instance, as by ``New-Object`` or ``::new()``."""
        low = name.lower().removeprefix("system.")
        if low == "collections.arraylist" or low.startswith("collections.generic.list["):
            if given and not isinstance(given[0], list | int):
                raise Unsupported(f"a new {name} of {given}")
            items = given[0] if given and isinstance(given[0], list) else []
            return NetList(items, "ArrayList" if "array" in low else "Generic.List`1")
        if low == "text.utf8encoding":
            return Encoding(
                "utf-8", bom=bool(given and given[0]), strict=len(given) > 1 and given[1]
            )
        if low == "threading.mutex" and len(given) == 2 and given[0] is False:
            return Mutex(self._host, text(given[1]))
        if low in ("object", "psobject", "management.automation.psobject") and not given:
            return PSObject()
        if low in ("collections.hashtable", "hashtable") and not given:
            return Table()
        if low == "collections.specialized.ordereddictionary" and not given:
            return Table(ordered=True)
        if low.endswith("exception") and len(given) == 1:
            return PSObject({"Message": text(given[0])}, f"System.{low.title()}")
        raise Unsupported(f"a new {name} with {len(given)} arguments")


def _from_base64(data: Any) -> bytes:
    try:
        return base64.b64decode("".join(text(data).split()), validate=True)
    except binascii.Error as e:
        raise method_failed(
            "FromBase64String",
            1,
            "System.FormatException",
            "The input is not a valid Base-64 string as it contains a"
            " non-base 64 character, more than two padding characters, or"
            " an illegal character among the padding characters.",
        ) from e


def _to_base64(data: Any) -> str:
    if isinstance(data, list):
        data = bytes(data)
    if not isinstance(data, bytes):
        raise Unsupported("ToBase64String of anything but bytes")
    return base64.b64encode(data).decode()


_PURE: Mapping[str, Callable[..., Any]] = {
    "system.convert::frombase64string": _from_base64,
    "system.convert::tobase64string": _to_base64,
    "system.string::isnullorempty": lambda s: s in (None, ""),
    "system.string::isnullorwhitespace": lambda s: not text(s).strip(),
    "system.string::join": lambda mark, *v: text(mark).join(
        text(x) for x in (v[0] if len(v) == 1 and isinstance(v[0], list) else v)
    ),
    "system.io.path::combine": lambda *p: ntpath.join(*map(text, p)),
    "system.io.path::getdirectoryname": lambda p: ntpath.dirname(text(p)),
    "system.io.path::getfilename": lambda p: ntpath.basename(text(p)),
    "system.math::min": min, "system.math::max": max, "system.math::floor": math.floor,
    "system.math::round": round, "system.math::ceiling": math.ceil,
    "system.guid::newguid": uuid.uuid4,
    "system.diagnostics.stopwatch::startnew": Stopwatch,
    "system.timespan::fromseconds": lambda s: _span(float(s)),
}  # fmt: skip
_ENUMS: Mapping[str, Mapping[str, int]] = {
    "system.io.filemode": {"CreateNew": 1, "Create": 2, "Open": 3, "Append": 6},
}


def _span(seconds: float) -> Any:
    from datetime import timedelta

    return timedelta(seconds=seconds)
