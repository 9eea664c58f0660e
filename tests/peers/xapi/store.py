"""The peer's database: records by class and reference, with back references and events."""

from __future__ import annotations

import copy
import threading
import time
import uuid
import xmlrpc.client
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.peers.xapi.table import Model, load
from tests.peers.xapi.values import NULL, Failure, default

#: class, its field, and the field of the other side that is computed from it (xen-api,
#: datamodel.ml, ``all_relations``: those of the classes that are here)
RELATIONS = (
    ("VIF", "VM", "VM", "VIFs"), ("VIF", "network", "network", "VIFs"),
    ("VBD", "VM", "VM", "VBDs"), ("VBD", "VDI", "VDI", "VBDs"), ("VDI", "SR", "SR", "VDIs"),
    ("PIF", "network", "network", "PIFs"), ("PIF", "host", "host", "PIFs"),
    ("PBD", "SR", "SR", "PBDs"), ("PBD", "host", "host", "PBDs"),
    ("VM", "snapshot_of", "VM", "snapshots"), ("VM", "parent", "VM", "children"),
    ("VM", "resident_on", "host", "resident_VMs"), ("VDI", "snapshot_of", "VDI", "snapshots"),
    ("VLAN", "tagged_PIF", "PIF", "VLAN_slave_of"), ("Bond", "master", "PIF", "bond_master_of"),
    ("PIF", "bond_slave_of", "Bond", "slaves"), ("task", "subtask_of", "task", "subtasks"),
)  # fmt: skip
BACK = frozenset((cls, name) for _, _, cls, name in RELATIONS)
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    generation: int
    cls: str
    ref: str
    operation: str
    born: int  # the generation in which the object was made


@dataclass
class Store:
    """All methods but ``lock``'s own want the lock held. ``changed`` is told of every event."""

    model: Model = field(default_factory=load)
    lock: threading.RLock = field(default_factory=threading.RLock)
    tables: dict[str, dict[str, Record]] = field(default_factory=dict)
    generation: int = 0
    events: dict[str, Event] = field(default_factory=dict)
    #: fields that are worked out when they are looked at
    views: dict[tuple[str, str], Callable[[str], Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.changed = threading.Condition(self.lock)
        self.tables.update({cls: {} for cls in self.model.classes})

    def new(self, cls: str, /, **values: Any) -> str:
        """Make an object; fields that are not given have the model's defaults."""
        fields = self.model.classes[cls].fields
        assert not (strange := values.keys() - fields.keys()), f"{cls} has no {strange}"
        record = {
            name: default(has.type, has.default) for name, has in fields.items()
            if (cls, name) not in BACK
        }  # fmt: skip
        record |= copy.deepcopy(values)
        record["uuid"] = values.get("uuid") or str(uuid.uuid4())
        ref = f"OpaqueRef:{uuid.uuid4()}"
        self.tables[cls][ref] = record
        self._note(cls, ref, "add")
        return ref

    def get(self, cls: str, ref: str) -> Record:
        """The stored record itself; raises HANDLE_INVALID."""
        try:
            return self.tables[cls][ref]
        except KeyError:
            raise Failure("HANDLE_INVALID", cls, ref) from None

    def has(self, cls: str, ref: str) -> bool:
        return ref in self.tables[cls]

    def put(self, cls: str, ref: str, **values: Any) -> None:
        self.get(cls, ref).update(copy.deepcopy(values))
        self._note(cls, ref, "mod")

    def drop(self, cls: str, ref: str) -> None:
        self.get(cls, ref)
        del self.tables[cls][ref]
        self._note(cls, ref, "del")

    def record(self, cls: str, ref: str) -> Record:
        """A copy with the back references, as clients get it."""
        found = copy.deepcopy(self.get(cls, ref))
        for source, name, target, back in RELATIONS:
            if target == cls:
                found[back] = self.refs(source, **{name: ref})
        for (of, name), view in self.views.items():
            if of == cls:
                found[name] = view(ref)
        return found

    def refs(self, cls: str, /, **having: Any) -> list[str]:
        """All objects whose fields have these values."""
        return [ref for ref, _ in self.each(cls, **having)]

    def each(self, cls: str, /, **having: Any) -> Iterator[tuple[str, Record]]:
        for ref, record in [*self.tables[cls].items()]:
            if all(record[name] == value for name, value in having.items()):
                yield ref, record

    def named(self, cls: str, name: str) -> str:
        """The one object of that name; a test's own mistake is an AssertionError."""
        found = self.refs(cls, name_label=name)
        assert len(found) == 1, f"{len(found)} {cls} called {name!r}"
        return found[0]

    def _note(self, cls: str, ref: str, operation: str) -> None:
        self.generation += 1
        born = self.events[ref].born if ref in self.events else self.generation
        self.events[ref] = Event(self.generation, cls, ref, operation, born)
        self.changed.notify_all()

    def since(self, generation: int, matches: Mapping[str, set[str] | None]) -> list[Event]:
        """Each object's last event after that; ``matches``: lower-case classes, None = all refs."""
        found = []
        for event in self.events.values():
            if event.generation <= generation:
                continue
            refs = matches.get("*", matches.get(event.cls.lower(), set()))
            if refs is not None and event.ref not in refs:
                continue
            if event.operation == "del" and event.born > generation:
                continue  # came and went unseen
            found.append(event)
        return sorted(found, key=lambda event: event.generation)


def now() -> xmlrpc.client.DateTime:
    return xmlrpc.client.DateTime(time.strftime("%Y%m%dT%H:%M:%SZ", time.gmtime()))


def null(ref: str) -> bool:
    return ref in ("", NULL)
