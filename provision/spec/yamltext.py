"""YAML text -> plain data with the place of every field, and back.

Only this room knows ruamel.yaml, and uses its parser: scalars follow the core schema of YAML 1.2
(yaml.org/spec/1.2.2, 10.3.2), so ``no`` is text, and so is ``52:54:00:12:34:56``. Building from the
parser's events keeps the place of each key, finds every duplicate instead of the first, and shares
what an alias names instead of copying it, so that aliases of aliases cost nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml import events as ev
from ruamel.yaml.error import MarkedYAMLError, YAMLError

Loc = tuple[str | int, ...]

MAX_BYTES = 65536
MAX_DEPTH = 20
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]{1,30}|0o[0-7]{1,30}|0x[0-9a-fA-F]{1,30}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_TAG_PREFIX = "tag:yaml.org,2002:"
_TAGS = frozenset({"", "!", "!!str", "!!map", "!!seq"})
#: the parser's phrases that do not help, and what is meant
_PHRASES = (
    (
        r"(found|got) '<stream end>'|unexpected end of stream",
        "ends in the middle; a bracket or a quote is still open",
    ),
    (
        r"expected (<block end>|'<document start>'), but found|sequence entries are not allowed",
        "does not fit what is above; check the indentation",
    ),
    (r"found character '\\t'", "a tab; YAML is indented with spaces"),
    (r"that cannot start any token", "this character begins nothing in YAML; put it in quotes"),
    (r"expected the node content", "a value is missing here"),
    (r"could not find expected ':'", "a line without ':'; each one is 'field: value'"),
    (r"mapping values are not allowed", "a second ':' in the line, or wrong indentation above"),
    (r"special characters are not allowed", "a control character"),
)


@dataclass(frozen=True, slots=True)
class Document:
    """``data`` is None for an empty text; ``problems`` are (index into the text, field, what).

    ``places`` has the index of each field's key, or of the item in a list. ``whole`` is False
    where the text could not be read to its end, and ``data`` is then not to be used.
    """

    text: str
    data: object = None
    places: dict[Loc, int] = field(default_factory=dict)
    problems: list[tuple[int, Loc, str]] = field(default_factory=list)
    whole: bool = True

    def place(self, index: int) -> tuple[int, int]:
        """Line and column, from 1, always inside the text."""
        last = max(len(self.text.rstrip()) - 1, 0)
        index = min(index, last)
        return self.text.count("\n", 0, index) + 1, index - self.text.rfind("\n", 0, index)


class _Stop(Exception):
    """Reading ends here: (index, what)."""


def read(raw: bytes | str) -> Document:
    """Never raises: what is wrong with the text is in ``problems``."""
    document = _decode(raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw)
    if not document.whole:
        return document
    try:
        return replace(document, data=_Reader(document).document())
    except _Stop as e:
        index, what = e.args
    except MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        index, what = mark.index if mark else 0, _plain(e.problem or e.context or "not YAML")
    except YAMLError as e:  # a character that YAML does not have
        index, what = getattr(e, "position", 0), _plain(str(e))
    # what the parser itself stumbles over, such as a directive or an escape out of range
    except (ValueError, IndexError, TypeError, AttributeError, NotImplementedError) as e:
        index, what = 0, f"not YAML: {_plain(str(e))}"
    document.problems.append((index, (), what))
    return replace(document, whole=False)


def write(data: object) -> str:
    """Plain data as YAML that ``read`` reads back."""
    to = StringIO()
    yaml = YAML(typ="rt", pure=True)
    yaml.allow_unicode = False  # escapes are read back as they were; a bare U+0085 is not
    yaml.dump(data, to)
    return to.getvalue()


def _decode(raw: bytes) -> Document:
    if len(raw) > MAX_BYTES:
        what = f"more than {MAX_BYTES // 1024} KiB; this is not a spec"
        return Document("", problems=[(0, (), what)], whole=False)
    try:
        return Document(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as e:
        text = raw[: e.start].decode("utf-8-sig") + "?"
        return Document(text, problems=[(len(text) - 1, (), "not UTF-8 text")], whole=False)


def _plain(phrase: str) -> str:
    for pattern, plain in _PHRASES:
        if re.search(pattern, phrase):
            return plain
    return " ".join(phrase.split())


class _Reader:
    def __init__(self, document: Document) -> None:
        self.events: Iterator[Any] = YAML(typ="rt", pure=True).parse(document.text)
        self.to = document
        self.anchors: dict[str, object] = {}

    def document(self) -> object:
        data: object = None
        seen = False
        for event in self.events:
            match event:
                case ev.DocumentStartEvent() if seen:
                    raise _Stop(event.start_mark.index, "a second document; a spec is one")
                case ev.DocumentEndEvent():
                    seen = True
                case ev.NodeEvent():
                    self.to.places[()] = event.start_mark.index
                    data = self.value(event, ())
        return data

    def value(self, event: Any, loc: Loc) -> object:
        index = event.start_mark.index
        if len(loc) > MAX_DEPTH:
            raise _Stop(index, f"nested more than {MAX_DEPTH} deep")
        found: object
        match event:
            case ev.AliasEvent():
                # an anchor is known once its value is whole, so none can contain itself
                if event.anchor not in self.anchors:
                    raise _Stop(index, f"*{ascii(event.anchor)[1:-1]} is an alias of nothing")
                return self.anchors[event.anchor]
            case ev.MappingStartEvent():
                found = self.mapping(loc)
            case ev.SequenceStartEvent():
                found = self.sequence(loc)
            case _:
                found = scalar(event.value) if event.implicit[0] else event.value
        tag = "" if event.tag is None else str(event.tag).replace(_TAG_PREFIX, "!!")
        if tag not in _TAGS:
            self.to.problems.append((index, loc, f"the tag {tag!r} has no meaning here"))
        if event.anchor:
            self.anchors[event.anchor] = found
        return found

    def sequence(self, loc: Loc) -> list[object]:
        found: list[object] = []
        while not isinstance(event := next(self.events), ev.SequenceEndEvent):
            here = (*loc, len(found))
            self.to.places.setdefault(here, event.start_mark.index)
            found.append(self.value(event, here))
        return found

    def mapping(self, loc: Loc) -> dict[str, object]:
        found: dict[str, object] = {}
        while not isinstance(event := next(self.events), ev.MappingEndEvent):
            index = event.start_mark.index
            if not isinstance(event, ev.ScalarEvent):
                raise _Stop(index, "a field's name should be plain text")
            name = str(event.value)
            here = (*loc, name)
            if name in found:
                line, _ = self.to.place(self.to.places[here])
                self.to.problems.append((index, here, f"given twice, first in line {line}"))
            self.to.places.setdefault(here, index)
            found.setdefault(name, self.value(next(self.events), here))
        return found


def scalar(text: str) -> object:
    """What an unquoted word means: null, true, a number, or text."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text) or _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", "", 1) if _NOT_FINITE.fullmatch(text) else text)
    return text
