"""The real clients of every framework, unmodified, over real HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest
from http_support import serve
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from raybolt.adapters.check.scripted import call, say, tools_then
from raybolt.store import names

MESSAGES: Any = [{"role": "user", "content": "hi"}]
ADD: Any = {
    "name": "add",
    "description": "Add one.",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
}


class Answer(BaseModel):
    number: int


def add(a: int) -> int:
    """Add one."""
    return a + 1


def client_of(told: dict[str, Any], kind: type = OpenAI, **options: Any) -> Any:
    return kind(base_url=told["base_url"], api_key=told["api_key"], **options)


async def test_openai_completes_a_chat():
    def agent(told):
        with client_of(told) as client:
            return client.chat.completions.create(model="gpt-5", messages=MESSAGES, temperature=0.5)

    ran = await serve(agent, lambda request: say("hello"))
    assert ran.result.choices[0].message.content == "hello"
    assert ran.result.choices[0].finish_reason == "stop"
    assert ran.result.model == "gpt-5"
    assert ran.requests[0].messages[0].content == "hi"
    assert ran.requests[0].temperature == 0.5
    span = ran.span("chat agent")
    assert span.attributes[names.OUTPUT_MESSAGES] == [{"role": "assistant", "content": "hello"}]
    assert ran.parent_name(span) == "invoke_agent agent"


async def test_openai_streams_tools_and_usage():
    async def agent(told):
        async with client_of(told, AsyncOpenAI) as client:
            stream = await client.chat.completions.create(
                model="gpt-5", messages=MESSAGES, tools=[{"type": "function", "function": ADD}],
                stream=True, stream_options={"include_usage": True},
            )  # fmt: skip
            return [chunk async for chunk in stream]

    ran = await serve(agent, lambda request: call(("add", {"a": 1}), content="let me see"))
    first, second, usage = ran.result
    assert first.choices[0].delta.content == "let me see"
    assert first.choices[0].delta.tool_calls[0].function.arguments == '{"a": 1}'
    assert second.choices[0].finish_reason == "tool_calls"
    assert usage.usage.total_tokens == 0
    assert ran.requests[0].tools[0].name == "add"


async def test_openai_parses_a_json_schema():
    def agent(told):
        with client_of(told) as client:
            reply = client.chat.completions.parse(model="gpt-5", messages=MESSAGES, response_format=Answer)
            return reply.choices[0].message.parsed

    ran = await serve(agent, lambda request: say('{"number": 4}'))
    assert ran.result == Answer(number=4)
    assert ran.requests[0].response_format["json_schema"]["name"] == "Answer"


async def test_openai_responses_call_tools_and_go_on_from_an_earlier_one():
    def agent(told):
        with client_of(told) as client:
            tools = [{"type": "function", **ADD}]
            first = client.responses.create(model="gpt-5", input="hi", tools=tools, instructions="Be quick.")
            (asked,) = [item for item in first.output if item.type == "function_call"]
            result = add(**json.loads(asked.arguments))
            output = {"type": "function_call_output", "call_id": asked.call_id, "output": str(result)}
            return client.responses.create(
                model="gpt-5", input=[output], previous_response_id=first.id
            ).output_text

    ran = await serve(agent, tools_then("2 it is", ("add", {"a": 1})))
    assert ran.result == "2 it is"
    assert [message.role for message in ran.requests[0].messages] == ["system", "user"]
    assert [message.role for message in ran.requests[1].messages] == ["user", "assistant", "tool"]


async def test_openai_streams_a_response():
    def agent(told):
        with (
            client_of(told) as client,
            client.responses.stream(model="gpt-5", input="hi", text_format=Answer) as stream,
        ):
            kinds = [event.type for event in stream]
            return kinds, stream.get_final_response().output_parsed

    kinds, parsed = (await serve(agent, lambda request: say('{"number": 4}'))).result
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert "response.output_text.delta" in kinds
    assert parsed == Answer(number=4)


async def test_openai_lists_the_model():
    def agent(told):
        with client_of(told) as client:
            client.chat.completions.create(model="gpt-5", messages=MESSAGES)
            return [model.id for model in client.models.list()], client.models.retrieve("gpt-5").id

    assert (await serve(agent, lambda request: say("x"))).result == (["raybolt"], "gpt-5")


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_langchain_calls_tools(api):
    from langchain.agents import create_agent
    from langchain_openai import ChatOpenAI

    async def agent(told):
        llm = ChatOpenAI(
            model="gpt-5", base_url=told["base_url"], api_key=told["api_key"],
            use_responses_api=api == "responses",
        )  # fmt: skip
        try:
            state = await create_agent(llm, [add]).ainvoke({"messages": MESSAGES})
        finally:
            await llm.root_async_client.close()
        return state["messages"][-1].text

    ran = await serve(agent, tools_then("2 it is", ("add", {"a": 1})))
    assert ran.result == "2 it is"
    assert ran.requests[1].messages[-1].content == "2"


async def test_langchain_streams_and_takes_a_schema():
    from langchain_openai import ChatOpenAI

    def agent(told):
        llm = ChatOpenAI(model="gpt-5", base_url=told["base_url"], api_key=told["api_key"])
        text = "".join(chunk.text for chunk in llm.stream("hi"))
        return text, llm.with_structured_output(Answer).invoke("hi")

    ran = await serve(agent, lambda request: say('{"number": 4}'))
    assert ran.result == ('{"number": 4}', Answer(number=4))


async def test_autogen_calls_tools():
    from autogen_agentchat.agents import AssistantAgent
    from autogen_core.models import ModelFamily
    from autogen_ext.models.openai import OpenAIChatCompletionClient

    async def agent(told):
        info: Any = {
            "vision": False, "function_calling": True, "json_output": True, "structured_output": True,
            "family": ModelFamily.UNKNOWN,
        }  # fmt: skip
        client = OpenAIChatCompletionClient(
            model="policy", model_info=info, base_url=told["base_url"], api_key=told["api_key"]
        )
        writer = AssistantAgent("writer", client, tools=[add], reflect_on_tool_use=True)
        try:
            return (await writer.run(task="hi")).messages[-1].content
        finally:
            await client.close()

    ran = await serve(agent, tools_then("2 it is", ("add", {"a": 1})))
    assert ran.result == "2 it is"
    assert ran.requests[1].messages[-1].content == "2"


# CrewAI's lazy modules warn as they are imported.
@pytest.mark.filterwarnings("ignore:Cannot set an attribute on 'crewai:ImportWarning")
@pytest.mark.parametrize("api", ["completions", "responses"])
async def test_crewai_calls(api):
    from crewai import LLM

    def agent(told):
        llm = LLM(
            model="policy", provider="openai", base_url=told["base_url"], api_key=told["api_key"], api=api
        )
        return llm.call("hi")

    ran = await serve(agent, lambda request: say("hello"))
    assert ran.result == "hello"
    assert ran.requests[0].messages[-1].content == "hi"


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_openai_agents_call_tools(api):
    import agents

    async def agent(told):
        client = client_of(told, AsyncOpenAI)
        kind = agents.OpenAIResponsesModel if api == "responses" else agents.OpenAIChatCompletionsModel
        writer = agents.Agent(
            "writer", model=kind("policy", openai_client=client), tools=[agents.function_tool(add)]
        )
        try:
            result = await agents.Runner.run(writer, "hi", run_config=agents.RunConfig(tracing_disabled=True))
        finally:
            await client.close()
        return result.final_output

    ran = await serve(agent, tools_then("2 it is", ("add", {"a": 1})))
    assert ran.result == "2 it is"
    assert ran.requests[1].messages[-1].content == "2"


@pytest.mark.parametrize("streams", [False, True])
async def test_agentscope_replies(streams):
    from agentscope.credential import OpenAICredential
    from agentscope.message import UserMsg
    from agentscope.model import OpenAIChatModel

    async def agent(told):
        credential = OpenAICredential(api_key=told["api_key"], base_url=told["base_url"])
        model = OpenAIChatModel(credential, "policy", stream=streams)
        async with model.client:
            answer = await model([UserMsg("user", "hi")])
            parts = [part async for part in answer] if streams else [answer]
        return [block.text for block in parts[-1].content]

    ran = await serve(agent, lambda request: say("hello"))
    assert ran.result == ["hello"]
    assert ran.requests[0].messages[-1].content == "hi"
