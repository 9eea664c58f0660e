"""A server's reply as pyVmomi's objects, in a fraction of the time that pyVmomi takes for them.

pyVmomi looks up the type of each element and checks each value that it sets, under a lock that all
threads share; here, what follows from a type alone is looked up once. Whatever is out of the
ordinary, a fault above all, is left to pyVmomi.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from typing import Any

from pyVmomi import Iso8601, SoapAdapter, VmomiSupport

from drivers.vsphere.request import Unusual

_support: Any = VmomiSupport
_soap: Any = SoapAdapter
_iso: Any = Iso8601
_TYPE = f"{{{_support.XMLNS_XSI}}}type"
_BODY = f"{{{_soap.XMLNS_SOAPENV}}}Body"
_XSD = f'xmlns:xsd="{_support.XMLNS_XSD}"'.encode()
_LOCALIZED: Any = _soap.LocalizedMethodFault
_TRUTH = {"true": True, "1": True, "false": False, "0": False}
#: what is read by name rather than by value: nothing that we ask for
_NAMES = (_support.ManagedMethod, type)

Read = Callable[[ET.Element], Any]
#: of a data object: its name, its declared type, whether it is a list, and what reads an element
#: that names no type of its own
Field = tuple[str, Any, bool, Read]


@dataclass(slots=True)
class Replies:
    """Reads replies; the managed objects in them are ``stub``'s. For several threads."""

    stub: Any
    _readers: dict[Any, Read] = field(default_factory=dict)
    _typed: dict[tuple[str, str, Any], Read] = field(default_factory=dict)

    def read(self, text: bytes, result: Any) -> Any:
        """What a method with a result of that type has returned; a fault is an object too.

        Raises ExpatError for what is no XML, and what pyVmomi raises for what is no such reply.
        """
        try:
            return self.quickly(text, result)
        except (Unusual, ET.ParseError, LookupError, TypeError, ValueError, AttributeError):
            # as a file, of which it sees whether it is whole
            return _soap.SoapResponseDeserializer(self.stub).Deserialize(BytesIO(text), result)

    def quickly(self, text: bytes, result: Any) -> Any:
        """As ``read``, by ourselves alone. Raises what ``read`` leaves to pyVmomi for."""
        if text.count(_XSD) != text.count(b"xmlns:xsd="):
            raise Unusual  # "xsd:" means something else somewhere
        body = ET.XML(text).find(_BODY)
        if body is None or len(body) != 1 or not body[0].tag.endswith("Response"):
            raise Unusual
        found = [self._reader_of(one, result)(one) for one in body[0]]
        if issubclass(result, list):
            if len(found) == 1 and isinstance(found[0], list):
                return found[0]
            return result(found)
        if len(found) > 1:
            raise Unusual
        return found[0] if found else None

    def _reader_of(self, element: ET.Element, declared: Any) -> Read:
        """For an element where that type is declared, by the type that it names, if any."""
        name = element.get(_TYPE)
        if name is None:
            return self._reader(declared.Item if issubclass(declared, list) else declared)
        key = (name, element.tag, declared)
        found = self._typed.get(key)
        if found is None:
            found = self._typed[key] = self._reader(self._named(name, element.tag, declared))
        return found

    def _named(self, name: str, tag: str, declared: Any) -> Any:
        """The type of that name, which is one that may stand where the other is declared."""
        if declared is _support.PropertyPath:
            return declared
        prefix, _, local = name.rpartition(":")
        if prefix not in ("", "xsd"):
            raise Unusual
        space = _support.XMLNS_XSD if prefix else tag[1:].partition("}")[0]
        kind = _soap.SoapDeserializer(self.stub).LookupWsdlType(space, local, True)
        if issubclass(kind, list) and issubclass(declared, list):
            return declared
        one = declared.Item if issubclass(declared, list) else declared
        if one is not object and not issubclass(kind, one):
            raise Unusual
        return kind

    def _reader(self, kind: Any) -> Read:
        found = self._readers.get(kind)
        if found is None:
            # a server that is newer than our version of the API sends types that this lacks
            known = _support.GetCompatibleType(kind, self.stub.version)
            found = self._readers[kind] = self._made(known)
        return found

    def _made(self, kind: Any) -> Read:
        if issubclass(kind, (Exception, _LOCALIZED)) or kind in (*_NAMES, object):
            return _refused
        if issubclass(kind, _support.ManagedObject):
            return self._reference
        if issubclass(kind, list):
            return self._array(kind)
        if issubclass(kind, _support.DataObject):
            return self._data(kind)
        return _leaf(_conversion(kind))

    def _reference(self, element: ET.Element) -> Any:
        if len(element) or "serverGuid" in element.attrib:
            raise Unusual
        key = ("", element.attrib["type"], None)
        found = self._typed.get(key)
        if found is None:
            kind = _soap.SoapDeserializer(self.stub).LookupWsdlType(
                _support.XMLNS_VMODL_BASE, key[1].rpartition(":")[2]
            )
            found = self._typed[key] = lambda e: kind(e.text or "", self.stub)
        return found(element)

    def _array(self, kind: Any) -> Read:
        item = kind.Item

        def read(element: ET.Element) -> Any:
            return kind([self._reader_of(one, item)(one) for one in element])

        return read

    def _data(self, kind: Any) -> Read:
        empty, lists = _blank(kind)
        fields: dict[str, Field] = {}

        def read(element: ET.Element) -> Any:
            made = kind.__new__(kind)
            has = made.__dict__
            has.update(empty)
            for name, kind_of_list in lists:
                has[name] = kind_of_list()
            for one in element:
                if (field_ := fields.get(one.tag)) is None:
                    field_ = fields[one.tag] = self._field(kind, one.tag)
                name, declared, many, plain = field_
                if _TYPE in one.attrib:
                    plain = self._reader_of(one, declared)
                value = plain(one)
                if many and not isinstance(value, list):
                    has[name].append(value)
                else:
                    has[name] = value
            return made

        return read

    def _field(self, kind: Any, tag: str) -> Field:
        info = kind._GetPropertyInfo(tag.rpartition("}")[2])
        many = issubclass(info.type, list)
        return info.name, info.type, many, self._reader(info.type.Item if many else info.type)


def _refused(_element: ET.Element) -> Any:
    raise Unusual


def _blank(kind: Any) -> tuple[Mapping[str, Any], list[tuple[str, Any]]]:
    """A new object's values, and which of them are lists, of that type."""
    values = vars(kind())
    lists = [(name, type(value)) for name, value in values.items() if isinstance(value, list)]
    return values, lists


def _leaf(convert: Callable[[str], Any]) -> Read:
    def read(element: ET.Element) -> Any:
        if len(element):
            raise Unusual
        return convert(element.text or "")

    return read


def _conversion(kind: Any) -> Callable[[str], Any]:
    """From text to a value, as pyVmomi does it."""
    if kind is bool:
        return lambda text: _TRUTH[text.lower()]
    if kind is datetime:
        return _moment
    if kind is _support.binary:
        return lambda text: kind(b64decode(text))
    if issubclass(kind, _support.Enum):
        return lambda text: getattr(kind, text)
    found: Callable[[str], Any] = kind
    return found


def _moment(text: str) -> datetime:
    found: datetime | None = _iso.ParseISO8601(text)
    if found is None:
        raise Unusual
    return found
