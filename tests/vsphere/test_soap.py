"""What is out of the ordinary in requests and replies: pyVmomi's own answer is ours."""

from __future__ import annotations

from typing import Any
from xml.parsers.expat import ExpatError

import pytest
from pyVmomi import SoapAdapter, VmomiSupport

from drivers.vsphere.reply import Replies
from drivers.vsphere.request import Requests, Unusual
from drivers.vsphere.wire import Limits, Wire, endpoint
from provision.driver import Tls
from tests.peers.vcsim import vim, vmodl
from tests.vsphere.wire import unlike

_soap: Any = SoapAdapter
_support: Any = VmomiSupport
VERSION = "vim.version.version11"
QUERY: Any = vmodl.query.PropertyCollector
XSI = "http://www.w3.org/2001/XMLSchema-instance"
ENVELOPE = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<e:Envelope '
    'xmlns:e="http://schemas.xmlsoap.org/soap/envelope/" '
    'xmlns:xsd="http://www.w3.org/2001/XMLSchema" '
    f'xmlns:xsi="{XSI}"><e:Body>{{}}</e:Body></e:Envelope>'
)


def stub(version: str = VERSION) -> Any:
    return _soap.SoapStubAdapter("nowhere", version=version)


def said(inner: str) -> bytes:
    return ENVELOPE.format(f'<FooResponse xmlns="urn:vim25">{inner}</FooResponse>').encode()


def of_vm(*values: str) -> str:
    """Properties of a VM in a reply."""
    sets = "".join(f"<propSet><name>p{n}</name>{v}</propSet>" for n, v in enumerate(values))
    return f'<returnval><objects><obj type="VirtualMachine">vm-1</obj>{sets}</objects></returnval>'


PLAIN = {
    "nothing": (said(""), type(None)),
    "no object": (said(""), vim.Task),
    "an empty list": (said(""), QUERY.ObjectContent.Array),
    "a list": (said("<returnval>a</returnval><returnval/>"), _support.GetVmodlType("string[]")),
    "a moment": (said("<returnval>2026-11-29T22:05:10.6Z</returnval>"), _support.datetime),
    "white space, a comment, text in pieces": (
        said(
            of_vm('<val xsi:type="xsd:string">a<!-- b -->c &lt;&#38;</val>').replace("><", ">\n<")
        ),
        QUERY.RetrieveResult,
    ),
    "numbers, truth, bytes, an enum": (
        said(of_vm(
            '<val xsi:type="xsd:int">7</val>', '<val xsi:type="xsd:long">-1</val>',
            '<val xsi:type="xsd:boolean">1</val>', '<val xsi:type="xsd:boolean">false</val>',
            '<val xsi:type="xsd:base64Binary">AAE=</val>',
            '<val xsi:type="VirtualMachinePowerState">poweredOn</val>',
        )), QUERY.RetrieveResult,
    ),
    "arrays of all sorts": (
        said(of_vm(
            '<val xsi:type="ArrayOfString"><string>a</string><string></string></val>',
            '<val xsi:type="ArrayOfInt"/>',
            '<val xsi:type="ArrayOfManagedObjectReference"><ManagedObjectReference '
            'type="Task" xsi:type="ManagedObjectReference">t-1</ManagedObjectReference></val>',
            '<val xsi:type="ArrayOfVirtualDevice"><VirtualDevice xsi:type="VirtualVmxnet3">'
            '<key>4000</key><backing xsi:type="VirtualEthernetCardNetworkBackingInfo">'
            "<deviceName>n</deviceName></backing></VirtualDevice></val>",
        )), QUERY.RetrieveResult,
    ),
}  # fmt: skip
ODD = {
    "a fault": (
        ENVELOPE.format(
            "<e:Fault><faultcode>ServerFaultCode</faultcode><faultstring>no</faultstring><detail>"
            '<NotFoundFault xmlns="urn:vim25" xsi:type="NotFound"/></detail></e:Fault>'
        ).encode(), vim.Task,
    ),
    "a fault in a property": (
        said(of_vm(
            '<val xsi:type="LocalizedMethodFault"><fault xsi:type="NotFound"/>'
            "<localizedMessage>gone</localizedMessage></val>"
        )), QUERY.RetrieveResult,
    ),
    "a prefix of another meaning": (
        said(of_vm('<val xmlns:xsd="urn:vim25" xsi:type="xsd:VirtualMachinePowerState">'
                   "poweredOff</val>")), QUERY.RetrieveResult,
    ),
    "another prefix": (
        said(of_vm('<val xmlns:v="urn:vim25" xsi:type="v:VirtualMachinePowerState">'
                   "poweredOff</val>")), QUERY.RetrieveResult,
    ),
    "a name of a type": (said("<returnval>VirtualMachine</returnval>"), type),
}  # fmt: skip


@pytest.mark.parametrize("what", PLAIN)
def test_a_reply_that_is_plain_is_read_by_us(what: str) -> None:
    text, result = PLAIN[what]
    replies = Replies(stub())
    its = _soap.SoapResponseDeserializer(replies.stub).Deserialize(text, result)
    for _ in range(2):  # by what is looked up, and by what is known
        assert not [*unlike(replies.quickly(text, result), its)]


@pytest.mark.parametrize("what", ODD)
def test_a_reply_that_is_odd_is_left_to_pyvmomi(what: str) -> None:
    text, result = ODD[what]
    replies = Replies(stub())
    with pytest.raises(Unusual):
        replies.quickly(text, result)
    its = _soap.SoapResponseDeserializer(replies.stub).Deserialize(text, result)
    found = replies.read(text, result)
    assert type(found) is type(its) and not [*unlike(found, its)]


@pytest.mark.parametrize("value", [
    "<returnval><objects><nobody>1</nobody></objects></returnval>",
    of_vm('<val xsi:type="NoSuchType">1</val>'),
    of_vm('<val xsi:type="xsd:int">seven</val>'),
    of_vm('<val xsi:type="xsd:boolean">maybe</val>'),
    of_vm('<val xsi:type="VirtualMachinePowerState">poweredMaybe</val>'),
    of_vm('<val xsi:type="xsd:string">a<b/></val>'),
    "<returnval><objects><obj>vm-1</obj></objects></returnval>",
])  # fmt: skip
def test_a_reply_that_is_wrong_is_refused_as_pyvmomi_refuses_it(value: str) -> None:
    text, link = said(value), stub()
    with pytest.raises(Exception) as its:
        _soap.SoapResponseDeserializer(link).Deserialize(text, QUERY.RetrieveResult)
    with pytest.raises(its.type):
        Replies(link).read(text, QUERY.RetrieveResult)


@pytest.mark.parametrize("text", [b"", b"<html>", b"hello", said("")[:-9]])
def test_no_xml_is_told_as_such(text: bytes) -> None:
    with pytest.raises(ExpatError):
        Replies(stub()).read(text, vim.Task)


def test_a_type_newer_than_the_version_is_what_it_was_before() -> None:
    text = said(of_vm('<val xsi:type="VirtualVmxnet3Vrdma"><key>1</key></val>'))
    kinds = set()
    for version in ("vim.version.version9", VERSION):
        link = stub(version)
        found = Replies(link).quickly(text, QUERY.RetrieveResult)
        its = _soap.SoapResponseDeserializer(link).Deserialize(text, QUERY.RetrieveResult)
        assert not [*unlike(found, its)]
        kinds.add(type(found.objects[0].propSet[0].val))
    assert len(kinds) == 2


def vm_call(value: Any) -> tuple[Any, Any, list[Any]]:
    vm = vim.VirtualMachine("vm-1", None)
    return vm, vim.VirtualMachine.ReconfigVM_Task.info, [value]


def config(value: Any) -> Any:
    return vim.vm.ConfigSpec(extraConfig=[vim.option.OptionValue(key="<&>", value=value)])


@pytest.mark.parametrize("value", ["a<&>\"'é", 7, True, -1.5, _support.long(2**40),
                                   vim.VirtualMachine.PowerState.poweredOn])  # fmt: skip
def test_a_request_with_any_value(value: Any) -> None:
    call = vm_call(config(value))
    assert Requests(VERSION).write(*call) == stub().SerializeRequest(*call)


def test_a_field_newer_than_the_version_is_left_out() -> None:
    call = vm_call(vim.vm.ConfigSpec(name="a", sevEnabled=True))
    for version, there in ((VERSION, False), ("vim.version.v8_0_2_0", True)):
        text = Requests(version).write(*call)
        assert text == stub(version).SerializeRequest(*call)
        assert (b"sevEnabled" in text) is there


@pytest.mark.parametrize("value", [
    config(_support.GetVmodlType("string[]")(["a"])),
    config(_support.datetime(2026, 11, 29)),
    config(_support.binary(b"a")),
    config(vim.fault.NotFound()),
])  # fmt: skip
def test_a_request_that_is_odd_is_left_to_pyvmomi(value: Any) -> None:
    call = vm_call(value)
    with pytest.raises(Unusual):
        Requests(VERSION).write(*call)
    to = endpoint("https://127.0.0.1/", Tls(verify=False), Limits())
    assert Wire(to, VERSION).SerializeRequest(*call) == stub().SerializeRequest(*call)


def test_a_required_field_that_lacks_is_told() -> None:
    to = endpoint("https://127.0.0.1/", Tls(verify=False), Limits())
    with pytest.raises(TypeError, match="not optional"):
        Wire(to, VERSION).SerializeRequest(*vm_call(None))
