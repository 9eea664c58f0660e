"""Variables, by dynamic scope, and functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.peers.powershell.errors import Unsupported
from tests.peers.powershell.syntax import Node

MISSING = object()
DEEPEST = 200


@dataclass(frozen=True)
class Parameter:
    """``default`` and ``type`` are nodes."""

    name: str
    type: Node | None
    default: Node | None
    mandatory: bool


@dataclass(frozen=True)
class Function:
    """What can be called: a function or a block."""

    parameters: tuple[Parameter, ...]
    body: tuple[Node, ...]

    @classmethod
    def of(cls, node: Node) -> Function:
        """Of a function statement or a script block expression."""
        body: list[Node] = []
        found: tuple[Parameter, ...] = ()
        for part in _inside(node):
            if part.type in ("function_parameter_declaration", "param_block"):
                found = tuple(_parameters(part))
            elif part.type in ("named_block_list", "named_block"):
                raise Unsupported(f"line {part.line}: begin, process and end blocks")
            elif part.type not in ("function_name",):
                body.append(part)
        return cls(found, tuple(body))


def _inside(node: Node) -> Iterator[Node]:
    for part in node.parts:
        if part.type in ("script_block", "script_block_body", "statement_list"):
            yield from _inside(part)
        else:
            yield part


def _parameters(node: Node) -> Iterator[Parameter]:
    for part in node.parts:
        match part.type:
            case "variable":
                yield Parameter(part.text[1:], None, None, mandatory=False)
            case "script_parameter":
                yield _parameter(part)
            case "parameter_list":
                yield from _parameters(part)
            case _:
                raise Unsupported(f"line {part.line}: {part.text} among parameters")


def _parameter(node: Node) -> Parameter:
    variable = node.of("variable")
    default = node.of("script_parameter_default")
    types = [n for n in node.walk() if n.type == "type_literal"]
    attributes = [n for n in node.walk() if n.type == "attribute"]
    words = {"".join(a.text.lower().split()) for a in attributes}
    if words - {"[parameter(mandatory=$true)]", "[parameter(mandatory)]"} or variable is None:
        raise Unsupported(f"line {node.line}: attributes of parameters {sorted(words)}")
    return Parameter(
        variable.text[1:], types[-1] if types else None,
        default.parts[-1] if default is not None else None, bool(words),
    )  # fmt: skip


@dataclass
class Scopes:
    """The chain of scopes, the script's own first."""

    chain: list[dict[str, Any]] = field(default_factory=lambda: [{}])
    functions: dict[str, Function] = field(default_factory=dict)

    def get(self, name: str) -> Any:
        """MISSING where there is none."""
        scope, _, bare = name.lower().rpartition(":")
        chain = self.chain[:1] if scope in ("script", "global") else self.chain
        for values in reversed(chain):
            if bare in values:
                return values[bare]
        return MISSING

    def set(self, name: str, value: Any) -> None:
        scope, _, bare = name.rpartition(":")
        if scope.lower() not in ("", "script", "global", "local"):
            raise Unsupported(f"setting ${name}")
        at = self.chain[0 if scope.lower() in ("script", "global") else -1]
        at[bare.lower()] = value

    @contextmanager
    def inner(self, values: Mapping[str, Any]) -> Iterator[None]:
        if len(self.chain) > DEEPEST:
            raise Unsupported("calls this deep")
        self.chain.append({name.lower(): value for name, value in values.items()})
        try:
            yield
        finally:
            self.chain.pop()

    @contextmanager
    def values(self, values: Mapping[str, Any]) -> Iterator[None]:
        """Some of the present scope for a while, such as ``$_``."""
        at = self.chain[-1]
        names = {name.lower(): value for name, value in values.items()}
        before = {name: at.get(name, MISSING) for name in names}
        at.update(names)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is MISSING:
                    at.pop(name, None)
                else:
                    at[name] = value
