"""The spec's meaning: defaults, names with units, there and back, schema, template, page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from provision import spec as specs
from provision.spec import Spec
from provision.spec import file as specfile
from provision.spec import words as specwords
from provision.spec.sections import Cpu, Guests, LoadGenerator, Nic, Run

DOCS = Path(__file__).parents[2] / "docs" / "spec.md"
FULL = Spec(
    name="rack7",
    guests=Guests(
        count=2,
        memory_mib=2048,
        nic=Nic(model="e1000", rate_mbit=400),
        cpu=Cpu(pin=("0-1", "2"), emulator_pin="3", cap_percent=50),
    ),
    uplinks=("eth1", "0000:3b:00.1"),
    load_generator=LoadGenerator(ssh="root@10.0.0.9", ports=("eth1", "eth2")),
    run=Run(workloads=("netperf-receive",), duration_s=30, message_bytes=1024),
)


def test_defaults() -> None:
    assert specs.describe(Spec()) == {
        "name": "lab",
        "hypervisor": {
            "type": "kvm",
            "uri": "",
            "user": None,
            "password": None,
            "auth": None,
            "tls": {
                "ca": None,
                "fingerprint": None,
                "verify": True,
                "client_cert": None,
                "client_key": None,
            },
            "host": None,
            "storage": None,
            "ssh": None,
            "pool": None,
            "accel": "auto",
        },
        "guests": {
            "count": 1,
            "name": "vm",
            "nics_each": 1,
            "vcpus": 1,
            "memory_mib": 1024,
            "memory_reserve_mib": None,
            "latency": "normal",
            "virt": None,
            "os": "linux",
            "netserver": None,
            "image": "debian12",
            "user": "root",
            "start": "auto",
            "ready_s": 300,
            "nic": {"model": "paravirtual", "rate_mbit": None},
            "cpu": {
                "pin": None,
                "weight": 256,
                "cap_percent": None,
                "reserve_percent": None,
                "emulator_pin": None,
            },
        },
        "switch": {"type": None, "mtu": 1500},
        "uplinks": [],
        "overcommit": False,
        "lab": {"rate_mbit": None},
        "load_generator": None,
        "network": {"subnet": "198.18.0.0/16", "prefix": 24, "port": 12865},
        "management": {"bridge": None, "subnet": None},
        "dom0": {
            "vcpus": None,
            "pin": None,
            "weight": None,
            "cap_percent": None,
            "memory_mib": None,
            "irq_affinity": None,
        },
        "run": {
            "workloads": ["netperf-send", "netperf-receive"],
            "duration_s": 10,
            "ramp_s": 1,
            "repeat": 3,
            "within_percent": None,
            "most": 30,
            "redo": 2,
            "message_bytes": 8192,
            "socket_buffer_bytes": 65536,
            "datagram_bytes": 1472,
            "request_bytes": 1,
            "response_bytes": 1,
            "object_kib": [0, 1, 2, 4, 8, 16, 32, 48, 64],
            "clients": 16,
            "arrivals_per_s": 100,
        },
    }


@pytest.mark.parametrize("spec", [Spec(), FULL], ids=["defaults", "full"])
def test_there_and_back(spec: Spec, recwarn: pytest.WarningsRecorder) -> None:
    assert specs.restore(json.loads(json.dumps(specs.describe(spec)))) == spec
    assert specfile.loads(specfile.text(spec), "again") == spec
    assert not recwarn


def test_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        FULL.name = "other"
    assert hash(FULL)


def test_faults_of_several_fields_are_told_in_python_too() -> None:
    with pytest.raises(ValidationError, match="need a load_generator"):
        Spec(uplinks=("eth1",))


def test_template_is_the_defaults_and_has_every_field() -> None:
    text = specfile.template()
    assert specfile.loads(text, "template") == Spec()
    bare = [re.sub(r"#.*", "", line) for line in text.splitlines()]
    for path in specwords.fields():
        if path[0] == "load_generator" and len(path) > 1:
            assert f"#     {path[-1]}:" in text
        elif path[:-1] in (("hypervisor", "password"), ("guests", "netserver")):
            assert re.search(rf"# .*\W{path[-1]}: [A-Z]+", text)
        else:
            assert any(re.match(rf" *{path[-1]}:", line) for line in bare), path
    for line in text.splitlines():
        assert len(line) <= 100, line


def _objects(schema: object) -> list[dict[str, Any]]:
    if isinstance(schema, list):
        return [o for item in schema for o in _objects(item)]
    if not isinstance(schema, dict):
        return []
    inner = [o for v in schema.values() for o in _objects(v)]
    return [schema, *inner] if schema.get("type") == "object" else inner


def test_schema_describes_every_field_and_no_other() -> None:
    objects = _objects(specs.schema())
    assert len(objects) == 15
    names = set()
    for found in objects:
        assert found["additionalProperties"] is False
        names |= set(found["properties"])
        for name, field in found["properties"].items():
            assert len(field["description"]) > 8, name
    assert names == {path[-1] for path in specwords.fields()}
    json.dumps(specs.schema())


def test_schema_knows_short_forms_and_units() -> None:
    defs = specs.schema()["$defs"]
    assert [way["type"] for way in defs["Hypervisor"]["anyOf"]] == ["string", "object"]
    memory = defs["Guests"]["properties"]["memory"]["anyOf"]
    assert re.search(memory[0]["pattern"], "1GiB")
    assert not re.search(memory[0]["pattern"], "1GB")


def _row(path: tuple[str, ...]) -> str:
    """What the reference page says of a field: its default and its description."""
    model: Any = Spec
    for part in path[:-1]:
        model = specwords.sections(model)[part]
    attribute = next(a for a in model.model_fields if specwords.name(model, a) == path[-1])
    field = model.model_fields[attribute]
    if specwords.sections(model)[path[-1]] is not None:
        return f"{field.description}"
    template = re.search(rf"^ *{path[-1]}: +?([^#\n]*?) *(#.*)?$", _under(path[:-1]), re.MULTILINE)
    default = "required" if field.is_required() else f"`{template[1] if template else 'null'}`"
    return f"| `{'.'.join(path)}` | {default} | {field.description} |"


def _under(path: tuple[str, ...]) -> str:
    """The template's text from a section on."""
    text = specfile.template()
    for part in path:
        found = re.search(rf"^ *{part}:", text, re.MULTILINE)
        assert found or part == "load_generator"
        text = text[found.start() :] if found else text
    return text


@pytest.mark.parametrize("path", list(specwords.fields()), ids=".".join)
def test_the_reference_page_has_the_field(path: tuple[str, ...]) -> None:
    assert _row(path) in DOCS.read_text("utf-8").splitlines()
