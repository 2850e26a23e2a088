"""Agents of the OpenAI Agents SDK as environments: every way to run them, answered by the policy."""

import asyncio
import threading

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrailTripwireTriggered,
    Runner,
    RunResult,
    SQLiteSession,
    function_tool,
    input_guardrail,
    output_guardrail,
)
from pydantic import BaseModel

import raybolt
from raybolt.adapters.patching import active_patches
from raybolt.env.limits import RunLimits


class Answer(BaseModel):
    number: int


@function_tool
def add(a: int) -> int:
    """Adds one."""
    return a + 1


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    """No model of OpenAI's can even be made."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def texts(request):
    return [message.content for message in request.messages]


async def test_a_built_agent_without_a_key_answers_by_the_policy(agent_run, script):
    writer = Agent("writer", instructions="be brief", model="gpt-5", tools=[add])
    ran = await agent_run(writer, "go", script.tool_then("done", ("add", {"a": 1})))
    assert isinstance(ran.result, RunResult)
    assert ran.result.final_output == "done"
    first, second = ran.requests
    assert (first.role, texts(first), first.tools[0].name) == ("writer", ["be brief", "go"], "add")
    assert second.messages[2] == script.call(("add", {"a": 1})).message
    assert texts(second)[3] == "2"


async def test_a_factory_is_given_a_model_and_may_return_an_agent_or_a_function(agent_run, script):
    def build(llm):
        return Agent("writer", model=llm)

    def build_function(llm):
        async def ask(question):
            return (await Runner.run(Agent("writer", model=llm), question)).final_output

        return ask

    ran = await agent_run(build, "go", lambda request: script.say("hello"))
    assert (ran.result.final_output, ran.requests[0].role) == ("hello", "writer")
    ran = await agent_run(build_function, "go", lambda request: script.say("hello"))
    assert (ran.result, ran.requests[0].role) == ("hello", "writer")


async def test_a_handed_over_conversation_keeps_its_roles(agent_run, script):
    critic = Agent("critic", instructions="judge")
    writer = Agent("writer", handoffs=[critic])

    def policy(request):
        if request.role == "writer":
            return script.call(("transfer_to_critic", {}))
        return script.say("fine")

    ran = await agent_run(writer, "go", policy)
    assert ran.result.final_output == "fine"
    assert ran.result.last_agent is critic
    assert [request.role for request in ran.requests] == ["writer", "critic"]
    assert texts(ran.requests[1])[:2] == ["judge", "go"]


async def test_an_agent_may_be_a_tool_of_another(agent_run, script):
    critic = Agent("critic", instructions="judge")
    writer = Agent("writer", tools=[critic.as_tool("ask_critic", "Asks the critic.")])

    def policy(request):
        if request.role == "critic":
            return script.say("too long")
        return script.tool_then("short", ("ask_critic", {"input": "my draft"}))(request)

    ran = await agent_run(writer, "go", policy)
    assert ran.result.final_output == "short"
    assert [request.role for request in ran.requests] == ["writer", "critic", "writer"]
    assert texts(ran.requests[1]) == ["judge", "my draft"]
    assert texts(ran.requests[2])[-1] == "too long"
    assert ran.parent_name(ran.span("agent critic")) == "execute_tool ask_critic"


async def test_guardrails_make_calls_of_their_own(agent_run, script):
    judge = Agent("judge", output_type=Answer)

    @input_guardrail
    async def fit(context, agent, given):
        verdict = (await Runner.run(judge, given)).final_output
        return GuardrailFunctionOutput(verdict, tripwire_triggered=verdict.number == 0)

    @output_guardrail
    async def kind(context, agent, reply):
        verdict = (await Runner.run(judge, reply)).final_output
        return GuardrailFunctionOutput(verdict, tripwire_triggered=False)

    writer = Agent("writer", input_guardrails=[fit], output_guardrails=[kind])

    def policy(request):
        return script.say('{"number": 1}' if request.role == "judge" else "hello")

    ran = await agent_run(writer, "go", policy)
    assert ran.result.final_output == "hello"
    assert sorted(request.role for request in ran.requests) == ["judge", "judge", "writer"]
    assert ran.requests[0].response_format is not None or ran.requests[1].response_format is not None
    assert ran.span("guardrail kind").attributes["triggered"] is False

    ran = await agent_run(writer, "go", lambda request: script.say('{"number": 0}'))
    assert isinstance(ran.end.exception, InputGuardrailTripwireTriggered)
    assert ran.end.origin == "agent"


async def test_a_session_remembers_within_its_run_alone(agent_run, script):
    writer = Agent("writer")

    async def talk(question):
        session = SQLiteSession("one", ":memory:")
        try:
            await Runner.run(writer, question, session=session)
            return (await Runner.run(writer, "and?", session=session)).final_output
        finally:
            session.close()

    wrapped = raybolt.wrap(talk)

    def policy(request):
        return script.say(f"{len(request.messages)}: {request.messages[0].content}")

    runs = await asyncio.gather(*(agent_run(wrapped, f"q{k}", policy, delay_s=0.005) for k in range(8)))
    assert [ran.result for ran in runs] == [f"3: q{k}" for k in range(8)]


async def test_a_server_side_conversation_is_remembered_by_the_run(agent_run, script):
    writer = Agent("writer", tools=[add])

    async def talk(question):
        result = await Runner.run(writer, question, auto_previous_response_id=True)
        again = await Runner.run(writer, "and?", previous_response_id=result.last_response_id)
        return again.final_output

    def build(llm):
        model = llm

        async def ask(question):
            agent = Agent("writer", model=model)
            result = await Runner.run(agent, question)
            again = await Runner.run(agent, "and?", previous_response_id=result.last_response_id)
            return again.final_output

        return ask

    ran = await agent_run(talk, "go", script.tool_then("done", ("add", {"a": 1})))
    assert ran.result == "done"
    assert texts(ran.requests[2]) == ["go", None, "2", "done", "and?"]
    ran = await agent_run(build, "go", lambda request: script.say("done"))
    assert texts(ran.requests[1]) == ["go", "done", "and?"]


async def test_structured_output_is_an_object_or_the_frameworks_error(agent_run, script):
    writer = Agent("writer", output_type=Answer)
    ran = await agent_run(writer, "2 + 2?", lambda request: script.say('{"number": 4}'))
    assert ran.result.final_output == Answer(number=4)
    assert ran.requests[0].response_format["json_schema"]["name"] == "final_output"
    ran = await agent_run(writer, "2 + 2?", lambda request: script.say("four"))
    assert (ran.end.error_type, ran.end.origin) == ("ModelBehaviorError", "agent")


async def test_tools_run_side_by_side_in_threads_and_tasks(agent_run, script):
    gate = threading.Barrier(2, timeout=10)

    @function_tool
    def left(a: int) -> str:
        """Left."""
        gate.wait()
        raybolt.emit("in left")
        return "L"

    @function_tool
    async def right(a: int) -> str:
        """Right."""
        await asyncio.to_thread(gate.wait)
        raybolt.emit("in right")
        return "R"

    writer = Agent("writer", tools=[left, right])
    ran = await agent_run(writer, "go", script.tool_then("done", ("left", {"a": 1}), ("right", {"a": 2})))
    assert texts(ran.requests[1])[-2:] == ["L", "R"]
    assert ran.parent_name(ran.span("in left")) == "execute_tool left"
    assert ran.parent_name(ran.span("in right")) == "execute_tool right"


async def test_a_failing_tool_is_shown_to_the_policy_or_fails_the_run(agent_run, script):
    def divide(a: int) -> int:
        """Divides."""
        raise ValueError("by zero")

    shown, raised = function_tool(divide), function_tool(divide, failure_error_function=None)
    policy = script.tool_then("sorry", ("divide", {"a": 1}))
    ran = await agent_run(Agent("writer", tools=[shown]), "go", policy)
    assert ran.result.final_output == "sorry"
    assert "by zero" in texts(ran.requests[1])[-1]
    span = ran.span("execute_tool divide")
    assert (span.status, span.status_message) == ("error", "by zero")

    ran = await agent_run(Agent("writer", tools=[raised]), "go", policy)
    assert ran.end.error == "UserError: Error running tool divide: by zero"
    assert ran.span("execute_tool divide").events[0].attributes["exception.type"] == "UserError"


async def test_events_of_a_streamed_run_reach_their_consumer(agent_run, script):
    writer = Agent("writer", tools=[add])

    async def watch(question):
        run = Runner.run_streamed(writer, question)
        kinds, deltas = [], []
        async for event in run.stream_events():
            kinds.append(getattr(event, "name", event.type))
            if event.type == "raw_response_event" and event.data.type.endswith("text.delta"):
                deltas.append(event.data.delta)
        return kinds, deltas, run.final_output

    ran = await agent_run(watch, "go", script.tool_then("done", ("add", {"a": 1})))
    kinds, deltas, final = ran.result
    assert (deltas, final) == (["done"], "done")
    assert [kind for kind in kinds if kind != "raw_response_event"] == [
        "agent_updated_stream_event",
        "tool_called",
        "tool_output",
        "message_output_created",
    ]


async def test_a_reply_cut_off_does_not_end_a_streamed_run(agent_run, script):
    from raybolt.env.chat import ChatMessage, Completion

    async def watch(question):
        run = Runner.run_streamed(Agent("writer"), question)
        async for _ in run.stream_events():
            pass
        return run.final_output

    cut = Completion(ChatMessage("assistant", "SELEC"), "length")
    assert (await agent_run(watch, "go", lambda request: cut)).result == "SELEC"


async def test_too_many_turns_are_the_agents_error(agent_run, script):
    async def loop(question):
        return await Runner.run(Agent("writer", tools=[add]), question, max_turns=2)

    calls = iter(range(100))

    def policy(request):
        from dataclasses import replace

        reply = script.call(("add", {"a": 1}))
        call = replace(reply.message.tool_calls[0], id=f"call_{next(calls)}")
        return replace(reply, message=replace(reply.message, tool_calls=(call,)))

    ran = await agent_run(loop, "go", policy)
    assert (ran.end.error_type, ran.end.origin, len(ran.requests)) == ("MaxTurnsExceeded", "agent", 2)


async def test_run_sync_works_in_plain_functions_and_closes_its_loop(agent_run, script):
    loops = []

    def agent(question):
        first = Runner.run_sync(Agent("writer"), question).final_output
        return Runner.run_sync(Agent("critic"), first).final_output

    def policy(request):
        return script.say(f"{request.role}: {request.messages[-1].content}")

    new_event_loop = asyncio.new_event_loop

    def noting():
        loops.append(new_event_loop())
        return loops[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "new_event_loop", noting)
        ran = await agent_run(agent, "go", policy)
    assert ran.result == "critic: writer: go"
    assert len(loops) == 1
    assert loops[0].is_closed()


async def test_run_sync_in_async_code_is_the_sdks_error(agent_run, script):
    async def agent(question):
        return Runner.run_sync(Agent("writer"), question)

    ran = await agent_run(agent, "go", lambda request: script.say("x"))
    assert "cannot be called when an event loop is already running" in ran.end.error


@pytest.mark.parametrize("kind", ["built", "factory", "sync", "streamed"])
async def test_thirty_two_runs_at_once_never_see_one_another(agent_run, script, kind):
    writer = Agent("writer", tools=[add], handoffs=[Agent("critic")])

    def sync(question):
        return Runner.run_sync(writer, question)

    async def streamed(question):
        run = Runner.run_streamed(writer, question)
        async for _ in run.stream_events():
            await asyncio.sleep(0)
        return run

    def factory(llm):
        return Agent("writer", model=llm, tools=[add], handoffs=[Agent("critic", model=llm)])

    agents = {"built": writer, "factory": factory, "sync": sync, "streamed": streamed}
    wrapped = raybolt.wrap(agents[kind])

    def policy(request):
        results = [message for message in request.messages if message.role == "tool"]
        if request.role == "critic":
            return script.say(f"answer {request.messages[0].content} {results[0].content}")
        if results:
            from raybolt.env.chat import ChatMessage, Completion, ToolCall

            call = ToolCall("call_over", "transfer_to_critic", "{}")
            return Completion(ChatMessage("assistant", None, (call,)), "tool_calls")
        return script.call(("add", {"a": int(request.messages[0].content)}))

    runs = await asyncio.gather(*(agent_run(wrapped, str(k), policy, delay_s=0.005) for k in range(32)))
    assert [ran.result.final_output for ran in runs] == [f"answer {k} {k + 1}" for k in range(32)]
    assert {len(ran.requests) for ran in runs} == {3}
    assert active_patches() == []


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_call_limit_ends_agents_within_agents_and_leaves_nothing(agent_run, script, streamed):
    critic = Agent("critic")
    writer = Agent("writer", tools=[critic.as_tool("ask", "Asks.")])

    async def agent(question):
        if not streamed:
            return await Runner.run(writer, question)
        run = Runner.run_streamed(writer, question)
        async for _ in run.stream_events():
            pass
        return run.final_output

    before = asyncio.all_tasks()
    limits = RunLimits(max_calls=1, max_seconds=10)
    policy = script.tool_then("x", ("ask", {"input": "y"}), ("ask", {"input": "z"}))
    ran = await agent_run(agent, "go", policy, limits=limits)
    assert (ran.end.origin, len(ran.requests)) == ("limit", 1)
    await asyncio.sleep(0.05)
    assert asyncio.all_tasks() == before
    assert active_patches() == []
