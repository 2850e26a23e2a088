"""The Responses API as data: bodies in, response objects and event streams out, read by the real client."""

import json

import httpx
import numpy as np
import pytest
from openai import OpenAI
from openai.types.responses import Response

from raybolt.adapters.openai_python.memory import ResponseMemory
from raybolt.adapters.openai_python.responses import (
    chat_request_from_responses,
    completion_to_response,
    completion_to_response_events,
)
from raybolt.adapters.openai_python.wire import completion_to_body, completion_to_events
from raybolt.env.chat import ChatMessage, Completion, ToolCall
from raybolt.store.errors import InvalidValue

ADD = ToolCall("call-0_0", "add", '{"a": 1}')
SUB = ToolCall("call-0_1", "sub", '{"a": 2}')
BOTH = Completion(
    ChatMessage("assistant", "let me see", (ADD, SUB)),
    "tool_calls",
    prompt_ids=np.arange(5, dtype=np.int32),
    response_ids=np.arange(2, dtype=np.int32),
    logprobs=np.array([-0.5, -0.25], dtype=np.float32),
)
NAMES = {"model": "m", "response_id": "resp_7"}


def asked(**body):
    return chat_request_from_responses({"model": "m", **body}, role="writer")


def test_a_text_and_instructions_become_user_and_system_messages():
    request = asked(input="hi", instructions="be kind", max_output_tokens=9, temperature=0.5)
    assert request.messages == (ChatMessage("system", "be kind"), ChatMessage("user", "hi"))
    assert (request.max_tokens, request.temperature, request.role) == (9, 0.5, "writer")


def test_a_reply_sent_back_is_the_message_that_the_policy_gave():
    response = completion_to_response(BOTH, **NAMES)
    results = [
        {"type": "function_call_output", "call_id": "call-0_0", "output": "2"},
        {
            "type": "function_call_output",
            "call_id": "call-0_1",
            "output": [{"type": "input_text", "text": "1"}],
        },
    ]
    request = asked(input=[{"role": "user", "content": "go"}, *response["output"], *results])
    assert request.messages == (
        ChatMessage("user", "go"),
        BOTH.message,
        ChatMessage("tool", "2", tool_call_id="call-0_0"),
        ChatMessage("tool", "1", tool_call_id="call-0_1"),
    )


def test_calls_without_text_come_back_without_text():
    reply = Completion(ChatMessage("assistant", None, (ADD,)), "tool_calls")
    response = completion_to_response(reply, **NAMES)
    assert [item["type"] for item in response["output"]] == ["function_call"]
    assert asked(input=response["output"]).messages == (reply.message,)


def test_reasoning_is_left_out_and_developers_count_as_system():
    items = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "be kind"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"role": "user", "content": "hi"},
    ]
    assert asked(input=items).messages == (ChatMessage("system", "be kind"), ChatMessage("user", "hi"))


def test_functions_and_formats_are_written_as_chat_completions_write_them():
    tool = {"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": True}
    wanted = {"type": "json_schema", "name": "Answer", "schema": {"type": "object"}, "strict": True}
    choice = {"type": "function", "name": "add"}
    request = asked(input="hi", tools=[tool], tool_choice=choice, text={"format": wanted})
    assert (request.tools[0].name, request.tool_choice) == ("add", "add")
    assert request.response_format == {
        "type": "json_schema",
        "json_schema": {"name": "Answer", "schema": {"type": "object"}, "strict": True},
    }
    assert asked(input="hi", text={"format": {"type": "text"}}).response_format is None


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({"tools": [{"type": "web_search"}]}, "tool of type 'web_search'"),
        ({"tools": [{"type": "custom", "name": "x"}]}, "tool of type 'custom'"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice="),
        ({"previous_response_id": "resp_1"}, "previous_response_id='resp_1' is no stored response"),
        ({"conversation": "conv_1"}, "conversation='conv_1'"),
        ({"prompt": {"id": "p"}}, "send its text as `instructions`"),
        ({"background": True}, "background=True"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "refers to item 'msg_1'"),
        ({"input": [{"type": "computer_call", "id": "x"}]}, "type 'computer_call'"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input_image",
        ),
        ({"input": [{"role": "king", "content": "x"}]}, "message role is 'king'"),
    ],
)
def test_what_no_policy_can_honour_is_named(body, complaint):
    with pytest.raises(InvalidValue, match=complaint):
        asked(**{"input": "hi", **body})


def test_a_response_is_one_that_openais_own_types_accept():
    response = Response.model_validate(
        completion_to_response(BOTH, **NAMES, body={"instructions": "be kind"})
    )
    assert response.output_text == "let me see"
    assert [item.type for item in response.output] == ["message", "function_call", "function_call"]
    assert response.usage.total_tokens == 7
    assert (response.status, response.instructions) == ("completed", "be kind")


def test_an_answer_cut_off_is_incomplete():
    cut = Completion(ChatMessage("assistant", "SELECT"), "length")
    response = Response.model_validate(completion_to_response(cut, **NAMES))
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert b"event: response.incomplete\n" in b"".join(completion_to_response_events(cut, **NAMES))


def test_events_are_in_the_order_that_clients_expect():
    events = [json.loads(event.split(b"data: ")[1]) for event in completion_to_response_events(BOTH, **NAMES)]
    call = [
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
    ]
    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        *call,
        *call,
        "response.completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(17))


def test_openais_stream_helper_puts_the_events_together():
    def serve(request):
        return httpx.Response(200, content=b"".join(completion_to_response_events(BOTH, **NAMES)))

    with httpx.Client(transport=httpx.MockTransport(serve)) as http:
        client = OpenAI(api_key="x", base_url="http://here/v1", http_client=http)
        with client.responses.stream(model="m", input="hi") as stream:
            texts = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
            final = stream.get_final_response()
    assert texts == ["let me see"]
    assert [call.arguments for call in final.output[1:]] == ['{"a": 1}', '{"a": 2}']


def test_token_texts_give_log_probabilities_in_both_apis():
    texts = ["let", " me"]
    expected = [("let", -0.5), (" me", -0.25)]
    response = completion_to_response(BOTH, **NAMES, token_texts=texts)
    found = response["output"][0]["content"][0]["logprobs"]
    assert [(each["token"], each["logprob"]) for each in found] == expected
    names = {"model": "m", "completion_id": "c"}
    body = completion_to_body(BOTH, **names, token_texts=texts)
    found = body["choices"][0]["logprobs"]["content"]
    assert [(each["token"], each["logprob"]) for each in found] == expected
    assert found[1]["bytes"] == [32, 109, 101]
    chunk = next(completion_to_events(BOTH, **names, include_usage=False, token_texts=texts))
    assert json.loads(chunk[6:])["choices"][0]["logprobs"]["content"] == found
    assert completion_to_body(BOTH, **names)["choices"][0]["logprobs"] is None


def stored(memory, body, text, response_id):
    expanded = memory.expanded(body)
    reply = Completion(ChatMessage("assistant", text))
    response = completion_to_response(reply, model="m", response_id=response_id, body=body)
    memory.remember(expanded, response)
    return response


def test_an_earlier_response_is_continued_without_its_instructions():
    memory = ResponseMemory()
    stored(memory, {"input": "one", "instructions": "be kind"}, "first", "resp_1")
    stored(memory, {"input": "two", "previous_response_id": "resp_1"}, "second", "resp_2")
    request = asked(**memory.expanded({"input": "three", "previous_response_id": "resp_2"}))
    assert [message.content for message in request.messages] == ["one", "first", "two", "second", "three"]


def test_items_of_earlier_responses_may_be_referred_to():
    memory = ResponseMemory()
    item = stored(memory, {"input": "one"}, "first", "resp_1")["output"][0]
    references = [{"type": "item_reference", "id": item["id"]}, {"id": item["id"]}]
    request = asked(**memory.expanded({"input": references}))
    assert [message.content for message in request.messages] == ["first", "first"]


def test_a_response_that_was_not_to_be_stored_is_unknown():
    memory = ResponseMemory()
    stored(memory, {"input": "one", "store": False}, "first", "resp_1")
    with pytest.raises(InvalidValue, match="'resp_1' is no stored response of this run"):
        memory.expanded({"input": "two", "previous_response_id": "resp_1"})
