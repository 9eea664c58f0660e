"""Expressions: values, and where a value may be put."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.peers.powershell import convert, members, statics
from tests.peers.powershell.errors import ErrorRecord, PSError, Unsupported, runtime
from tests.peers.powershell.host import Host
from tests.peers.powershell.operators import binary, formatted
from tests.peers.powershell.pipeline import Pipelines
from tests.peers.powershell.scopes import MISSING, Scopes
from tests.peers.powershell.syntax import Node, number, unescaped, unquoted
from tests.peers.powershell.values import (
    NOTHING,
    ScriptBlock,
    Table,
    TypeRef,
    collapse,
    elements,
    text,
    truth,
)  # fmt: skip

_COMMANDS = {
    "pipeline_chain", "command", "command_name", "if_statement", "foreach_statement",
    "try_statement", "switch_statement", "while_statement", "for_statement", "do_statement",
}  # fmt: skip
_BINARY = {
    f"{kind}{argument}_expression"
    for kind in ("bitwise", "comparison", "additive", "multiplicative")
    for argument in ("", "_argument")
}


class Expressions(Pipelines):
    """Works out values; ``current`` is the error that a catch block is about."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.scopes = Scopes()
        self.errors: list[ErrorRecord] = []
        self.current: PSError | None = None
        self.strict = 0.0
        self.exit_code = 0
        self.statics = statics.Statics(host)

    @contextmanager
    def caught(self, error: PSError) -> Iterator[None]:
        before, self.current = self.current, error
        try:
            yield
        finally:
            self.current = before

    def statement(self, node: Node, out: list[Any]) -> None:
        raise Unsupported(node.type)

    def value(self, node: Node) -> Any:
        """Of an expression, or of a command in its place."""
        if node.type in _COMMANDS:
            out: list[Any] = []
            self.statement(node, out)
            return collapse(out)
        method = self._VALUES.get(node.type)
        if method is not None:
            return method(self, node)
        if node.type in _BINARY:
            return self._binary(node)
        raise Unsupported(f"line {node.line}: {node.type}: {node.text[:60]}")

    def _binary(self, node: Node) -> Any:
        found = self.value(node.kids[0])
        for at in range(1, len(node.kids), 2):
            right = self.value(node.kids[at + 1])
            found = self.operate(node.kids[at].text, found, right)
        return found

    def operate(self, operator: str, left: Any, right: Any) -> Any:
        if isinstance(right, TypeRef) or isinstance(left, TypeRef) or right is not None:
            return binary(operator, left, right)
        return binary(operator, left, right)

    def _logical(self, node: Node) -> bool:
        found = truth(self.value(node.kids[0]))
        for at in range(1, len(node.kids), 2):
            operator, right = node.kids[at].text.lower(), node.kids[at + 1]
            if operator == "-and":
                found = found and truth(self.value(right))
            elif operator == "-or":
                found = found or truth(self.value(right))
            else:
                found = found != truth(self.value(right))
        return found

    def _format(self, node: Node) -> str:
        given = self.value(node.parts[-1])
        return formatted(text(self.value(node.parts[0])), elements(given))

    def _range(self, node: Node) -> list[int]:
        first, last = (convert.integer(_some(self.value(part))) for part in node.parts)
        return [*range(first, last + 1)] if first <= last else [*range(first, last - 1, -1)]

    def _array_literal(self, node: Node) -> list[Any]:
        return [_some(self.value(part)) for part in node.parts]

    def _unary(self, node: Node) -> Any:
        operator, operand = node.kids[0].text.lower(), node.kids[-1]
        found = _some(self.value(operand))
        match operator:
            case "-not" | "!":
                return not truth(found)
            case "-":
                return binary("-", 0, found)
            case "+":
                return binary("+", 0, found)
            case ",":
                return [found]
            case "-join":
                return "".join(text(v) for v in elements(found))
            case "-bnot":
                return ~convert.integer(found)
        raise Unsupported(f"line {node.line}: the operator {operator}")

    def _step(self, node: Node) -> Any:
        operand = node.of("variable", "member_access", "element_access")
        sign = "+" if "++" in node.text else "-"
        if operand is None:
            raise Unsupported(f"line {node.line}: {node.text}")
        before = self.value(operand)
        self.put(operand, binary(sign, before, 1))
        return before if node.type.startswith("post") else self.value(operand)

    def _cast(self, node: Node) -> Any:
        literal, operand = node.parts
        name = literal.text[1:-1].lower()
        if name == "ordered":
            if operand.type != "hash_literal_expression":
                raise Unsupported(f"line {node.line}: [ordered] of anything but a hashtable")
            return self._hash(operand, ordered=True)
        if name == "pscustomobject" and operand.type == "hash_literal_expression":
            return convert.cast(self._hash(operand, ordered=True), convert.type_ref(name))
        return convert.cast(self.value(operand), convert.type_ref(name))

    def _hash(self, node: Node, *, ordered: bool = False) -> Table:
        table = Table(ordered=ordered)
        for entry in (n for n in _flat(node) if n.type == "hash_entry"):
            key, value = entry.parts[0], entry.parts[-1]
            name = key.text.strip() if key.type in ("simple_name", "key_expression") else None
            at = name if name is not None else self.value(key)
            if at in table:
                raise runtime(
                    "DuplicateKeyInHashLiteral",
                    "InvalidOperation",
                    f"Duplicate keys '{text(at)}' are not allowed in hash literals.",
                )
            table[at] = _some(self.value(value))
        return table

    def _variable(self, node: Node) -> Any:
        return self.variable(node.name)

    def variable(self, name: str) -> Any:
        low = name.lower()
        if (fixed := self._FIXED.get(low)) is not None:
            return fixed(self)
        if low.startswith("env:"):
            return self.host.environment(name[4:])
        found = self.scopes.get("_" if low == "psitem" else name)
        if found is MISSING:
            if self.strict and low not in ("_",):
                raise runtime(
                    "VariableIsUndefined",
                    "InvalidOperation",
                    f"The variable '${name}' cannot be retrieved because it has not been set.",
                )
            return None
        return found

    def _string(self, node: Node) -> str:
        """An expandable string: between its variables it is literal."""
        cut = 1
        if node.text.startswith("@"):
            cut = node.text.index("\n") + 1
        data = node.text.encode()
        end = len(data) - (1 if cut == 1 else len(data) - node.text.encode().rindex(b'\n"@'))
        if cut != 1 and data[end - 1 : end] == b"\r":
            end -= 1
        cut, found = len(node.text[:cut].encode()), ""
        for part in node.parts:
            found += unescaped(data[cut : part.start - node.start].decode())
            found += text(self.value(part))
            cut = part.end - node.start
        return found + unescaped(data[cut:end].decode())

    def _statements(self, node: Node) -> list[Any]:
        out: list[Any] = []
        for part in node.parts:
            self.statement(part, out)
        return out

    def _paren(self, node: Node) -> Any:
        (part,) = node.parts
        if part.type == "assignment_expression":
            return self.assign(part)
        return self.value(part)

    def name_of(self, node: Node) -> str:
        """What stands after a dot."""
        if node.type in ("simple_name", "member_name"):
            return node.text.strip()
        return text(self.value(node))

    def _member(self, node: Node) -> Any:
        owner, mark, name = node.parts[0], node.kids[1].text, node.parts[-1]
        if mark == "::":
            return self.statics.get(convert.type_ref(owner.text[1:-1]), self.name_of(name))
        return members.get(self.host, _some(self.value(owner)), self.name_of(name), self.strict)

    def _call(self, node: Node) -> Any:
        arguments = node.of("argument_list")
        given = [_some(self.value(n)) for n in _arguments(arguments)] if arguments else []
        owner, mark, name = node.parts[0], node.kids[1].text, node.parts[1]
        if mark == "::":
            return self.statics.call(convert.type_ref(owner.text[1:-1]), self.name_of(name), given)
        return members.call(self.host, _some(self.value(owner)), self.name_of(name), given)

    def _element(self, node: Node) -> Any:
        owner, at = node.parts
        return members.index(_some(self.value(owner)), _some(self.value(at)), self.strict)

    def assign(self, node: Node) -> Any:
        target, operator, source = node.parts[0], node.kids[1].text, node.parts[-1]
        found = self.value(source)
        found = None if found is NOTHING else found
        if operator != "=":
            found = binary(operator[:-1], _some(self.value(target)), found)
        self.put(target, found)
        return found

    def put(self, target: Node, value: Any) -> None:
        match target.type:
            case "variable" | "braced_variable":
                if target.name.lower() != "null":
                    self.scopes.set(target.name, value)
            case "cast_expression":
                literal, inner = target.parts
                self.put(inner, convert.cast(value, convert.type_ref(literal.text[1:-1])))
            case "member_access" if target.kids[1].text == "::":
                owner, name_node = target.parts
                kind = convert.type_ref(owner.text[1:-1])
                self.statics.put(kind, self.name_of(name_node), value)
            case "member_access":
                owner, name_node = target.parts
                members.put(_some(self.value(owner)), self.name_of(name_node), value)
            case "element_access":
                owner, at = target.parts
                members.put_at(_some(self.value(owner)), _some(self.value(at)), value)
            case _:
                raise Unsupported(f"line {target.line}: assignment to {target.text}")

    _FIXED: Mapping[str, Callable[[Expressions], Any]] = {
        "null": lambda _: None, "true": lambda _: True, "false": lambda _: False,
        "error": lambda self: [*self.errors], "lastexitcode": lambda self: self.exit_code,
        "psversiontable": lambda self: self.host.versions(), "psedition": lambda _: "Desktop",
    }  # fmt: skip
    _VALUES: Mapping[str, Callable[..., Any]] = {
        "logical_expression": _logical, "logical_argument_expression": _logical,
        "format_expression": _format, "format_argument_expression": _format,
        "range_expression": _range, "range_argument_expression": _range,
        "array_literal_expression": _array_literal,
        "expression_with_unary_operator": _unary, "unary_expression": _unary,
        "post_increment_expression": _step, "post_decrement_expression": _step,
        "pre_increment_expression": _step, "pre_decrement_expression": _step,
        "cast_expression": _cast, "hash_literal_expression": _hash,
        "variable": _variable, "braced_variable": _variable,
        "verbatim_string_characters": lambda _, n: unquoted(n.text),
        "verbatim_here_string_characters": lambda _, n: unquoted(n.text),
        "string_literal": lambda _, n: unquoted(n.text),
        "expandable_string_literal": _string, "expandable_here_string_literal": _string,
        "decimal_integer_literal": lambda _, n: number(n.text),
        "hexadecimal_integer_literal": lambda _, n: number(n.text),
        "real_literal": lambda _, n: number(n.text), "integer_literal": lambda _, n: number(n.text),
        "array_expression": _statements,
        "sub_expression": lambda self, n: collapse(self._statements(n)),
        "parenthesized_expression": _paren,
        "member_access": _member, "invokation_expression": _call, "element_access": _element,
        "type_literal": lambda _, n: convert.type_ref(n.text[1:-1]),
        "script_block_expression": lambda _, n: ScriptBlock(n, n.text[1:-1].encode()),
        "argument_list": lambda self, n: _one([_some(self.value(a)) for a in _arguments(n)]),
        "statement_list": lambda self, n: collapse(self._statements(n)),
    }  # fmt: skip


def _some(value: Any) -> Any:
    return None if value is NOTHING else value


def _one(found: list[Any]) -> Any:
    """What stands in parentheses after a bare word: one value, or an array."""
    return found[0] if len(found) == 1 else found


def _flat(node: Node) -> Iterator[Node]:
    """The entries of a hashtable, none of one inside."""
    for kid in node.kids:
        yield kid
        if kid.type == "hash_literal_body":
            yield from kid.kids


def _arguments(node: Node) -> list[Node]:
    inner = [kid for kid in node.parts if kid.type != "argument_expression_list"]
    for several in (kid for kid in node.parts if kid.type == "argument_expression_list"):
        inner += several.parts
    return inner
