"""How PowerShell fails: error records, and what ends a script."""

from __future__ import annotations

from dataclasses import dataclass, field


class Unsupported(Exception):
    """The script, or what it calls, is outside of what is known here. Never caught by a script."""


@dataclass(frozen=True)
class ErrorRecord:
    """``id`` is FullyQualifiedErrorId, ``category`` that of CategoryInfo; ``type`` a .NET name."""

    id: str
    category: str
    message: str
    type: str = "System.Management.Automation.RuntimeException"
    target: object = field(default=None, compare=False)


class PSError(Exception):
    """A terminating error; ``catch`` sees its record. ``always``: whatever the preference is."""

    def __init__(self, record: ErrorRecord) -> None:
        super().__init__(record.message)
        self.record = record


class Flow(Exception):
    """What leaves blocks: ``break``, ``continue``, ``return``, ``exit``."""

    def __init__(self, kind: str, code: int = 0) -> None:
        super().__init__(kind)
        self.kind = kind
        self.code = code


def thrown(message: str) -> PSError:
    """What ``throw 'text'`` raises."""
    return PSError(ErrorRecord(message, "OperationStopped", message))


def runtime(id: str, category: str, message: str) -> PSError:
    return PSError(ErrorRecord(id, category, message))


def method_failed(method: str, count: int, kind: str, message: str) -> PSError:
    """What a .NET method raised, as PowerShell tells it; ``kind`` is the exception's type."""
    text = f'Exception calling "{method}" with "{count}" argument(s): "{message}"'
    short = kind.rpartition(".")[2]
    return PSError(ErrorRecord(
        short, "NotSpecified", text, "System.Management.Automation.MethodInvocationException",
        target=kind,
    ))  # fmt: skip


def cannot_convert(value: str, to: str, why: str = "") -> PSError:
    text = f'Cannot convert value "{value}" to type "{to}".' + (f' Error: "{why}"' if why else "")
    return PSError(ErrorRecord(
        "InvalidCastFromStringToInteger" if "Int" in to else "ConvertToFinalInvalidCastException",
        "InvalidArgument", text, "System.Management.Automation.PSInvalidCastException",
    ))  # fmt: skip
