"""Commands: what is called, with what, and what becomes of errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.peers.powershell import builtins, convert
from tests.peers.powershell.errors import ErrorRecord, PSError, Unsupported, runtime
from tests.peers.powershell.host import Call, Host
from tests.peers.powershell.scopes import Function, Scopes
from tests.peers.powershell.syntax import Node, parse, unescaped
from tests.peers.powershell.values import NOTHING, ScriptBlock, Table, elements, text

_COMMON = {
    "erroraction", "warningaction", "verbose", "debug", "informationaction", "progressaction",
}  # fmt: skip
_ALIASES = {"ea": "erroraction", "wa": "warningaction", "vb": "verbose", "db": "debug"}
_ACTIONS = ("stop", "continue", "silentlycontinue", "ignore")
_RANGE = re.compile(r"(\d+)\.\.(\d+|\$[\w.]+)")


class Pipelines:
    """The calling of commands; what it works with is the interpreter's."""

    host: Host
    scopes: Scopes
    errors: list[ErrorRecord]
    exit_code: int
    trying = 0

    def value(self, node: Node) -> Any:
        raise Unsupported(node.type)

    def variable(self, name: str) -> Any:
        raise Unsupported(name)

    def invoke(
        self, function: Function, positional: list[Any], named: Mapping[str, Any],
        piped: list[Any] | None, out: list[Any], *, own_scope: bool = True,
    ) -> None:  # fmt: skip
        raise Unsupported("calls")

    def noted(self, record: ErrorRecord, action: str) -> None:
        """An error that ends nothing."""
        if action != "ignore":
            self.errors.insert(0, record)
        if action == "continue":
            self.host.write_err(f"{record.message}\r\n")

    def preference(self) -> str:
        found = text(self.variable("ErrorActionPreference")).lower() or "continue"
        if found not in _ACTIONS:
            raise Unsupported(f"$ErrorActionPreference {found}")
        return found

    def pipeline(self, node: Node, out: list[Any]) -> None:
        """Run the commands of one pipeline, each on what the one before gave."""
        stages = [kid for kid in node.kids if kid.text != "|"] if (
            node.type == "pipeline_chain"
        ) else [node]  # fmt: skip
        piped: list[Any] | None = None
        try:
            for stage in stages:
                found: list[Any] = []
                if stage.type in ("command", "command_name"):
                    self._command(stage, piped, found)
                elif piped is None:
                    found += elements(self.value(stage))
                else:
                    raise Unsupported(f"line {stage.line}: an expression after a pipe")
                piped = found
        except PSError as e:
            action = self.preference()
            if action == "stop" or self.trying or e.record.category == "OperationStopped":
                raise
            self.noted(e.record, action)
        out += piped or []

    def _command(self, node: Node, piped: list[Any] | None, out: list[Any]) -> None:
        counted = _RANGE.fullmatch(node.text.strip())
        if counted:  # which the grammar takes for a command
            out += self.value(parse(f"({counted[1]})..({counted[2]})").parts[0])
            return
        what = self._called(node)
        positional, named, discard = self._arguments(node)
        found: list[Any] = []
        if isinstance(what, ScriptBlock):
            self.invoke(Function.of(what.node), positional, dict(named.items()), piped, found)
        elif (function := self.scopes.functions.get(what.lower())) is not None:
            self.invoke(function, positional, dict(named.items()), piped, found)
        else:
            found = self._outside(what, positional, named, piped, node)
        if not discard:
            out += found

    def _called(self, node: Node) -> Any:
        name = node if node.type == "command_name" else node.of("command_name", "path_command_name")
        if name is None:  # after "&": an expression
            at = 1 if node.kids[0].type == "command_invokation_operator" else 0
            name = node.kids[at]
        if node.kids and node.kids[0].text == ".":
            raise Unsupported(f"line {node.line}: dot-sourcing")
        shape = re.fullmatch(r"\$(\w+)((?:\.\w+)+)", name.text)
        if name.type == "path_command_name" and shape:
            return self._word_or_block(self.value(parse(f"$null = {name.text}").walk_last()))
        if name.type in ("command_name", "path_command_name"):
            if "$" in name.text:
                raise Unsupported(f"line {node.line}: the command {name.text}")
            return name.text
        return self._word_or_block(self.value(name))

    @staticmethod
    def _word_or_block(found: Any) -> Any:
        if found is None or found is NOTHING or found == "":
            raise runtime(
                "BadExpression",
                "InvalidOperation",
                "The expression after '&' in a pipeline element produced an"
                " object that was not valid. It must result in a command name,"
                " a script block, or a CommandInfo object.",
            )
        return found if isinstance(found, ScriptBlock) else text(found)

    def _arguments(self, node: Node) -> tuple[list[Any], Table, bool]:
        """What a command is given: by place, by name, and whether its output is thrown away."""
        positional: list[Any] = []
        named, discard, waiting = Table(ordered=True), False, ""
        for kid in _elements(node):
            if kid.type == "command_argument_sep":
                continue
            if kid.type == "command_parameter":
                if waiting:
                    named[waiting] = True
                waiting = kid.text.strip().lstrip("-").rstrip(":")
            elif kid.type == "variable" and kid.text.startswith("@"):
                self._splat(self.variable(kid.text[1:]), positional, named)
            elif kid.type in ("redirection", "merging_redirection_operator"):
                discard = self._redirected(kid) or discard
            else:
                found = self._argument(kid)
                if waiting:
                    named[waiting], waiting = found, ""
                else:
                    positional.append(found)
        if waiting:
            named[waiting] = True
        return positional, named, discard

    def _splat(self, found: Any, positional: list[Any], named: Table) -> None:
        if isinstance(found, Table):
            for name, value in found.items():
                if name in named:
                    raise runtime(
                        "ParameterAlreadyBound",
                        "InvalidArgument",
                        f"Cannot bind parameter because parameter '{name}' is specified"
                        " more than once.",
                    )
                named[text(name)] = value
        elif found is not None:
            positional += elements(found)

    def _argument(self, node: Node) -> Any:
        if node.type in ("generic_token", "command_name", "simple_name"):
            word = node.text.strip()
            if "$" in word or "`" in word or '"' in word:
                if re.search(r'[$"]', word):
                    raise Unsupported(f"line {node.line}: the bare word {word}")
                return unescaped(word)
            return word
        found = self.value(node)
        return None if found is NOTHING else found

    def _redirected(self, node: Node) -> bool:
        words = "".join(node.text.split()).lower()
        if words in (">$null", "*>$null"):
            return True
        if words not in ("2>$null", "2>&1"):
            raise Unsupported(f"line {node.line}: the redirection {node.text}")
        return False

    def _outside(
        self, name: str, positional: list[Any], named: Table, piped: list[Any] | None, node: Node
    ) -> list[Any]:
        """A cmdlet of the shell's own or of the host, or a program."""
        cmdlet = builtins.CMDLETS.get(builtins.ALIASES.get(name.lower(), name).lower())
        found = cmdlet or self.host.cmdlet(name)
        if found is not None:
            kept, action = Table(ordered=True), self.preference()
            for key, value in named.items():
                common = _ALIASES.get(key.lower(), key.lower())
                if common == "erroraction":
                    action = text(value).lower()
                elif common not in _COMMON:
                    kept[key] = value
            if action not in _ACTIONS:
                raise Unsupported(f"-ErrorAction {action}")
            call = Call(name, positional, kept, piped, action, self)  # type: ignore[arg-type]
            return [v for v in found(call) if v is not NOTHING]
        program = self.host.program(name)
        if program is None:
            self.host.unknown(name)
            raise PSError(ErrorRecord(
                "CommandNotFoundException", "ObjectNotFound",
                f"The term '{name}' is not recognized as the name of a cmdlet, function, script"
                " file, or operable program. Check the spelling of the name, or if a path was"
                " included, verify that the path is correct and try again.",
                "System.Management.Automation.CommandNotFoundException",
            ))  # fmt: skip
        if len(named) or piped:
            raise Unsupported(f"line {node.line}: {name} with a pipe or -Name parameters")
        ended = program([text(w) for given in positional for w in elements(given)])
        self.exit_code = ended.code
        merged = [k for k in _elements(node) if "2>&1" in k.text]
        if ended.err and merged and self.preference() == "stop":
            raise PSError(ErrorRecord(
                "NativeCommandError", "NotSpecified", ended.err.strip(),
                "System.Management.Automation.RemoteException",
            ))  # fmt: skip
        if ended.err and not merged and not any("2>" in k.text for k in _elements(node)):
            self.host.write_err(ended.err)
        return (ended.out + (ended.err if merged else "")).splitlines()

    def bound(
        self, function: Function, positional: list[Any], named: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A function's parameters: by name (or a beginning of it that is clear), then by place."""
        values: dict[str, Any] = {}
        names = {p.name.lower(): p for p in function.parameters}
        rest = [*positional]
        for name, value in named.items():
            low = name.lower()
            fits = [low] if low in names else [n for n in names if n.startswith(low)]
            if low == "_":
                values["_"] = value
            elif len(fits) == 1:
                values[fits[0]] = value
            else:
                rest += [f"-{name}", value]
        for low, parameter in names.items():
            if low not in values:
                if rest:
                    values[low] = rest.pop(0)
                elif parameter.mandatory:
                    raise runtime(
                        "MissingMandatoryParameter",
                        "InvalidArgument",
                        "Cannot process command because of one or more missing"
                        f" mandatory parameters: {parameter.name}.",
                    )
                else:
                    values[low] = self.value(parameter.default) if parameter.default else None
                    if values[low] is None and parameter.type is None:
                        continue
            if parameter.type is not None:
                kind = convert.type_ref(parameter.type.text[1:-1])
                values[low] = convert.cast(values[low], kind)
        values["args"] = rest
        return values


def _elements(node: Node) -> Iterator[Node]:
    for kid in node.kids:
        if kid.field == "command_elements" or kid.type == "command_elements":
            if kid.type == "command_elements":
                yield from kid.kids
            else:
                yield kid
