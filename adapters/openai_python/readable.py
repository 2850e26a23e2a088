"""Requests that no policy could answer, made readable for the record of a call that another model answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ITEMS = frozenset({"message", "function_call", "function_call_output", "reasoning"})
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_DROPPED = ("n", "background", "conversation", "previous_response_id", "prompt")


def readable(body: Mapping[str, Any]) -> dict[str, Any]:
    """The request with a note like "[input_image]" for whatever is no text, and without foreign tools."""
    kept = {key: value for key, value in body.items() if key not in _DROPPED}
    for field in {"messages", "input"} & kept.keys():
        if field == "messages" or not isinstance(kept[field], str):
            kept[field] = [_readable_item(item) for item in _objects(kept[field])]
    kept["tools"] = [tool for tool in _objects(kept.get("tools")) if _is_function(tool)]
    if isinstance(kept.get("tool_choice"), Mapping) and not _is_function(kept["tool_choice"]):
        del kept["tool_choice"]
    return kept


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _is_function(tool: Mapping[str, Any]) -> bool:
    inside = tool.get("function", tool)
    return tool.get("type", "function") == "function" and isinstance(inside.get("name"), str)


def _readable_item(item: Mapping[str, Any]) -> Mapping[str, Any]:
    kind = item.get("type") or ("message" if "role" in item else "item_reference")
    if kind not in _ITEMS:
        return {"role": "assistant", "content": f"[{kind}]"}
    changed: dict[str, Any] = {
        field: [_readable_part(part) for part in item[field]]
        for field in ("content", "output")
        if isinstance(item.get(field), list)
    }
    if kind == "message" and item.get("role") not in _ROLES:
        changed["role"] = "user"
    return {**item, **changed}


def _readable_part(part: Any) -> Any:
    if isinstance(part, str) or isinstance(part.get("text"), str):
        return part
    return {"type": "text", "text": f"[{part.get('type')}]"}
