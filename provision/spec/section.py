"""What every mapping of a spec has in common."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema


class Section(BaseModel):
    """A mapping of the spec; left empty, it has its defaults.

    ``short`` is the field that a bare word in the section's place stands for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True)
    short: ClassVar[str] = ""

    @model_validator(mode="before")
    @classmethod
    def _in_full(cls, value: Any) -> Any:
        if value is None:
            return {}
        return {cls.short: value} if cls.short and isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        full = handler.resolve_ref_schema(handler(core))
        if cls.short:
            short, inside = full["properties"][cls.short], dict(full)
            full.clear()
            full["anyOf"] = [dict(short), inside]
        return full
