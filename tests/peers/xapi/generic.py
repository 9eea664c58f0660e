"""The messages that follow from the fields: getters, setters, constructors, finders."""

from __future__ import annotations

from typing import Any

from tests.peers.xapi.store import Store, null
from tests.peers.xapi.values import Failure, faults

#: a constructor's missing field, as the generated dispatcher says it
MISSING = 'Server_helpers.Dispatcher_FieldNotFound("{}")'
CHANGES = ("set_", "add_to_", "remove_from_", "add_", "remove_")


class BadRecord(Exception):
    """A constructor's record that no correct client sends; ``failure`` is the answer."""

    def __init__(self, failure: Failure, why: str) -> None:
        self.failure = failure
        super().__init__(why)


def answer(store: Store, cls: str, message: str, args: list[Any]) -> Any:
    """What the message gives or does. Raises KeyError where it is none of these."""
    match message:
        case "get_all":
            return store.refs(cls)
        case "get_all_records":
            return {ref: store.record(cls, ref) for ref in store.refs(cls)}
        case "get_record":
            return store.record(cls, args[0])
        case "get_by_uuid":
            if found := store.refs(cls, uuid=args[0]):
                return found[0]
            raise Failure("UUID_INVALID", cls, args[0])
        case "get_by_name_label":
            return store.refs(cls, name_label=args[0])
    return _field(store, cls, message, args)


def _field(store: Store, cls: str, message: str, args: list[Any]) -> Any:
    fields = store.model.classes[cls].fields
    name = message.removeprefix("get_")
    if message.startswith("get_") and name in fields:
        return store.record(cls, args[0])[name]
    for way in CHANGES:
        if message.startswith(way) and (name := message.removeprefix(way)) in fields:
            return change(store, cls, args[0], way, name, *args[1:])
    raise KeyError(message)


def change(store: Store, cls: str, ref: str, way: str, name: str, *values: Any) -> None:
    """Set a field, or put into it or take from it."""
    record = store.get(cls, ref)
    old = record[name]
    match way:
        case "set_":
            new = values[0]
        case "add_to_":
            if values[0] in old:
                raise Failure("MAP_DUPLICATE_KEY", cls, name, record["uuid"], values[0])
            new = {**old, values[0]: values[1]}
        case "remove_from_":
            new = {k: v for k, v in old.items() if k != values[0]}
        case "add_":
            new = old if values[0] in old else [*old, values[0]]
        case _:
            new = [one for one in old if one != values[0]]
    store.put(cls, ref, **{name: new})


def constructor(store: Store, cls: str, given: dict[str, Any]) -> dict[str, Any]:
    """The fields that a record sets, checked: all that must be there, of their types, alive."""
    found = {}
    for name, has in store.model.classes[cls].fields.items():
        if has.qualifier == "RO/runtime" or has.state == "Removed":
            continue
        if name in given:
            found[name] = given[name]
        elif has.default is None:
            why = MISSING.format(name)
            raise BadRecord(Failure("INTERNAL_ERROR", why), f"{cls}.create: {why}")
    for name, value in found.items():
        kind = store.model.classes[cls].fields[name].type
        for why in faults(store.model, kind, value, f"{cls}.create: {name}"):
            raise BadRecord(Failure("FIELD_TYPE_ERROR", name), why)
        target = kind.removesuffix(" ref")
        if kind.endswith(" ref") and target in store.tables and not null(value):
            store.get(target, value)
    return found
