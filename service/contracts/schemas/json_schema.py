"""How a pydantic model becomes a JSON Schema of ours.

Promise: a schema says of an object's names and values what the decoder holds: names that break their
pattern are not left over for nobody. Titles that are derived from names are left out.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

#: The dialect of the schemas, for their `$schema`.
DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"


class SchemaGenerator(GenerateJsonSchema):
    """Pydantic's generator, naming the draft that it writes and closing maps to unlawful names."""

    schema_dialect = DRAFT

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """Pydantic's own lets a name that breaks its pattern have any value."""
        made = super().dict_schema(schema)
        by_pattern: dict[str, Any] = made.pop("patternProperties", {})
        for pattern, values in by_pattern.items():
            made["propertyNames"] = made.get("propertyNames", {}) | {"pattern": pattern}
            made["additionalProperties"] = values
        return made


def without_titles(node: Any, inside_names: bool = False) -> Any:
    """A schema without the titles that are derived from names: noise for a reader."""
    if isinstance(node, list):
        return [without_titles(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    return {
        key: without_titles(value, key in ("properties", "$defs") and not inside_names)
        for key, value in node.items()
        if inside_names or key != "title"
    }
