"""What a run's earlier responses said, for `previous_response_id` and item references."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from raybolt.adapters.openai_python.responses import input_items, unknown_response


class ResponseMemory:
    """The stored responses of one run. Not for several runs: one would see what another said."""

    def __init__(self) -> None:
        self._conversations: dict[str, list[Mapping[str, Any]]] = {}  # response id -> all items up to its end
        self._items: dict[str, Mapping[str, Any]] = {}

    def expanded(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The request with everything it refers to written out; instructions are not carried over.

        Item references to unknown items stay; reading the request then says so.

        Raises:
            InvalidValue: `previous_response_id` names no response that was remembered.
        """
        previous = body.get("previous_response_id")
        if previous and previous not in self._conversations:
            raise unknown_response(previous)
        earlier = self._conversations[previous] if previous else []
        items = [*earlier, *(self._resolved(item) for item in input_items(body))]
        return {**body, "input": items, "previous_response_id": None}

    def remember(self, body: Mapping[str, Any], response: Mapping[str, Any]) -> None:
        """Keeps a response and the expanded request that it answers, unless that asks `store=False`."""
        if body.get("store") is False:
            return
        self._conversations[response["id"]] = [*input_items(body), *response["output"]]
        for item in response["output"]:
            if item.get("id"):
                self._items[item["id"]] = item

    def _resolved(self, item: Mapping[str, Any]) -> Mapping[str, Any]:
        # A reference need not say what it is: an id alone does.
        if item.get("type", "item_reference") != "item_reference" or "role" in item:
            return item
        return self._items.get(item.get("id", ""), {"type": "item_reference", **item})


run_memory: ContextVar[ResponseMemory] = ContextVar("raybolt_response_memory")
"""The responses of the captured run that the present code belongs to."""
