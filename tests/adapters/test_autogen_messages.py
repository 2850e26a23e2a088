"""AutoGen's messages and results, to and from the canonical ones."""

import pytest
from autogen_core import FunctionCall, Image
from autogen_core.models import (
    AssistantMessage,
    CreateResult,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    RequestUsage,
    SystemMessage,
    UserMessage,
)
from autogen_core.tools import FunctionTool
from PIL import Image as Picture

from raybolt.adapters.autogen.messages import (
    chat_request,
    messages_from_autogen,
    reply_from_autogen,
    result_to_autogen,
)
from raybolt.env.chat import ChatMessage, Completion, ToolCall
from raybolt.store.errors import InvalidValue

CALL = FunctionCall(id="c1", name="look", arguments='{"at": "sky"}')


def look(at: str) -> str:
    """Looks."""
    return at


def test_every_kind_of_message_has_its_canonical_form():
    results = [
        FunctionExecutionResult(content="blue", name="look", call_id="c1", is_error=False),
        FunctionExecutionResult(content="no", name="look", call_id="c2", is_error=True),
    ]
    messages = [
        SystemMessage(content="Be brief."),
        UserMessage(content=["Look", " up."], source="ann"),
        AssistantMessage(content=[CALL], thought="I look.", source="writer"),
        FunctionExecutionResultMessage(content=results),
        AssistantMessage(content="Blue.", source="writer"),
    ]
    assert messages_from_autogen(messages) == (
        ChatMessage("system", "Be brief."),
        ChatMessage("user", "Look up.", name="ann"),
        ChatMessage("assistant", "I look.", (ToolCall("c1", "look", '{"at": "sky"}'),)),
        ChatMessage("tool", "blue", tool_call_id="c1", name="look"),
        ChatMessage("tool", "no", tool_call_id="c2", name="look"),
        ChatMessage("assistant", "Blue."),
    )


def test_an_image_is_refused_by_name():
    message = UserMessage(content=["Look:", Image(Picture.new("RGB", (1, 1)))], source="ann")
    with pytest.raises(InvalidValue, match="a part of type 'Image'; only text parts are supported"):
        messages_from_autogen([message])


@pytest.mark.parametrize(
    ("choice", "expected"), [("auto", "auto"), ("required", "required"), ("none", "none"), ("tool", "look")]
)
def test_tools_and_the_choice_among_them_are_asked_for(choice, expected):
    tool = FunctionTool(look, description="Looks.")
    options = {"tools": [tool, tool.schema], "tool_choice": tool if choice == "tool" else choice}
    request = chat_request([], options, "writer")
    assert [spec.name for spec in request.tools] == ["look", "look"]
    assert request.tools[0].parameters["properties"]["at"]["type"] == "string"
    assert request.tool_choice == expected


def test_a_reply_and_a_result_say_the_same_both_ways():
    message = ChatMessage("assistant", "I look.", (ToolCall("c1", "look", '{"at": "sky"}'),))
    result = result_to_autogen(Completion(message, "tool_calls"))
    assert (result.content, result.thought, result.finish_reason) == ([CALL], "I look.", "function_calls")
    assert reply_from_autogen(result) == (message, "tool_calls")


def test_a_reply_cut_off_by_its_length_says_so():
    result = result_to_autogen(Completion(ChatMessage("assistant", "and then"), "length"))
    assert (result.content, result.finish_reason) == ("and then", "length")
    filtered = CreateResult(
        finish_reason="content_filter",
        content="",
        usage=RequestUsage(prompt_tokens=0, completion_tokens=0),
        cached=False,
    )
    assert reply_from_autogen(filtered) == (ChatMessage("assistant", ""), "stop")
