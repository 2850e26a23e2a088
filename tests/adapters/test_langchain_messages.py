"""LangChain's messages and tools, to and from the canonical ones."""

import pytest
from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool

from raybolt.adapters.langchain.messages import (
    message_to_langchain,
    messages_from_langchain,
    tools_from_langchain,
)
from raybolt.env.chat import ChatMessage as Canonical
from raybolt.env.chat import Completion, ToolCall, ToolSpec
from raybolt.store.errors import InvalidValue


def test_each_kind_of_message_becomes_its_canonical_role():
    messages = [
        SystemMessage("be brief"),
        HumanMessage("hi", name="ann"),
        AIMessage("", tool_calls=[{"name": "add", "args": {"a": 1}, "id": "c1"}]),
        ToolMessage("2", tool_call_id="c1", name="add"),
        ChatMessage(role="developer", content="now stop"),
    ]
    assert messages_from_langchain(messages) == (
        Canonical("system", "be brief"),
        Canonical("user", "hi", name="ann"),
        Canonical("assistant", None, (ToolCall("c1", "add", '{"a": 1}'),)),
        Canonical("tool", "2", tool_call_id="c1", name="add"),
        Canonical("system", "now stop"),
    )


def test_text_blocks_are_joined_and_blocks_that_repeat_tool_calls_are_left_out():
    message = AIMessage(
        [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}, {"type": "tool_use", "id": "c"}],
        tool_calls=[{"name": "add", "args": {}, "id": "c"}],
    )
    assert messages_from_langchain([message])[0].content == "one two"


def test_an_image_is_refused_by_name():
    message = HumanMessage([{"type": "image_url", "image_url": {"url": "x"}}])
    with pytest.raises(InvalidValue, match="block of type 'image_url'"):
        messages_from_langchain([message])


def test_an_unknown_role_is_refused_with_the_known_ones():
    with pytest.raises(InvalidValue, match=r"role 'narrator'.*assistant"):
        messages_from_langchain([ChatMessage(role="narrator", content="once")])


@pytest.mark.parametrize(
    "reply",
    [
        Canonical("assistant", "four"),
        Canonical("assistant", "", ()),
        Canonical("assistant", None, (ToolCall("c1", "add", '{"a": 1, "b": "ü"}'),)),
        Canonical("assistant", "let me see", (ToolCall("c1", "f", "{}"), ToolCall("c2", "f", "{}"))),
    ],
)
def test_a_reply_comes_back_as_it_was_given(reply):
    message = message_to_langchain(Completion(reply))
    message.name = "writer"  # as create_agent does
    assert messages_from_langchain([message]) == (reply,)


def test_an_unreadable_reply_keeps_its_text_and_is_listed_as_an_invalid_tool_call():
    raw = '<tool_call>{"name": "add", </tool_call>'
    reply = Canonical("assistant", raw)
    message = message_to_langchain(Completion(reply, parse_error="no JSON object"), position=3)
    assert message.content == raw
    assert message.tool_calls == []
    assert message.invalid_tool_calls == [
        {
            "type": "invalid_tool_call",
            "id": "invalid_call_3",
            "name": None,
            "args": raw,
            "error": "no JSON object",
        }
    ]
    assert messages_from_langchain([message]) == (reply,)


def test_arguments_that_are_no_object_make_an_invalid_tool_call_that_comes_back_whole():
    reply = Canonical("assistant", None, (ToolCall("c1", "add", "[1, 2]"),))
    message = message_to_langchain(Completion(reply))
    assert message.invalid_tool_calls[0]["name"] == "add"
    assert messages_from_langchain([message]) == (reply,)


def test_tools_come_from_langchain_tools_and_from_the_dicts_of_providers():
    @tool
    def add(a: int) -> int:
        """Adds."""
        return a

    anthropic = {"name": "add", "description": "Adds.", "input_schema": {"type": "object", "properties": {}}}
    assert tools_from_langchain([add])[0].parameters["properties"] == {"a": {"type": "integer"}}
    assert tools_from_langchain([anthropic]) == (
        ToolSpec("add", "Adds.", {"type": "object", "properties": {}}),
    )


def test_a_tool_that_runs_at_the_provider_is_refused():
    with pytest.raises(InvalidValue, match="own servers"):
        tools_from_langchain([{"type": "web_search"}])
