"""The kinds of values that a spec's fields have, and how a wrong one is said."""

from __future__ import annotations

import pathlib
import re
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_network
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from provision import units
from provision.spec.faults import Fault, faults_error, show

_MAC = re.compile(r"[0-9a-f]{2}([:-][0-9a-f]{2}){5}")
_PCI = re.compile(r"([0-9a-f]{4}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")
_DISK = re.compile(r".*/.*|~.*|.*\.(qcow2|raw|img|vmdk)", re.DOTALL)
#: a disk on a Windows host: by its path, or by its name in the host's own folder
_THERE = re.compile(r"[A-Za-z]:\\[^/:*?\"<>|\x00-\x1f]+|\w[\w .()-]*\.vhdx?", re.IGNORECASE)
_NIC_NAME = re.compile(r"[^\W_][\w .()#@-]{0,62}")


@dataclass(frozen=True, slots=True)
class Shape:
    """Text of a certain form; ``what`` completes "should be". A secret is not repeated."""

    pattern: str
    what: str
    secret: bool = False

    def check(self, value: str) -> str:
        if not re.fullmatch(self.pattern, value, re.ASCII):
            seen = "" if self.secret else f", not {show(value)}"
            raise ValueError(f"should be {self.what}{seen}")
        return value

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(schema) | {"pattern": f"^(?:{self.pattern})$"}


@dataclass(frozen=True, slots=True)
class Measure:
    """A quantity: text with a unit, or a plain number of base units."""

    unit: units.Unit
    low: int
    high: int

    def read(self, value: object) -> int:
        if isinstance(value, str):
            try:
                value = self.unit.read(value)
            except ValueError as e:
                raise ValueError(f"{e}, not {show(value)}") from None
        if type(value) is not int:
            example = f"{self.unit.what} such as {self.unit.example}"
            raise ValueError(f"should be {example}, not {show(value)}")
        if not self.low <= value <= self.high:
            bound = f"at least {self.unit.write(self.low)}"
            bound = bound if value < self.low else f"at most {self.unit.write(self.high)}"
            raise ValueError(f"should be {bound}, not {show(value)} {self.unit.whole}")
        return value

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.read, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        spellings = "|".join(s for names, _ in self.unit.sizes for s in names)
        text = {"type": "string", "pattern": rf"^[0-9]+(\.[0-9]+)? *({spellings})?$"}
        number = {"type": "integer", "minimum": self.low, "maximum": self.high}
        return {"anyOf": [text, number]}


def _cpus(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise ValueError(f"should be a CPU list such as '0-3,8', not {show(value)}")
    try:
        return units.cpu_list(units.cpus(value))
    except ValueError as e:
        raise ValueError(f"{e}, not {show(value)}") from None


def _pin(value: object) -> str | tuple[str, ...] | None:
    if value is None or value == "spread":
        return value
    if not isinstance(value, list | tuple):
        return _cpus(value)
    found: list[str] = []
    faults: list[Fault] = []
    for i, item in enumerate(value):
        try:
            found.append(_cpus(item))
        except ValueError as e:
            faults.append(Fault(str(e), ((i,),)))
    if faults:
        raise faults_error(faults)
    return tuple(found)


def _cpu_lists(value: object) -> str | tuple[str, ...] | None:
    return _pin(value) if isinstance(value, list | tuple) else _cpus(value)


def _nic_address(value: object) -> str:
    """Canonical, so that two spellings of one NIC are equal."""
    if isinstance(value, str):
        low = value.strip().lower()
        if _MAC.fullmatch(low):
            if int(low[:2], 16) & 1:
                raise ValueError(f"{show(value)} is a multicast address, not a NIC's")
            return low.replace("-", ":")
        if _PCI.fullmatch(low):
            return low if low.count(":") == 2 else f"0000:{low}"
        if _NIC_NAME.fullmatch(value):
            return value
    raise ValueError(
        "should be a NIC's name, PCI address (0000:3b:00.1) or MAC (52:54:00:12:34:56), "
        f"not {show(value)}"
    )


def _subnet(value: object) -> IPv4Network:
    if isinstance(value, IPv4Network):
        return value
    if not isinstance(value, str) or "/" not in value:
        raise ValueError(f"should be a subnet such as '198.18.0.0/16', not {show(value)}")
    try:
        net = ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f"should be a subnet such as '198.18.0.0/16', not {show(value)}") from None
    if net.version != 4:
        raise ValueError(f"should be an IPv4 subnet, not {show(value)}")
    if str(net.network_address) != value.split("/")[0]:
        raise ValueError(f"{show(value)} is an address in a subnet (did you mean '{net}'?)")
    if net.is_loopback or net.is_multicast or net.is_reserved:
        raise ValueError(f"{net} is not for hosts")
    return net


def _image(value: str, info: ValidationInfo) -> str:
    if _THERE.fullmatch(value):
        return value
    if _DISK.fullmatch(value):
        return path_of(value, info)
    if not re.fullmatch(r"[\w][\w. ()-]{0,79}", value):
        raise ValueError(f"should be an image's name or a path, not {show(value)}")
    return value


def path_of(value: str, info: ValidationInfo) -> str:
    """A path becomes absolute, and must exist, where the context has the spec's ``folder``."""
    folder: pathlib.Path | None = (info.context or {}).get("folder")
    if folder is None:
        return value
    home = value.startswith("~/")
    path = pathlib.Path.home() / value[2:] if home else folder.absolute() / value
    try:
        found = path.is_file()
    except OSError as e:
        raise ValueError(f"{show(value)}: {e.strerror}") from None
    if not found:
        raise ValueError(f"no such file: {show(value)}; a path is relative to the spec's folder")
    return str(path)


def _fingerprint(value: str) -> str:
    found = value.lower().removeprefix("sha256:").replace(":", "")
    if not re.fullmatch("[0-9a-f]{64}", found):
        raise ValueError(f"should be a SHA-256 of 64 hex digits, not {show(value)}")
    return found


_CPU_LIST = {"type": ["string", "integer"], "examples": ["0-3,8"]}

Name = Annotated[str, Shape("[a-z][a-z0-9-]{0,20}", "a small letter, then up to 20 of a-z 0-9 -")]
Prefix = Annotated[str, Shape("[a-z][a-z0-9-]{0,11}", "a small letter, then up to 11 of a-z 0-9 -")]
Login = Annotated[str, Shape("[a-z_][a-z0-9_-]{0,31}|Administrator", "a login name")]
Model = Annotated[str, Shape("[A-Za-z0-9][A-Za-z0-9._-]{0,39}", "a vNIC model's name")]
Text = Annotated[str, Shape(r"[^\s]([^\r\n]{0,254}[^\s])?", "a name on one line")]
EnvName = Annotated[str, Shape("[A-Za-z_][A-Za-z0-9_]*", "the name of a variable", secret=True)]
Path = Annotated[str, AfterValidator(path_of)]
Fingerprint = Annotated[str, AfterValidator(_fingerprint)]
HttpUrl = Annotated[str, Shape(r"https?://[^\s@]+", "an http or https URL without a login")]
Bridge = Annotated[
    str,
    Shape(r"[^\s/:.-]([^/:\r\n]{0,78}[^\s/:])?", "the name of a bridge, port group or VMSwitch"),
]
Uri = Annotated[
    str,
    Shape(
        r"|[a-z][a-z0-9+.-]*://([^\s:@/]+@)?[^\s@]*",
        "a URI such as 'qemu+ssh://root@host/system', with no password in it",
        secret=True,
    ),
]
SshTarget = Annotated[
    str,
    Shape(
        r"([\w][\w.-]*@)?([A-Za-z0-9][\w.-]*|[0-9a-fA-F]*:[0-9a-fA-F]*:[0-9a-fA-F:.]*)"
        r"|ssh://([\w][\w.-]*@)?([A-Za-z0-9][\w.-]*|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?",
        "where SSH goes, such as 'root@10.0.0.9' or 'ssh://root@10.0.0.9:2222'",
    ),
]
Count = Annotated[int, Strict(), Field(ge=1)]
#: what a guest's run of MACs has room for, see provision.testbed.mac
Percent = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
NicsEach = Annotated[int, Strict(), Field(ge=1, le=15)]
CpuList = Annotated[str, BeforeValidator(_cpus), WithJsonSchema(_CPU_LIST)]
Pin = Annotated[
    str | tuple[str, ...] | None,
    BeforeValidator(_pin),
    WithJsonSchema(
        {"anyOf": [_CPU_LIST, {"const": "spread"}, {"type": "array", "items": _CPU_LIST},
                   {"type": "null"}]}
    ),
]  # fmt: skip
CpuLists = Annotated[
    str | tuple[str, ...],
    BeforeValidator(_cpu_lists),
    WithJsonSchema({"anyOf": [_CPU_LIST, {"type": "array", "items": _CPU_LIST}]}),
]
Image = Annotated[str, AfterValidator(_image)]
NicAddress = Annotated[str, BeforeValidator(_nic_address)]
Subnet = Annotated[
    IPv4Network,
    BeforeValidator(_subnet),
    WithJsonSchema({"type": "string", "examples": ["198.18.0.0/16"]}),
]
MemoryMib = Annotated[int, Measure(units.MEMORY, 128, 16 * 1024**2)]
RateMbit = Annotated[int, Measure(units.RATE, 1, 1_000_000)]
Seconds = Annotated[int, Measure(units.TIME, 1, 7 * 86400)]
Bytes = Annotated[int, Measure(units.SIZE, 1, 1024**3)]
ObjectKib = Annotated[int, Strict(), Field(ge=0, le=1024)]
Clients = Annotated[int, Strict(), Field(ge=1, le=10_000)]
Arrivals = Annotated[int, Strict(), Field(ge=1, le=100_000)]
DatagramBytes = Annotated[int, Measure(units.SIZE, 1, 65507)]
#: the credit schedulers' range with 256 as normal; four times that is the range of CPU shares
Weight = Annotated[int, Strict(), Field(ge=1, le=65535)]
#: from what IPv4 needs to what Linux allows
Mtu = Annotated[int, Strict(), Field(ge=576, le=65535)]
