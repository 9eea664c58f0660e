"""The data model that the peer enforces, from the compact table beside this file.

``model.json`` is drawn from XenAPI's published data model (classes, fields, messages, enums; the
error codes with their parameters), without its prose: ``compact`` says how. Messages that the
model itself calls implicit (getters, setters, constructors) are not in it: they follow from the
fields. ``python -m tests.peers.xapi.table DATAMODEL ERRORS`` prints the table anew.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

CLASSES = (
    "session", "pool", "host", "host_metrics", "SR", "PBD", "VDI", "VBD", "VM", "VM_metrics",
    "VM_guest_metrics", "VIF", "network", "PIF", "PIF_metrics", "VLAN", "Bond", "task", "event",
)  # fmt: skip
#: what the peer may say though no message that is here declares it
SAID = (
    "BRIDGE_NAME_EXISTS", "CANNOT_PLUG_BOND_SLAVE", "DEVICE_ALREADY_ATTACHED", "TOO_BUSY",
    "DEVICE_ALREADY_DETACHED", "DEVICE_ALREADY_EXISTS", "EVENTS_LOST", "FIELD_TYPE_ERROR",
    "HANDLE_INVALID", "HOST_CANNOT_ATTACH_NETWORK", "HOST_DISABLED", "HOST_IN_USE",
    "HOST_IS_SLAVE", "HOST_NOT_DISABLED", "HOST_NOT_ENOUGH_FREE_MEMORY", "HOST_NOT_ENOUGH_PCPUS",
    "HOST_NOT_LIVE", "HOST_STILL_BOOTING", "INTERNAL_ERROR", "INVALID_DEVICE", "INVALID_VALUE",
    "LICENCE_RESTRICTION", "MAC_INVALID", "MAP_DUPLICATE_KEY", "MEMORY_CONSTRAINT_VIOLATION_ORDER",
    "MESSAGE_METHOD_UNKNOWN", "MESSAGE_PARAMETER_COUNT_MISMATCH", "MESSAGE_REMOVED",
    "NETWORK_CONTAINS_PIF", "NETWORK_CONTAINS_VIF", "NO_HOSTS_AVAILABLE", "NOT_IMPLEMENTED",
    "OPERATION_BLOCKED", "PROVISION_ONLY_ALLOWED_ON_TEMPLATE", "REVERT_ONLY_ALLOWED_ON_SNAPSHOT",
    "OPERATION_NOT_ALLOWED", "OTHER_OPERATION_IN_PROGRESS", "PIF_DOES_NOT_ALLOW_UNPLUG",
    "PIF_IS_MANAGEMENT_INTERFACE", "PIF_VLAN_EXISTS", "SESSION_AUTHENTICATION_FAILED",
    "SESSION_INVALID", "SR_BACKEND_FAILURE", "SR_FULL", "SR_HAS_NO_PBDS", "TASK_CANCELLED",
    "UUID_INVALID", "SR_OPERATION_NOT_SUPPORTED",
    "VALUE_NOT_SUPPORTED", "VBD_CDS_MUST_BE_READONLY", "VBD_NOT_REMOVABLE_MEDIA", "VDI_IN_USE",
    "VDI_READONLY", "VIF_IN_USE", "VLAN_TAG_INVALID", "VM_BAD_POWER_STATE",
    "VM_CANNOT_DELETE_DEFAULT_TEMPLATE", "VM_HVM_REQUIRED", "VM_IS_SNAPSHOT", "VM_IS_TEMPLATE",
    "VM_MISSING_PV_DRIVERS", "VM_REQUIRES_SR", "XENAPI_MISSING_PLUGIN", "XENAPI_PLUGIN_FAILURE",
    "VCPU_MAX_NOT_CORES_PER_SOCKET_MULTIPLE", "PERMISSION_DENIED", "RBAC_PERMISSION_DENIED",
)  # fmt: skip
COMPUTED = ("get_record", "get_by_uuid", "get_all", "get_all_records", "get_by_name_label")
MADE = ("create", "destroy")
#: ways to change a field of a sort, by the field's type
CHANGES = {" map": ("add_to_", "remove_from_"), " set": ("add_", "remove_")}


@dataclass(frozen=True, slots=True)
class Field:
    type: str
    qualifier: str
    default: str | None
    state: str


@dataclass(frozen=True, slots=True)
class Message:
    """``params`` are (name, type, required), without the session; ``implicit`` as in the model."""

    params: tuple[tuple[str, str, bool], ...]
    result: str
    errors: tuple[str, ...] = ()
    state: str = ""
    implicit: bool = False


@dataclass(frozen=True, slots=True)
class Class:
    fields: Mapping[str, Field]
    messages: Mapping[str, Message]


@dataclass(frozen=True, slots=True)
class Model:
    """``errors`` has the parameters of each code, None where none are declared."""

    classes: Mapping[str, Class]
    enums: Mapping[str, Sequence[str]]
    errors: Mapping[str, Sequence[str] | None]


def compact(model: Mapping[str, Any], errors: Mapping[str, Any]) -> dict[str, Any]:
    """The table, from the whole data model and all error codes as JSON has them."""
    codes, enums, classes = set(SAID), {}, {}
    for name in CLASSES:
        source = model[name]
        own = {k: v for k, v in source["messages"].items() if not v.get("implicit")}
        for message in own.values():
            codes |= {*message["errors"]}
        enums.update(source["enums"])
        classes[name] = {
            "fields": {k: _field(v) for k, v in source["fields"].items()},
            "implicit": [m for m in (*COMPUTED, *MADE) if m in source["messages"] and m not in own],
            "messages": {k: _message(v) for k, v in own.items()},
        }
    return {
        "classes": classes,
        "enums": {k: " ".join(v) for k, v in enums.items()},
        "errors": {code: errors[code] for code in sorted(codes) if code in errors},
    }


def _field(source: Mapping[str, Any]) -> list[str]:
    words = [source["type"], source["qualifier"]]
    if "default" in source or "state" in source:
        words.append(source.get("default", "-"))
    return words + ([source["state"]] if "state" in source else [])


def _message(source: Mapping[str, Any]) -> list[str]:
    params = [p for p in source["params"] if p["name"] != "session_id"]
    texts = [f"{p['name']}{'' if p['required'] else '?'} {p['type']}" for p in params]
    words = ["; ".join(texts), source["result"]]
    if source["errors"] or "state" in source:
        words.append(" ".join(source["errors"]))
    return words + ([source["state"]] if "state" in source else [])


@cache
def load() -> Model:
    """The model as it is in the table, with all its messages."""
    table = json.loads((Path(__file__).parent / "model.json").read_text())
    classes = {}
    for name, source in table["classes"].items():
        fields = {k: _read_field(*v) for k, v in source["fields"].items()}
        messages = {k: _read_message(*v) for k, v in source["messages"].items()}
        if name != "event":  # whose objects nobody can ask
            messages |= dict(_accessors(name, fields))
        messages |= {k: _implicit(name, k) for k in source["implicit"]}
        classes[name] = Class(fields, messages)
    return Model(classes, {k: v.split() for k, v in table["enums"].items()}, table["errors"])


def _read_field(kind: str, qualifier: str, default: str = "-", state: str = "") -> Field:
    return Field(kind, qualifier, None if default == "-" else default, state)


def _read_message(params: str, result: str, errors: str = "", state: str = "") -> Message:
    found = []
    for text in params.split("; ") if params else ():
        name, _, kind = text.partition(" ")
        found.append((name.rstrip("?"), kind, not name.endswith("?")))
    return Message(tuple(found), result, tuple(errors.split()), state)


def _accessors(name: str, fields: Mapping[str, Field]) -> Iterator[tuple[str, Message]]:
    me = ("self", f"{name} ref", True)
    for field, has in fields.items():
        yield f"get_{field}", Message((me,), has.type, implicit=True)
        if has.qualifier != "RW":
            continue
        yield f"set_{field}", Message((me, ("value", has.type, True)), "void", implicit=True)
        if has.type.endswith(" map"):
            key, value = has.type[1 : -len(") map")].split(" -> ")
            pair = (me, ("key", key, True), ("value", value, True))
            yield f"add_to_{field}", Message(pair, "void", implicit=True)
            yield f"remove_from_{field}", Message(pair[:2], "void", implicit=True)
        elif has.type.endswith(" set"):
            one = (me, ("value", has.type.removesuffix(" set"), True))
            for way in CHANGES[" set"]:
                yield f"{way}{field}", Message(one, "void", implicit=True)


def _implicit(name: str, message: str) -> Message:
    """A message that any class may have, whatever its fields."""
    me = ("self", f"{name} ref", True)
    params, result = {
        "get_record": ((me,), f"{name} record"),
        "get_by_uuid": ((("uuid", "string", True),), f"{name} ref"),
        "get_all": ((), f"{name} ref set"),
        "get_all_records": ((), f"({name} ref -> {name} record) map"),
        "get_by_name_label": ((("label", "string", True),), f"{name} ref set"),
        "create": ((("args", f"{name} record", True),), f"{name} ref"),
        "destroy": ((me,), "void"),
    }[message]
    return Message(params, result, implicit=True)


def text(table: Mapping[str, Any]) -> str:
    """The table as it stands in its file: a line for each field and message."""
    lines = json.dumps(table, indent=1).splitlines()
    found: list[str] = []
    for line in lines:  # lists of words on one line
        if (found and found[-1].rstrip().endswith("[")) or (found and found[-1].endswith('", ')):
            found[-1] += line.strip() + (" " if line.endswith(",") else "")
        elif found and line.strip() in ("]", "],") and found[-1].endswith('"'):
            found[-1] += line.strip()
        else:
            found.append(line)
    return "\n".join(found) + "\n"


if __name__ == "__main__":
    _model, _errors = (json.loads(Path(name).read_text()) for name in sys.argv[1:3])
    sys.stdout.write(text(compact(_model, _errors)))
