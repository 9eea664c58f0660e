"""Properties, always many in one call and never by accessors: a PropertyCollector's part.

vSphere Web Services SDK, "PropertyCollector": a path may go through an array by an element's key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from drivers.vsphere.api import Fault, NotAuthenticated, vim, vmodl
from drivers.vsphere.connect import Session

Properties = Mapping[str, Any]
Part = tuple[Any, tuple[str, ...]]  # an object, and paths of its properties
query = vmodl.query.PropertyCollector


@dataclass(frozen=True, slots=True)
class Found:
    """An object and those of the properties asked for that are set."""

    ref: Any
    has: Properties


def spec(ref: Any, paths: Sequence[str], *, through: Sequence[Any] = (), kind: Any = None) -> Any:
    """A filter's spec: the object itself, or what the selections lead to, of that kind."""
    return query.FilterSpec(
        objectSet=[query.ObjectSpec(obj=ref, skip=bool(through), selectSet=list(through))],
        propSet=[query.PropertySpec(type=kind or type(ref), pathSet=list(paths), all=False)],
    )


def step(name: str, kind: Any, path: str, *then: str) -> Any:
    """A selection from objects of that kind along a property, and on by the named selections."""
    more = [query.SelectionSpec(name=other) for other in then]
    return query.TraversalSpec(name=name, type=kind, path=path, skip=False, selectSet=more)


def retrieve(session: Session, specs: Sequence[Any]) -> list[Found]:
    """What the specs select. Raises the faults of what may not be read, or is gone."""
    if not specs:
        return []
    try:
        return list(_pages(session, specs))
    except NotAuthenticated:  # some servers say so of each property instead of the call
        session.renew()
        return list(_pages(session, specs))


def get(session: Session, ref: Any, *paths: str) -> Properties:
    """Those of one object's properties that are set. Raises as ``retrieve``."""
    found = retrieve(session, [spec(ref, paths)])
    return found[0].has if found else {}


def each(session: Session, refs: Iterable[Any], *paths: str) -> list[Found]:
    """As ``get``, of many objects of one type in one call; one that is gone is left out."""
    objects = [query.ObjectSpec(obj=ref, skip=False) for ref in refs]
    if not objects:
        return []
    wanted = query.PropertySpec(type=type(objects[0].obj), pathSet=list(paths), all=False)
    spec_of_all = query.FilterSpec(
        objectSet=objects, propSet=[wanted], reportMissingObjectsInResults=True
    )
    return retrieve(session, [spec_of_all])


def many(session: Session, parts: Iterable[Part]) -> Mapping[Any, Properties]:
    """As ``get``, of objects of any types in one call, by object; one that is gone is left out."""
    asked: dict[Any, tuple[str, ...]] = {}
    for ref, paths in parts:
        before = asked.get(ref)
        asked[ref] = paths if before is None else tuple(dict.fromkeys((*before, *paths)))
    by_paths: dict[tuple[Any, tuple[str, ...]], list[Any]] = {}
    for ref, paths in asked.items():
        by_paths.setdefault((type(ref), paths), []).append(ref)
    specs = [
        query.FilterSpec(
            objectSet=[query.ObjectSpec(obj=ref, skip=False) for ref in refs],
            propSet=[query.PropertySpec(type=kind, pathSet=list(paths), all=False)],
            reportMissingObjectsInResults=True,  # else one that is gone fails the whole call
        )
        for (kind, paths), refs in by_paths.items()
    ]
    found: dict[Any, dict[str, Any]] = {}
    for one in retrieve(session, specs):
        found.setdefault(one.ref, {}).update(one.has)
    return found


def everything(session: Session, kind: Any, *paths: str) -> list[Found]:
    """As ``get``, of all objects of that type that we may see."""
    content = session.content
    view = content.viewManager.CreateContainerView(content.rootFolder, [kind], True)
    try:
        to_each = step("view", vim.view.ContainerView, "view")
        return retrieve(session, [spec(view, paths, through=[to_each], kind=kind)])
    finally:
        with suppress(Fault):
            view.DestroyView()


def _pages(session: Session, specs: Sequence[Any]) -> Iterable[Found]:
    collector = session.content.propertyCollector
    page = collector.RetrievePropertiesEx(list(specs), query.RetrieveOptions())
    while page is not None:
        for found in page.objects:
            _refuse(found)
            yield Found(found.obj, {p.name: p.val for p in found.propSet})
        token = page.token
        page = collector.ContinueRetrievePropertiesEx(token) if token else None


def _refuse(found: Any) -> None:
    """Raise for a property that is there and cannot be read; one that is unknown is just absent."""
    for missing in found.missingSet or ():
        if not isinstance(missing.fault, vmodl.query.InvalidProperty):
            raise missing.fault
