"""CrewAI's crews and agents, as people write them, stepped by a scripted policy."""

import asyncio
from typing import Any

import pytest
from crewai import Agent, BaseLLM, Crew, LLMGuardrail
from crewai.tools import BaseTool, tool
from kits.crewai_kit import ask, member, model_at
from pydantic import BaseModel

import raybolt
from raybolt.adapters.check import NOWHERE
from raybolt.env.chat import ChatMessage, Completion
from raybolt.store.errors import InvalidValue


def pair(llm: BaseLLM) -> Crew:
    writer, critic = member("writer of {topic}", llm), member("critic", llm)
    return Crew(agents=[writer, critic], tasks=[ask(writer, "Write on {topic}."), ask(critic, "Judge it.")])


class Answer(BaseModel):
    """The answer."""

    number: int


async def test_a_crew_gets_its_placeholder_filled_and_roles_stay_as_they_are_written(agent_run, script):
    replies = iter(["rain falls", "too short"])
    ran = await agent_run(pair, "rain", lambda request: script.say(next(replies)))
    assert ran.result.raw == "too short"
    assert [output.raw for output in ran.result.tasks_output] == ["rain falls", "too short"]
    assert [request.role for request in ran.requests] == ["writer of {topic}", "critic"]
    system, user = ran.requests[0].messages
    assert system.role == "system"
    assert "You are writer of rain." in system.content
    assert "Write on rain." in user.content
    assert "rain falls" in ran.requests[1].messages[1].content


async def test_an_agent_by_itself_is_the_run_and_takes_a_text_or_messages(agent_run, script):
    built = member("writer", model_at(NOWHERE))
    ran = await agent_run(built, "Hello?", lambda request: script.say("hi"))
    assert ran.result.raw == "hi"
    assert [(span.name, ran.parent_name(span)) for span in ran.spans] == [
        ("invoke_agent writer", None),
        ("chat writer", "invoke_agent writer"),
    ]
    messages = [("user", "One?"), ("assistant", "Two."), ("user", "Three?")]
    given = [{"role": role, "content": content} for role, content in messages]
    ran = await agent_run(built, given, lambda request: script.say("Four."))
    assert [message.role for message in ran.requests[0].messages] == ["system", "user", "assistant", "user"]


async def test_spans_of_a_crew_nest_as_its_work_does(agent_run, script):
    ran = await agent_run(pair, "rain", lambda request: script.say("x"), name="pair")
    assert [(span.name, ran.parent_name(span)) for span in ran.spans] == [
        ("invoke_agent pair", None),
        ("task", "invoke_agent pair"),
        ("agent writer of {topic}", "task"),
        ("chat writer of {topic}", "agent writer of {topic}"),
        ("task", "invoke_agent pair"),
        ("agent critic", "task"),
        ("chat critic", "agent critic"),
    ]


# Tools


@tool("Run SQL")
def run_sql(query: str) -> str:
    """Runs a query."""
    raybolt.emit("noticed", query=query)
    return f"rows of {query}"


@tool
async def look_up(word: str) -> str:
    """Looks a word up."""
    await asyncio.sleep(0.01)
    raybolt.emit("noticed", query=word)
    return f"meaning of {word}"


class Scale(BaseTool):
    name: str = "scale"
    description: str = "Weighs a thing."

    def _run(self, thing: str) -> str:
        if thing == "air":
            raise ValueError("air weighs nothing")
        return f"{thing} is heavy"


def with_tools(llm: BaseLLM) -> Agent:
    return member("writer", llm, tools=[run_sql, look_up, Scale()])


async def test_tools_of_each_kind_run_and_are_recorded(agent_run, script):
    calls = [("run_sql", {"query": "q"}), ("look_up", {"word": "w"}), ("scale", {"thing": "lead"})]
    ran = await agent_run(with_tools, "go", script.tool_then("done", *calls))
    assert ran.result.raw == "done"
    assert [spec.name for spec in ran.requests[0].tools] == ["run_sql", "look_up", "scale"]
    results = [(m.tool_call_id, m.content) for m in ran.requests[1].messages if m.role == "tool"]
    assert results == [("call_0", "rows of q"), ("call_1", "meaning of w"), ("call_2", "lead is heavy")]
    span = ran.span("execute_tool look_up")
    assert span.attributes["gen_ai.tool.call.id"] == "call_1"
    assert span.attributes["gen_ai.tool.call.arguments"] == {"word": "w"}
    assert span.attributes["gen_ai.tool.call.result"] == "meaning of w"
    assert span.attributes["gen_ai.agent.name"] == "writer"
    noticed = [span for span in ran.spans if span.name == "noticed"]
    parents = {span.attributes["query"]: ran.parent_name(span) for span in noticed}
    assert parents == {"q": "execute_tool run_sql", "w": "execute_tool look_up"}


async def test_a_tool_that_raises_is_a_failed_span_and_the_agent_sees_the_error(agent_run, script):
    ran = await agent_run(with_tools, "go", script.tool_then("sorry", ("scale", {"thing": "air"})))
    span = ran.span("execute_tool scale")
    assert (span.status, span.status_message) == ("error", "ValueError: air weighs nothing")
    assert span.attributes["raybolt.error.type"] == "ValueError"
    assert ran.requests[1].messages[-1].content == "Error executing tool: air weighs nothing"
    assert ran.result.raw == "sorry"


async def test_a_call_of_no_known_tool_is_a_failed_span(agent_run, script):
    ran = await agent_run(with_tools, "go", script.tool_then("sorry", ("dance", {})))
    span = ran.span("execute_tool dance")
    assert (span.status, span.attributes["raybolt.error.type"]) == ("error", "unknown_tool")


async def test_an_unreadable_tool_call_is_the_agents_answer(agent_run):
    def policy(request):
        return Completion(ChatMessage("assistant", "<tool_call>{oops"), parse_error="no JSON object")

    ran = await agent_run(with_tools, "go", policy)
    assert ran.result.raw == "<tool_call>{oops"


async def test_an_empty_reply_is_crewais_own_error_after_three_tries(agent_run, script):
    def build(llm: BaseLLM) -> Crew:
        writer = member("writer", llm)
        return Crew(agents=[writer], tasks=[ask(writer)])

    ran = await agent_run(build, "go", lambda request: script.say(""))
    assert ran.end.error == "ValueError: Invalid response from LLM call - None or empty."
    assert len(ran.requests) == 3


class TextProtocolLLM(BaseLLM):
    """A model without tool calls: CrewAI then describes the tools in its prompt."""

    def call(self, *args: Any, **kwargs: Any) -> str:
        raise AssertionError("the policy answers")


async def test_a_model_without_tool_calls_keeps_crewais_text_protocol(agent_run, script):
    def policy(request):
        if len(request.messages) > 2:
            return script.say("Thought: I know\nFinal Answer: lead it is")
        return script.say('Thought: weigh\nAction: scale\nAction Input: {"thing": "lead"}')

    built = member("writer", TextProtocolLLM(model="old"), tools=[Scale()])
    ran = await agent_run(built, "go", policy)
    assert ran.result.raw == "lead it is"
    assert ran.requests[0].tools == ()
    assert ran.requests[0].stop == ("\nObservation:",)
    span = ran.span("execute_tool scale")
    assert span.attributes["gen_ai.tool.call.arguments"] == {"thing": "lead"}
    assert "lead is heavy" in span.attributes["gen_ai.tool.call.result"]


async def test_a_tool_that_is_tried_again_in_the_text_protocol_is_one_failed_span(agent_run, script):
    def policy(request):
        if len(request.messages) > 2:
            return script.say("Thought: no\nFinal Answer: nothing")
        return script.say('Thought: weigh\nAction: scale\nAction Input: {"thing": "air"}')

    built = member("writer", TextProtocolLLM(model="old"), tools=[Scale()])
    ran = await agent_run(built, "go", policy)
    assert ran.result.raw == "nothing"
    assert ran.span("execute_tool scale").status_message == "ValueError: air weighs nothing"


# Structured output, guardrails


def counting(llm: BaseLLM) -> Crew:
    writer = member("writer", llm)
    return Crew(agents=[writer], tasks=[ask(writer, "Count {things}.", output_pydantic=Answer)])


async def test_structured_output_is_an_instance(agent_run, script):
    ran = await agent_run(counting, "sheep", lambda request: script.say('{"number": 4}'))
    assert ran.result.pydantic == Answer(number=4)
    assert ran.requests[0].response_format["json_schema"]["name"] == "Answer"


async def test_an_agents_response_format_works(agent_run, script):
    def build(llm: BaseLLM):
        def solve(question: str) -> Answer:
            return member("writer", llm).kickoff(question, response_format=Answer).pydantic

        return solve

    ran = await agent_run(build, "2 + 2?", lambda request: script.say('{"number": 4}'))
    assert ran.result == Answer(number=4)
    assert ran.requests[0].role == "writer"


async def test_a_reply_that_does_not_fit_is_converted_by_calls_of_the_same_role(agent_run, script):
    replies = iter(["four", '{"number": 4}'])
    ran = await agent_run(counting, "sheep", lambda request: script.say(next(replies)))
    assert ran.result.pydantic == Answer(number=4)
    assert [request.role for request in ran.requests] == ["writer", "writer"]


async def test_a_guardrail_that_asks_an_llm_is_part_of_the_run(agent_run, script):
    def build(llm: BaseLLM) -> Crew:
        writer = member("writer", llm)
        guard = LLMGuardrail(description="Is it short?", llm=llm)
        return Crew(agents=[writer], tasks=[ask(writer, "Write on {topic}.", guardrail=guard)])

    def policy(request):
        if "writer" in request.role:
            return script.say("rain")
        return script.say('{"valid": true, "feedback": null}')

    ran = await agent_run(build, "rain", policy)
    assert ran.result.raw == "rain"
    assert [request.role for request in ran.requests] == ["writer", "Guardrail Agent"]


async def test_a_function_may_hand_functions_to_the_model_and_gets_their_result(agent_run, script):
    def build(llm: BaseLLM):
        async def solve(question: str) -> str:
            schema = {"type": "function", "function": {"name": "double", "parameters": {}}}
            functions = {"double": lambda number: str(2 * number)}
            return await llm.acall(question, tools=[schema], available_functions=functions)

        return solve

    ran = await agent_run(build, "2?", script.tool_then("no", ("double", {"number": 2})))
    assert ran.result == "4"
    assert ran.span("execute_tool double").attributes["gen_ai.tool.call.result"] == "4"


# What goes in


@pytest.mark.parametrize(
    ("build", "given", "message"),
    [
        (pair, ["rain"], "the crew's placeholders are topic, but the task's input is list"),
        (
            lambda llm: Crew(agents=[member("w", llm)], tasks=[ask(member("w", llm), "Write {a} {b}.")]),
            "rain",
            "the crew's placeholders are a, b, but the task's input is a text",
        ),
        (
            lambda llm: Crew(agents=[member("w", llm)], tasks=[ask(member("w", llm), 'Write {"a": 1}.')]),
            "rain",
            r"the crew has no placeholder, so the task's input \(a text\) would reach none of its agents",
        ),
        (with_tools, {"a": 1}, "an agent by itself takes a text or a list of messages"),
    ],
)
async def test_an_input_without_a_place_is_an_error_that_says_so(agent_run, build, given, message):
    ran = await agent_run(build, given, None, framework="crewai")
    assert ran.end.origin == "agent"
    with pytest.raises(InvalidValue, match=message):
        raise ran.end.exception


async def test_inputs_of_ones_own_replace_the_convention(agent_run, script):
    def inputs(task):
        return {"topic": task.input["words"][0]}

    ran = await agent_run(pair, {"words": ["rain"]}, lambda request: script.say("x"), inputs=inputs)
    assert "Write on rain." in ran.requests[0].messages[1].content
