"""The runner's syntax tree, by a grammar that is not ours, and what it names."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def script() -> bytes:
    """The runner as it is shipped."""
    return files("drivers.hyperv").joinpath("runner.ps1").read_bytes()


def tree(text: bytes) -> Any:
    import tree_sitter_powershell
    from tree_sitter import Language, Parser

    return Parser(Language(tree_sitter_powershell.language())).parse(text).root_node


def nodes(root: Any, *kinds: str) -> Iterator[Any]:
    """All nodes of these types, or all."""
    if not kinds or root.type in kinds:
        yield root
    for child in root.children:
        yield from nodes(child, *kinds)


def faults(text: bytes) -> list[str]:
    """What the grammar does not know, each with its line."""
    return [
        f"line {n.start_point[0] + 1}: {(n.text or b'').decode()[:60]}"
        for n in nodes(tree(text))
        if n.type == "ERROR" or n.is_missing
    ]


def texts(root: Any, *kinds: str) -> set[str]:
    return {(n.text or b"").decode() for n in nodes(root, *kinds)}


def allowed(root: Any) -> list[str]:
    """The cmdlets that the runner calls for anybody: its list's, in their order."""
    for node in nodes(root, "assignment_expression"):
        text = (node.text or b"").decode()
        if text.startswith("$cmdlets ="):
            found = [n.text.decode() for n in nodes(node, "verbatim_string_characters")]
            return [name.strip("'") for name in found]
    raise AssertionError("the runner has no list of cmdlets")
