import pytest

from raybolt.env.chat import (
    ChatMessage,
    ToolCall,
    ToolSpec,
    message_from_dict,
    message_to_dict,
    tool_from_dict,
    tool_to_dict,
)
from raybolt.store.errors import InvalidValue


def test_a_message_survives_the_way_through_its_dictionary():
    message = ChatMessage("assistant", "ok", (ToolCall("c1", "run_sql", '{"query": "SELECT 1"}'),))
    assert message_from_dict(message_to_dict(message)) == message


def test_text_parts_are_joined_and_a_developer_is_a_system():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert message_from_dict({"role": "developer", "content": parts}) == ChatMessage("system", "ab")


def test_arguments_given_as_an_object_become_json_text():
    call = {"id": "c1", "function": {"name": "f", "arguments": {"x": 1}}}
    message = message_from_dict({"role": "assistant", "content": None, "tool_calls": [call]})
    assert message.tool_calls == (ToolCall("c1", "f", '{"x": 1}'),)


def test_an_image_is_refused_by_name():
    with pytest.raises(InvalidValue, match="part of type 'image_url'; only text parts are supported"):
        message_from_dict({"role": "user", "content": [{"type": "image_url"}]})


def test_an_unknown_role_is_refused_with_the_known_ones():
    with pytest.raises(InvalidValue, match="'robot'; expected one of system, user, assistant, tool"):
        message_from_dict({"role": "robot", "content": ""})


def test_a_tool_survives_the_way_through_its_dictionary():
    tool = ToolSpec("f", "does f", {"type": "object", "properties": {"x": {"type": "integer"}}})
    assert tool_from_dict(tool_to_dict(tool)) == tool


def test_a_tool_without_a_name_is_refused():
    with pytest.raises(InvalidValue, match="tool has no name"):
        tool_from_dict({"type": "web_search"})
