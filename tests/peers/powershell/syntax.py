"""Scripts to trees: tree-sitter's grammar, with what has only one part left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import tree_sitter
import tree_sitter_powershell

from tests.peers.powershell.errors import Unsupported

#: what a node of one part is left out of
_KEPT = {
    "command", "command_name", "command_parameter", "variable", "statement_block",
    "array_expression",
    "command_elements", "command_invokation_operator", "expandable_string_literal", "param_block",
    "expandable_here_string_literal", "flow_control_statement", "argument_list", "script_block",
    "comparison_operator", "assignement_operator", "type_literal", "redirection", "program",
}  # fmt: skip


@dataclass(frozen=True)
class Node:
    """``kids`` are in the order of the text, with punctuation; ``field`` is the grammar's word."""

    type: str
    text: str
    kids: tuple[Node, ...]
    line: int
    start: int
    end: int
    named: bool
    field: str = ""

    @cached_property
    def parts(self) -> tuple[Node, ...]:
        """The kids that are not punctuation."""
        return tuple(kid for kid in self.kids if kid.named)

    def of(self, *types: str) -> Node | None:
        """The first kid of these types."""
        for kid in self.kids:
            if kid.type in types:
                return kid
        return None

    @cached_property
    def condition(self) -> Node:
        """What an if or a loop asks."""
        return next(kid for kid in self.kids if kid.field == "condition")

    @cached_property
    def name(self) -> str:
        """Of a variable."""
        return self.text[1:].strip("{}")

    def walk_last(self) -> Node:
        """The last part of the only statement: what is assigned."""
        node = self
        while node.type != "assignment_expression":
            node = node.parts[-1]
        return node.parts[-1]

    def walk(self) -> Iterator[Node]:
        yield self
        for kid in self.kids:
            yield from kid.walk()


@lru_cache(maxsize=32)
def parse(script: str) -> Node:
    """Raises Unsupported where the grammar finds an error, with the line."""
    data = script.encode()
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language()))
    root = parser.parse(data).root_node
    if root.has_error:
        raise Unsupported(f"syntax: {_first_error(root, data)}")
    return _light(root, data, "")


def _first_error(node: tree_sitter.Node, data: bytes) -> str:
    if node.is_missing or node.type == "ERROR":
        text = data[node.start_byte : node.end_byte].decode()[:80]
        what = f"lacks {node.type}" if node.is_missing else repr(text)
        return f"line {node.start_point[0] + 1}: {what}"
    return next(_first_error(kid, data) for kid in node.children if kid.has_error or kid.is_missing)


def _light(node: tree_sitter.Node, data: bytes, field: str) -> Node:
    kids = [
        (kid, node.field_name_for_child(number) or "")
        for number, kid in enumerate(node.children)
        if kid.type != "comment"
    ]
    if len(kids) == 1 and kids[0][0].is_named and node.type not in _KEPT:
        return _light(kids[0][0], data, field or kids[0][1])
    return Node(
        node.type, data[node.start_byte : node.end_byte].decode(),
        tuple(_light(kid, data, name) for kid, name in kids),
        node.start_point[0] + 1, node.start_byte, node.end_byte, node.is_named, field,
    )  # fmt: skip


_SIZES = {"kb": 2**10, "mb": 2**20, "gb": 2**30, "tb": 2**40, "pb": 2**50}
_ESCAPES = {
    "0": "\0", "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
}  # fmt: skip


def number(text: str) -> int | float:
    """A literal, with its multiplier."""
    found = re.fullmatch(r"(0x[0-9a-f]+|[\d.]+(?:e[+-]?\d+)?)(l|d)?(kb|mb|gb|tb|pb)?", text.lower())
    if not found:
        raise Unsupported(f"the number {text}")
    digits, _, size = found.groups()
    value = int(digits, 16) if digits.startswith("0x") else float(digits)
    if isinstance(value, float) and digits.isdigit():
        value = int(digits)
    return value * _SIZES.get(size or "", 1)


def unquoted(literal: str) -> str:
    """What a verbatim string stands for."""
    if literal.startswith("@'"):
        return re.sub(r"\r?\n'@$", "", re.sub(r"^@'[ \t]*\r?\n", "", literal))
    return literal[1:-1].replace("''", "'")


def unescaped(literal: str) -> str:
    """A part of an expandable string that is no variable."""
    found = re.sub(r"`(.)", lambda m: _ESCAPES.get(m[1], m[1]), literal, flags=re.DOTALL)
    return found.replace('""', '"')
