"""SOAP envelopes of WS-Man: what is in a request, and how an answer is written."""

from __future__ import annotations

import re
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from tests.peers.wsman.faults import Fault, bad_schema

NS = {
    "s": "http://www.w3.org/2003/05/soap-envelope",
    "a": "http://schemas.xmlsoap.org/ws/2004/08/addressing",
    "w": "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd",
    "x": "http://schemas.xmlsoap.org/ws/2004/09/transfer",
    "rsp": "http://schemas.microsoft.com/wbem/wsman/1/windows/shell",
    "p": "http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd",
    "cfg": "http://schemas.microsoft.com/wbem/wsman/1/config",
}
SHELL = NS["rsp"]
CMD = f"{SHELL}/cmd"
CONFIG = NS["cfg"]
_FAULT = "http://schemas.microsoft.com/wbem/wsman/1/wsmanfault"
_FAULTED = "http://schemas.dmtf.org/wbem/wsman/1/wsman/fault"
#: the least that a client may offer to take: DSP0226, R13.1-5
LEAST_ENVELOPE = 8192


@dataclass(frozen=True)
class Message:
    """A request as it came; ``action`` is the last word of its URI."""

    id: str
    uri: str
    resource: str
    shell: str
    options: Mapping[str, str]
    timeout_s: float
    envelope: int
    body: ET.Element = field(repr=False)
    size: int

    @property
    def action(self) -> str:
        return self.uri.rpartition("/")[2]

    @property
    def command(self) -> str:
        """The id of the command that the body is about, "" = of none."""
        for found in self.body.iter():
            if "CommandId" in found.attrib:
                return found.attrib["CommandId"].upper()
        return ""


def parse(data: bytes) -> Message:
    """Raises a Fault where it is no request of WS-Man."""
    try:
        root = ET.fromstring(data)
    except ET.ParseError as e:
        raise bad_schema(str(e)) from e
    header, body = root.find("s:Header", NS), root.find("s:Body", NS)
    if root.tag != f"{{{NS['s']}}}Envelope" or header is None or body is None:
        raise bad_schema("no SOAP 1.2 envelope with header and body")

    def text(path: str) -> str:
        return (header.findtext(path, "", NS) or "").strip() if header is not None else ""

    for path in ("a:To", "a:ReplyTo/a:Address", "a:MessageID", "a:Action", "w:ResourceURI"):
        if not text(path):
            raise bad_schema(f"the header lacks {path}")
    envelope = int(text("w:MaxEnvelopeSize") or 153600)
    if envelope < LEAST_ENVELOPE:
        raise bad_schema(f"MaxEnvelopeSize {envelope} is less than {LEAST_ENVELOPE}")
    options = {o.get("Name", ""): o.text or "" for o in header.findall("w:OptionSet/w:Option", NS)}
    return Message(
        text("a:MessageID"), text("a:Action"), text("w:ResourceURI"),
        text("w:SelectorSet/w:Selector[@Name='ShellId']").upper(), options,
        seconds(text("w:OperationTimeout") or "PT60S"), envelope, body, len(data),
    )  # fmt: skip


def seconds(duration: str) -> float:
    """Of an xs:duration of hours, minutes and seconds."""
    found = re.fullmatch(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?", duration)
    if not found:
        raise bad_schema(f"{duration!r} is no duration")
    hours, minutes, rest = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + rest


def answer(message: Message, body: str) -> bytes:
    """What a request is answered that was obeyed."""
    return _envelope(f"{message.uri}Response", message.id, body)


def refusal(message_id: str, fault: Fault) -> bytes:
    reason = escape(fault.reason)
    return _envelope(_FAULTED, message_id, (
        f"<s:Fault><s:Code><s:Value>s:{'Sender' if fault.sender else 'Receiver'}</s:Value>"
        f"<s:Subcode><s:Value>{fault.subcode}</s:Value></s:Subcode></s:Code>"
        f'<s:Reason><s:Text xml:lang="en-US">{reason}</s:Text></s:Reason>'
        f'<s:Detail><f:WSManFault xmlns:f="{_FAULT}" Code="{fault.code}" Machine="127.0.0.1">'
        f"<f:Message>{reason}</f:Message></f:WSManFault></s:Detail></s:Fault>"
    ))  # fmt: skip


def _envelope(action: str, relates: str, body: str) -> bytes:
    spaces = " ".join(f'xmlns:{name}="{uri}"' for name, uri in NS.items())
    return (
        f'<s:Envelope xml:lang="en-US" {spaces}><s:Header><a:Action>{action}</a:Action>'
        f"<a:MessageID>uuid:{str(uuid.uuid4()).upper()}</a:MessageID>"
        f"<a:To>{NS['a']}/role/anonymous</a:To><a:RelatesTo>{escape(relates)}</a:RelatesTo>"
        f"</s:Header><s:Body>{body}</s:Body></s:Envelope>"
    ).encode()
