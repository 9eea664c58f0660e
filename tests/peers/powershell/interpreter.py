"""Statements: what a script does, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.peers.powershell.errors import ErrorRecord, Flow, PSError, Unsupported, thrown
from tests.peers.powershell.expressions import Expressions
from tests.peers.powershell.operators import equal
from tests.peers.powershell.scopes import Function
from tests.peers.powershell.syntax import Node, parse
from tests.peers.powershell.values import NOTHING, PSObject, ScriptBlock, elements, text, truth

MOST_TURNS = 1_000_000


class Interpreter(Expressions):
    """Runs one script in one process of a host. What blocks give is appended to ``out``."""

    def run(self, script: str) -> tuple[list[Any], int]:
        """What the script gives, and its exit code. Raises PSError, Unsupported."""
        out: list[Any] = []
        try:
            for node in parse(script).parts:
                self.statement(node, out)
        except Flow as flow:
            return out, flow.code if flow.kind == "exit" else 0
        return out, 0

    def statement(self, node: Node, out: list[Any]) -> None:
        self.host.alive()
        method = self._STATEMENTS.get(node.type)
        if method is not None:
            method(self, node, out)
        elif node.type in ("pipeline_chain", "command", "command_name"):
            self.pipeline(node, out)
        elif node.type == "assignment_expression":
            self.assign(node)
        elif node.type in ("post_increment_expression", "post_decrement_expression",
                           "pre_increment_expression", "pre_decrement_expression"):  # fmt: skip
            self.value(node)
        else:
            out += elements(self.value(node))

    def block(self, node: Node | None, out: list[Any]) -> None:
        """What is between braces, or a list of statements."""
        if node is None:
            return
        if node.type in ("statement_block", "statement_list", "script_block", "script_block_body",
                         "named_block_list", "pipeline"):  # fmt: skip
            for part in node.parts:
                if part.type != "param_block":
                    self.statement(part, out)
        else:
            self.statement(node, out)

    def _if(self, node: Node, out: list[Any]) -> None:
        for clause in self._clauses(node):
            if truth(self.value(clause.condition)):
                return self.block(clause.of("statement_block"), out)
        otherwise = node.of("else_clause")
        if otherwise is not None:
            self.block(otherwise.of("statement_block"), out)
        return None

    @staticmethod
    def _clauses(node: Node) -> list[Node]:
        more = [kid for kid in node.kids if kid.type == "elseif_clause"]
        several = node.of("elseif_clauses")
        if several is not None:
            more += [kid for kid in several.kids if kid.type == "elseif_clause"]
        return [node, *more]

    def _foreach(self, node: Node, out: list[Any]) -> None:
        variable = node.of("variable")
        parts = [kid for kid in node.parts if kid.type != "variable" or kid is not variable]
        if variable is None or len(parts) != 2:
            raise Unsupported(f"line {node.line}: this foreach")
        found = self.value(parts[0])
        for one in [] if found is None or found is NOTHING else elements(found):
            self.scopes.set(variable.text[1:], one)
            if not self._turn(parts[1], out):
                break

    def _turn(self, body: Node | None, out: list[Any]) -> bool:
        """One turn of a loop; False where it is left."""
        try:
            self.block(body, out)
        except Flow as flow:
            if flow.kind == "break":
                return False
            if flow.kind != "continue":
                raise
        return True

    def _while(self, node: Node, out: list[Any]) -> None:
        while truth(self.value(node.condition)):
            if not self._turn(node.of("statement_block"), out):
                break

    def _do(self, node: Node, out: list[Any]) -> None:
        until = any(kid.type == "until" for kid in node.kids)
        while True:
            if not self._turn(node.of("statement_block"), out):
                break
            if truth(self.value(node.condition)) == until:
                break

    def _for(self, node: Node, out: list[Any]) -> None:
        parts = {kid.field: kid for kid in node.kids if kid.field}
        if "for_initializer" in parts:
            self.statement(parts["for_initializer"], [])
        for _ in range(MOST_TURNS):
            if "for_condition" in parts and not truth(self.value(parts["for_condition"])):
                return
            if not self._turn(node.of("statement_block"), out):
                return
            if "for_iterator" in parts:
                self.statement(parts["for_iterator"], [])
        raise Unsupported(f"line {node.line}: a loop of {MOST_TURNS} turns")

    def _switch(self, node: Node, out: list[Any]) -> None:
        condition, body = node.of("switch_condition"), node.of("switch_body")
        if condition is None or body is None or node.of("switch_parameters"):
            raise Unsupported(f"line {node.line}: this switch")
        subject = self.value(condition.parts[0])
        clauses = [n for n in body.walk() if n.type == "switch_clause"]
        matched = False
        for one in elements(subject):
            for clause in clauses:
                test, block = clause.parts[0], clause.parts[-1]
                if test.text.strip().lower() == "default":
                    fits = not matched
                else:
                    word = test.type in ("generic_token", "simple_name")
                    wanted = test.text.strip() if word else self.value(test)
                    fits = equal(one, wanted)
                if fits:
                    matched = True
                    with self.scopes.values({"_": one}):
                        if not self._turn(block, out):
                            return

    def _try(self, node: Node, out: list[Any]) -> None:
        clauses = _own(node)
        final = node.of("finally_clause")
        try:
            try:
                self.trying += 1
                try:
                    self.block(node.of("statement_block"), out)
                finally:
                    self.trying -= 1
            except PSError as e:
                clause = next((c for c in clauses if self._catches(c, e.record)), None)
                if clause is None:
                    raise
                self.errors.insert(0, e.record)
                with self.scopes.values({"_": e.record}), self.caught(e):
                    self.block(clause.of("statement_block"), out)
        finally:
            if final is not None:
                self.block(final.of("statement_block"), out)

    @staticmethod
    def _catches(clause: Node, record: ErrorRecord) -> bool:
        heads = [kid for kid in clause.kids if kid.type != "statement_block"]
        types = [n.text[1:-1] for h in heads for n in h.walk() if n.type == "type_literal"]
        names = {record.type.lower(), text(record.target).lower(), "system.exception"}
        return not types or any(
            f"system.{t.lower().removeprefix('system.')}" in names for t in types
        )

    def _flow(self, node: Node, out: list[Any]) -> None:
        kind, given = node.kids[0].text.lower(), node.parts
        if kind in ("break", "continue"):
            if given:
                raise Unsupported(f"line {node.line}: labels")
            raise Flow(kind)
        if kind == "return":
            for part in given:
                self.statement(part, out)
            raise Flow("return")
        if kind == "exit":
            code = self.value(given[0]) if given else 0
            raise Flow("exit", int(code or 0))
        if not given:
            if self.current is None:
                raise thrown("ScriptHalted")
            raise self.current
        found = self.value(given[0])
        if isinstance(found, ErrorRecord):
            raise PSError(found)
        if isinstance(found, PSObject) and not found.custom:
            message = text(found.properties["Message"])
            raise PSError(ErrorRecord(message, "OperationStopped", message, found.type))
        raise thrown(text(found))

    def _function(self, node: Node, _out: list[Any]) -> None:
        name = node.of("function_name")
        if name is None or node.kids[0].text.lower() != "function":
            raise Unsupported(f"line {node.line}: {node.kids[0].text}")
        self.scopes.functions[name.text.lower()] = Function.of(node)

    def invoke(
        self, function: Function, positional: list[Any], named: Mapping[str, Any],
        piped: list[Any] | None, out: list[Any], *, own_scope: bool = True,
    ) -> None:  # fmt: skip
        """Call a function or script block; parameters are bound by name, then by place."""
        values = self.bound(function, positional, named)
        if piped is not None:
            values["input"] = piped
        with self.scopes.inner(values) if own_scope else self.scopes.values(values):
            try:
                for part in function.body:
                    self.statement(part, out)
            except Flow as flow:
                if flow.kind != "return":
                    raise

    def call_block(self, block: ScriptBlock, item: Any) -> list[Any]:
        """Run a block of ForEach-Object or Where-Object, with $_."""
        out: list[Any] = []
        self.invoke(Function.of(block.node), [], {"_": item}, None, out, own_scope=False)
        return out

    _STATEMENTS: Mapping[str, Callable[..., None]] = {
        "if_statement": _if, "foreach_statement": _foreach, "while_statement": _while,
        "do_statement": _do, "for_statement": _for, "switch_statement": _switch,
        "try_statement": _try, "flow_control_statement": _flow, "function_statement": _function,
        "statement_block": block, "statement_list": block, "empty_statement": lambda *_: None,
        "script_block_body": block, "script_block": block,
    }  # fmt: skip


def _own(node: Node) -> list[Node]:
    """The parts of a try that are its own, and not of one inside."""
    found: list[Node] = []
    for kid in node.kids:
        if kid.type == "catch_clauses":
            found += [part for part in kid.kids if part.type == "catch_clause"]
        elif kid.type == "catch_clause":
            found.append(kid)
    return found
