"""Plain functions that use the Responses API: the policy answers, and OpenAI's own helpers understand it."""

import asyncio
import json

import httpx
import pytest
from openai import AsyncOpenAI, BadRequestError, OpenAI
from pydantic import BaseModel

import raybolt

NOWHERE = "http://127.0.0.1:9/v1"  # the discard port: a request that leaves fails at once
TOOL = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}}


class Answer(BaseModel):
    number: int


def client() -> OpenAI:
    return OpenAI(api_key="unused", base_url=NOWHERE, max_retries=0)


def async_client() -> AsyncOpenAI:
    return AsyncOpenAI(api_key="unused", base_url=NOWHERE, max_retries=0)


def texts(request):
    return [message.content for message in request.messages]


async def test_a_response_is_answered_by_the_policy(agent_run, script):
    def clerk(question):
        return client().responses.create(model="gpt-5", input=question, instructions="be kind").output_text

    ran = await agent_run(clerk, "hi", lambda request: script.say("hello"))
    assert ran.result == "hello"
    assert (texts(ran.requests[0]), ran.requests[0].role) == (["be kind", "hi"], "clerk")


async def test_an_async_client_goes_through_tools_with_the_items_it_was_given(agent_run, script):
    async def agent(question):
        items = [{"role": "user", "content": question}]
        async with async_client() as openai:
            while True:
                response = await openai.responses.create(model="gpt-5", input=items, tools=[TOOL])
                items += response.output
                calls = [item for item in response.output if item.type == "function_call"]
                if not calls:
                    return response.output_text
                for call in calls:
                    total = str(json.loads(call.arguments)["a"] + 1)
                    items.append({"type": "function_call_output", "call_id": call.call_id, "output": total})

    ran = await agent_run(agent, "go", script.tool_then("done", ("add", {"a": 1}), ("add", {"a": 2})))
    assert ran.result == "done"
    second = ran.requests[1]
    assert second.messages[1] == script.call(("add", {"a": 1}), ("add", {"a": 2})).message
    assert texts(second)[2:] == ["2", "3"]
    assert second.tools[0].name == "add"


async def test_a_conversation_goes_on_from_the_response_before(agent_run, script):
    def agent(question):
        openai = client()
        first = openai.responses.create(model="m", input=question, instructions="be kind")
        second = openai.responses.create(model="m", input="and now?", previous_response_id=first.id)
        return second.previous_response_id == first.id

    ran = await agent_run(agent, "hi", lambda request: script.say("hello"))
    assert ran.result is True
    assert texts(ran.requests[1]) == ["hi", "hello", "and now?"]


async def test_runs_at_once_remember_only_their_own_responses(agent_run, script):
    ids: list[str] = []

    async def agent(question):
        async with async_client() as openai:
            ids.append((await openai.responses.create(model="m", input=question)).id)
            await asyncio.sleep(0.01)
            other = next(each for each in ids if each != ids[0]) if question == "0" else ids[0]
            with pytest.raises(BadRequestError, match="is no stored response of this run") as raised:
                await openai.responses.create(model="m", input="x", previous_response_id=other)
        return raised.value.status_code

    wrapped = raybolt.wrap(agent)
    runs = (agent_run(wrapped, str(k), lambda request: script.say("hello")) for k in range(2))
    first, second = await asyncio.gather(*runs)
    assert [first.result, second.result] == [400, 400]


async def test_a_stream_is_put_together_by_openais_helper(agent_run, script):
    def agent(question):
        with client().responses.stream(model="m", input=question, text_format=Answer) as stream:
            kinds = [event.type for event in stream]
            return kinds, stream.get_final_response().output_parsed

    ran = await agent_run(agent, "2 + 2?", lambda request: script.say('{"number": 4}'))
    kinds, parsed = ran.result
    assert (kinds[0], kinds[-1], parsed) == ("response.created", "response.completed", Answer(number=4))
    assert ran.requests[0].response_format["json_schema"]["name"] == "Answer"


async def test_an_async_stream_and_a_parsed_response_work(agent_run, script):
    async def agent(question):
        async with async_client() as openai:
            parsed = await openai.responses.parse(model="m", input=question, text_format=Answer)
            stream = await openai.responses.create(model="m", input=question, stream=True)
            deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        return parsed.output_parsed, deltas

    ran = await agent_run(agent, "2 + 2?", lambda request: script.say('{"number": 4}'))
    assert ran.result == (Answer(number=4), ['{"number": 4}'])


async def test_the_beta_helpers_of_chat_completions_work(agent_run, script):
    def agent(question):
        messages = [{"role": "user", "content": question}]
        chat = client().beta.chat.completions
        parsed = chat.parse(model="m", messages=messages, response_format=Answer).choices[0].message.parsed
        with chat.stream(model="m", messages=messages, response_format=Answer) as stream:
            return parsed, stream.get_final_completion().choices[0].message.parsed

    ran = await agent_run(agent, "2 + 2?", lambda request: script.say('{"number": 4}'))
    assert ran.result == (Answer(number=4), Answer(number=4))


async def test_tools_that_openai_runs_are_refused_in_openais_form(agent_run, script):
    def agent(question):
        return client().responses.create(model="m", input=question, tools=[{"type": "web_search"}])

    ran = await agent_run(agent, "hi", lambda request: script.say("x"))
    assert "BadRequestError" in ran.end.error
    assert "tool of type 'web_search'" in ran.end.error
    assert ran.requests == []


async def test_a_client_with_a_transport_of_its_own_is_seen_as_well(agent_run, script):
    def leave(request):
        raise AssertionError("the request left")

    def agent(question):
        with httpx.Client(transport=httpx.MockTransport(leave)) as http:
            openai = OpenAI(api_key="unused", base_url=NOWHERE, http_client=http, max_retries=0)
            return openai.responses.create(model="m", input=question).output_text

    ran = await agent_run(agent, "hi", lambda request: script.say("hello"))
    assert ran.result == "hello"


async def test_a_block_may_be_a_role_of_its_own(agent_run, script):
    @raybolt.operation(role="critic")
    async def review(draft):
        async with async_client() as openai:
            return (await openai.responses.create(model="m", input=draft)).output_text

    async def agent(question):
        with raybolt.operation("write", role="writer"):
            async with async_client() as openai:
                draft = (await openai.responses.create(model="m", input=question)).output_text
        return await review(draft)

    ran = await agent_run(agent, "hi", lambda request: script.say(f"from {request.role}"))
    assert ran.result == "from critic"
    assert [(request.role, texts(request)) for request in ran.requests] == [
        ("writer", ["hi"]),
        ("critic", ["from writer"]),
    ]
    assert ran.parent_name(ran.span("chat critic")) == "review"
