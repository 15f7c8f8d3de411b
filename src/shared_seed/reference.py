"""The keys of a recipe as Markdown, from the schema that checks them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from shared_seed.facts import FACTS, Facts
from shared_seed.recipe import Recipe


def markdown() -> str:
    """A heading and a table for each section: key, what it may be, default, meaning."""
    schema = Recipe.model_json_schema()
    sections = schema["$defs"]
    lines = ["# Keys of a recipe", "", "As `shared-seed recipes --keys` prints them.", ""]
    lines += _section("recipe", schema, sections)
    for name, section in sorted(sections.items()):
        if "properties" in section:
            lines += _section(_title(name, schema), section, sections)
    lines += _section(FACTS, Facts.model_json_schema(), sections)
    return "\n".join(lines)


def _title(name: str, schema: dict[str, Any]) -> str:
    """The key under which a section stands in a recipe, and its class where several may."""
    for key, value in schema["properties"].items():
        if name in json.dumps(value):
            several = json.dumps(value).count('"$ref"') > 1
            return f"{key}: {name.removesuffix('Task').lower()}" if several else key
    return name


def _section(title: str, section: dict[str, Any], sections: dict[str, Any]) -> Iterator[str]:
    yield from (f"## `{title}`", "")
    summary = section.get("description", "").split("\n\n")[0].replace("\n", " ")
    if summary:
        yield from (summary, "")
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    required = section.get("required", [])
    for key, value in section["properties"].items():
        default = "required" if key in required else _default(value)
        meaning = value.get("description") or _described(value, sections) or "what kind of section this is"
        cells = (f"`{key}`", _kind(value, sections), default, meaning)
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
    yield ""


def _default(value: dict[str, Any]) -> str:
    default = value.get("default")
    if default is None:
        return ""
    return "see there" if isinstance(default, dict) and default else f"`{json.dumps(default)}`"


def _described(value: dict[str, Any], sections: dict[str, Any]) -> str:
    """A section's own first sentence, where a key has none."""
    for part in (value, *value.get("anyOf", []), *value.get("oneOf", [])):
        if "$ref" in part:
            text: str = sections[part["$ref"].rsplit("/", 1)[1]].get("description", "")
            return text.split("\n\n")[0]
    return ""


_LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def _kind(value: dict[str, Any], sections: dict[str, Any]) -> str:
    """What a key may be, in words."""
    if "$ref" in value:
        return _kind(sections[value["$ref"].rsplit("/", 1)[1]], sections)
    alternatives = value.get("anyOf") or value.get("oneOf")
    if alternatives:
        return " or ".join(dict.fromkeys(_kind(part, sections) for part in alternatives))
    if "enum" in value:
        return ", ".join(f"`{each}`" for each in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    if "properties" in value:
        return "section"
    words = {"string": "text", "boolean": "yes or no", "object": "mapping", "null": "null", "array": "list"}
    said = words.get(value.get("type", ""), value.get("type", "anything"))
    limits = [f"{sign} {value[name]:g}" for name, sign in _LIMITS.items() if name in value]
    return " ".join([said, *limits])
