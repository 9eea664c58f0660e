"""A call's request, as pyVmomi writes it, in a fraction of the time that pyVmomi takes for it.

What follows from a type alone is looked up once. What is out of the ordinary is left to pyVmomi.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pyVmomi import SoapAdapter, VmomiSupport

_support: Any = VmomiSupport
_soap: Any = SoapAdapter
_START = f"{_soap.XML_HEADER}\n{_soap.SOAP_ENVELOPE_START}{_soap.SOAP_BODY_START}"

Write = Callable[[list[str], str, str, Any], None]  # to where, the tag, its attributes, a value
#: its name, its declared type, whether it may be left out
Field = tuple[str, Any, bool]


class Unusual(Exception):
    """Something that is pyVmomi's to deal with."""


@dataclass(slots=True)
class Requests:
    """Writes requests in one version of the API. For several threads."""

    version: str
    _space: str = field(init=False)
    _attributes: str = field(init=False)
    _params: dict[Any, list[Field]] = field(default_factory=dict)
    _writers: dict[tuple[Any, Any], Write] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._space = _support.GetWsdlNamespace(self.version)
        self._attributes = f' versionId="{_support.versionIdMap[self.version]}"'

    def write(self, mo: Any, info: Any, args: Any) -> bytes:
        """A call of that method. Raises Unusual."""
        params = self._params.get(info)
        if params is None:
            self._check(info.version)
            params = self._params[info] = self._fields(info.params)
        out = [_START, f'<{info.wsdlName} xmlns="{self._space}">']
        self._writer(_support.ManagedObject, type(mo))(out, "_this", self._attributes, mo)
        self._all(out, self._attributes, params, args)
        out += f"</{info.wsdlName}>", _soap.SOAP_BODY_END, _soap.SOAP_ENVELOPE_END
        return "".join(out).encode()

    def _all(self, out: list[str], attributes: str, fields: list[Field], values: Any) -> None:
        """Those of the values that are set."""
        for (name, declared, optional), value in zip(fields, values, strict=True):
            if value is None or (isinstance(value, list) and not value):
                if not optional or (value is not None and declared is object):
                    raise Unusual
                continue
            writer = self._writers.get((declared, type(value)))
            if writer is None:
                writer = self._writer(declared, type(value))
            writer(out, name, attributes, value)

    def _writer(self, declared: Any, kind: Any) -> Write:
        """What writes a value of that type where the other is declared."""
        found = self._writers.get((declared, kind))
        if found is None:
            found = self._writers[declared, kind] = self._made(declared, kind)
        return found

    def _check(self, version: str) -> None:
        """Raise Unusual for what our version of the API lacks, or what is in another namespace."""
        if not _support.IsChildVersion(self.version, version):
            raise Unusual
        if _support.GetWsdlNamespace(version) != self._space:
            raise Unusual

    def _fields(self, infos: Any) -> list[Field]:
        """Those that our version of the API has."""
        found: list[Field] = []
        for info in infos:
            if _support.IsChildVersion(self.version, info.version):
                self._check(info.version)
                if info.flags & _support.F_LINK:
                    raise Unusual
                found.append((info.name, info.type, bool(info.flags & _support.F_OPTIONAL)))
        return found

    def _made(self, declared: Any, kind: Any) -> Write:
        if issubclass(kind, list):
            return self._list(declared)
        if issubclass(kind, _support.ManagedObject):
            return self._reference(declared, kind)
        if issubclass(kind, _support.DataObject):
            return self._data(declared, kind)
        if declared is object:
            return _leaf(_text(kind), self._named(kind))
        return _leaf(_text(kind), "")

    def _named(self, kind: Any) -> str:
        """The attribute that tells of a type which is not the declared one."""
        if issubclass(kind, (type, _support.PropertyPath)):
            raise Unusual
        space, name = _support.GetQualifiedWsdlName(kind)
        if space not in (self._space, _support.XMLNS_XSD):
            raise Unusual
        return f' xsi:type="{name if space == self._space else f"xsd:{name}"}"'

    def _list(self, declared: Any) -> Write:
        if not issubclass(declared, list):
            raise Unusual

        def write(out: list[str], tag: str, _attributes: str, value: Any) -> None:
            for one in value:
                self._writer(declared.Item, type(one))(out, tag, "", one)

        return write

    def _reference(self, declared: Any, kind: Any) -> Write:
        if declared is object:
            raise Unusual
        end = f' type="{_support.GetWsdlName(kind)}">'

        def write(out: list[str], tag: str, attributes: str, value: Any) -> None:
            if value._serverGuid is not None:
                raise Unusual
            out.append(f"<{tag}{attributes}{end}{value._moId}</{tag}>")

        return write

    def _data(self, declared: Any, kind: Any) -> Write:
        known = _support.GetCompatibleType(kind, self.version)
        if issubclass(kind, Exception):
            raise Unusual
        named = "" if known == declared else self._named(known)
        fields = self._fields(kind._GetPropertyList())

        def write(out: list[str], tag: str, attributes: str, value: Any) -> None:
            out.append(f"<{tag}{attributes}{named}>")
            has = value.__dict__
            self._all(out, "", fields, [has[name] for name, _, _ in fields])
            out.append(f"</{tag}>")

        return write


def _leaf(text: Callable[[Any], str], named: str) -> Write:
    def write(out: list[str], tag: str, attributes: str, value: Any) -> None:
        out.append(f"<{tag}{attributes}{named}>{text(value)}</{tag}>")

    return write


def _text(kind: Any) -> Callable[[Any], str]:
    if issubclass(kind, type):
        return lambda value: str(_support.GetWsdlName(value))
    if kind is bool:
        return lambda value: "true" if value else "false"
    if issubclass(kind, (int, float)):
        return str
    if issubclass(kind, str):
        return lambda value: str(_soap.XmlEscape(value))
    raise Unusual
