"""What the JSON Schema of a training request says beside its fields' own types.

Each part here repeats a rule of `service.contracts.inbound.training` in the words of JSON Schema, so that
data which the schema accepts breaks none of them; a test holds both against each other.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from typing_extensions import TypeAliasType

from service.contracts.fl import IOverridableConfig
from service.contracts.wire.fields import AppObject

#: Settings that belong into `config`.
OVERRIDABLE: Final = frozenset(IOverridableConfig.model_fields)

_SOME: Final = {"type": "integer", "minimum": 1}
MEMORY_NEEDS_GPUS: Final[dict[str, Any]] = {
    "if": {"required": ["mem_per_gpu_gib"], "properties": {"mem_per_gpu_gib": _SOME}},
    "then": {"required": ["num_gpus"], "properties": {"num_gpus": _SOME}},
}

#: Texts that differ in letter case may be one UUID: in one letter case `uniqueItems` tells them apart.
UNIQUE_UUIDS: Final[dict[str, Any]] = {
    "uniqueItems": True,
    "anyOf": [{"items": {"pattern": "^[0-9a-f-]*$"}}, {"items": {"pattern": "^[0-9A-F-]*$"}}],
}


class _NoOverridable:
    """Which names belong into `config` and not into `app_config`."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        named = [{"required": [name]} for name in sorted(OVERRIDABLE)]
        return handler(schema) | {"not": {"anyOf": named}}


#: The app's own settings without those that belong into `config`.
AppConfig = TypeAliasType("AppConfig", Annotated[AppObject, _NoOverridable()])
