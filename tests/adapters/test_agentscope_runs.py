"""AgentScope agents as people write them, stepped by a scripted policy."""

import asyncio
import time

import pytest
from agentscope.agent import Agent, InjectionConfig, ModelConfig
from agentscope.credential import OpenAICredential
from agentscope.event import TextBlockDeltaEvent
from agentscope.formatter import OpenAIMultiAgentFormatter
from agentscope.message import Msg, UserMsg
from agentscope.middleware import MiddlewareBase
from agentscope.model import ChatModelBase, OpenAIChatModel
from agentscope.permission import PermissionBehavior, PermissionContext, PermissionMode, PermissionRule
from agentscope.pipeline import GoalPipeline
from agentscope.state import AgentState
from agentscope.tool import FunctionTool, Toolkit
from pydantic import BaseModel

from raybolt.adapters.patching import active_patches
from raybolt.env.chat import ChatMessage, Completion
from raybolt.env.limits import RunLimits


class Answer(BaseModel):
    """The answer."""

    number: int


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


async def slow_add(a: int, b: int) -> int:
    """Adds two numbers in a while."""
    await asyncio.sleep(0.01)
    return a + b


def fail(a: int) -> int:
    """Fails."""
    raise ValueError(f"no {a}")


def permitted() -> AgentState:
    return AgentState(permission_context=PermissionContext(mode=PermissionMode.BYPASS))


def agent_of(llm: ChatModelBase, name: str = "writer", tools=(), **options) -> Agent:
    options.setdefault("state", permitted())
    return Agent(
        name=name,
        system_prompt=f"You are the {name}.",
        model=llm,
        toolkit=Toolkit(tools=[FunctionTool(tool) for tool in tools]),
        injection_config=InjectionConfig(inject_runtime_state=False),
        **options,
    )


def own_model(**options) -> OpenAIChatModel:
    """A model that nobody answers."""
    credential = OpenAICredential(api_key="unused", base_url="http://127.0.0.1:9/v1")
    return OpenAIChatModel(credential, "gpt-5-mini", max_retries=0, **options)


def adder(llm: ChatModelBase) -> Agent:
    return agent_of(llm, "adder", [add, slow_add, fail])


def user(text: str) -> Msg:
    return UserMsg(name="user", content=text)


async def test_a_factorys_agent_runs_tools_and_its_last_message_is_the_result(agent_run, script):
    ran = await agent_run(adder, "1 + 2?", script.tool_then("three", ("add", {"a": 1, "b": 2})))
    assert isinstance(ran.result, Msg)
    assert ran.result.get_text_content() == "three"
    first, second = ran.requests
    assert first.messages == (ChatMessage("system", "You are the adder."), ChatMessage("user", "1 + 2?"))
    assert [spec.name for spec in first.tools] == ["add", "slow_add", "fail"]
    assert [message.role for message in second.messages] == ["system", "user", "assistant", "tool"]
    assert second.messages[-1].content == "3"
    assert {request.role for request in ran.requests} == {"adder"}


@pytest.mark.parametrize(
    "calls", [[("add", 1)], [("slow_add", 1)], [("add", 1), ("slow_add", 2), ("add", 3)]]
)
async def test_sync_async_and_parallel_tools_all_answer(agent_run, script, calls):
    asked = [(name, {"a": a, "b": 10}) for name, a in calls]
    ran = await agent_run(adder, "go", script.tool_then("done", *asked))
    results = [message.content for message in ran.requests[1].messages if message.role == "tool"]
    assert sorted(results) == [str(a + 10) for _, a in calls]  # in the order in which the tools ended


async def test_calls_of_later_turns_run_though_the_policy_names_them_alike(agent_run, script):
    def policy(request):
        turns = sum(message.role == "tool" for message in request.messages)
        return script.call(("add", {"a": turns, "b": 1})) if turns < 3 else script.say("done")

    ran = await agent_run(adder, "go", policy)
    assert [m.content for m in ran.requests[-1].messages if m.role == "tool"] == ["1", "2", "3"]
    ids = [m.tool_call_id for m in ran.requests[-1].messages if m.role == "tool"]
    assert len(set(ids)) == 3


async def test_an_error_in_a_tool_is_shown_to_the_policy(agent_run, script):
    ran = await agent_run(adder, "go", script.tool_then("sorry", ("fail", {"a": 7})))
    assert ran.requests[1].messages[-1].content == "no 7"
    assert ran.result.get_text_content() == "sorry"


@pytest.mark.parametrize(
    ("call", "told"),
    [(("nothing", {}), "doesn't exist"), (("add", {"a": 1}), "'b' is a required property")],
)
async def test_calls_that_cannot_run_are_answered_by_the_framework(agent_run, script, call, told):
    ran = await agent_run(adder, "go", script.tool_then("oh", call))
    assert told in ran.requests[1].messages[-1].content
    span = ran.span(f"execute_tool {call[0]}")
    assert span.status == "error"
    assert told in span.status_message


async def test_a_reply_that_cannot_be_read_is_its_raw_text(agent_run):
    def policy(request):
        return Completion(ChatMessage("assistant", "<tool_call>{oops"), parse_error="no JSON object")

    ran = await agent_run(adder, "go", policy)
    assert ran.result.get_text_content() == "<tool_call>{oops"


async def test_a_tool_without_permission_is_not_run_and_its_span_says_why(agent_run, script):
    """The agent then waits for its user, whom no run has: its message says so."""

    def build(llm):
        return agent_of(llm, tools=[add], state=AgentState())

    ran = await agent_run(build, "go", script.tool_then("done", ("add", {"a": 1, "b": 2})))
    assert "waiting for your permission" in ran.result.get_text_content()
    assert "give its AgentState a permission rule or mode" in ran.span("execute_tool add").status_message
    assert len(ran.requests) == 1


async def test_a_rule_permits_one_tool_and_dont_ask_denies_the_others(agent_run, script):
    rule = PermissionRule(
        tool_name="add", rule_content=None, behavior=PermissionBehavior.ALLOW, source="author"
    )
    context = PermissionContext(mode=PermissionMode.DONT_ASK, allow_rules={"add": [rule]})

    def build(llm):
        return agent_of(llm, tools=[add, fail], state=AgentState(permission_context=context))

    ran = await agent_run(
        build, "go", script.tool_then("done", ("add", {"a": 1, "b": 2}), ("fail", {"a": 1}))
    )
    results = [message.content for message in ran.requests[1].messages if message.role == "tool"]
    assert results[0] == "3"
    assert "denied" in results[1].lower() or "permission" in results[1].lower()
    assert ran.span("execute_tool add").status == "ok"
    assert ran.span("execute_tool fail").status == "error"


async def test_structured_output_comes_from_a_call_of_the_frameworks_tool(agent_run, script):
    def build(llm):
        writer = agent_of(llm)

        async def ask(question: str) -> Answer:
            reply = await writer.reply(user(question), structured_schema=Answer)
            return Answer(**reply.structured_output)

        return ask

    answers = iter([script.say("four"), script.call(("GenerateStructuredOutput", {"number": 4}))])
    ran = await agent_run(build, "2 + 2?", lambda request: next(answers))
    assert ran.result == Answer(number=4)
    assert [spec.name for spec in ran.requests[0].tools] == ["GenerateStructuredOutput"]
    assert "required to generate structured output" in ran.requests[1].messages[-1].content


async def test_structured_output_of_a_bare_model_comes_too(agent_run, script):
    model = own_model(stream=True)

    async def ask(question: str) -> dict:
        return (await model.generate_structured_output([user(question)], Answer)).content

    ran = await agent_run(ask, "2 + 2?", lambda _: script.call(("generate_structured_output", {"number": 4})))
    assert ran.result == {"number": 4}
    assert ran.requests[0].tool_choice == "generate_structured_output"


@pytest.mark.parametrize("stream", [False, True])
async def test_consumers_of_an_agents_stream_see_the_reply(agent_run, script, stream):
    writer = agent_of(own_model(stream=stream))

    async def ask(question: str) -> str:
        events = writer.reply_stream(user(question))
        return "".join([event.delta async for event in events if isinstance(event, TextBlockDeltaEvent)])

    ran = await agent_run(ask, "hi", lambda request: script.say("hello there"))
    assert ran.result == "hello there"


async def test_consumers_of_a_models_stream_see_a_chunk_and_then_the_whole(agent_run, script):
    def build(llm):
        llm.stream = True

        async def ask(question: str) -> list[tuple[bool, str]]:
            return [(chunk.is_last, chunk.content[0].text) async for chunk in await llm([user(question)])]

        return ask

    ran = await agent_run(build, "hi", lambda request: script.say("hello"))
    assert ran.result == [(False, "hello"), (True, "hello")]


async def test_a_conversation_of_two_agents_has_two_roles(agent_run, script):
    def build(llm):
        writer, critic = agent_of(llm, "writer"), agent_of(llm, "critic")

        async def converse(topic: str) -> str:
            message = user(topic)
            for _ in range(2):
                message = await writer.reply(message)
                await critic.observe(user("be kind"))
                message = await critic.reply(message)
            return message.get_text_content()

        return converse

    counts: dict[str, int] = {}

    def policy(request):
        counts[request.role] = counts.get(request.role, 0) + 1
        return script.say(f"{request.role} {counts[request.role]}")

    ran = await agent_run(build, "rain", policy)
    assert ran.result == "critic 2"
    assert [request.role for request in ran.requests] == ["writer", "critic", "writer", "critic"]
    assert [(m.role, m.content, m.name) for m in ran.requests[3].messages[1:]] == [
        ("user", "be kind", None),
        ("assistant", "writer 1", "writer"),
        ("assistant", "critic 1", None),
        ("user", "be kind", None),
        ("assistant", "writer 2", "writer"),
    ]


async def test_a_formatter_for_several_agents_lays_out_what_the_policy_reads(agent_run, script):
    critic = agent_of(own_model(formatter=OpenAIMultiAgentFormatter()), "critic")

    async def ask(question: str) -> str:
        await critic.observe(Msg(name="writer", role="assistant", content=[{"type": "text", "text": "A."}]))
        return (await critic.reply(user(question))).get_text_content()

    ran = await agent_run(ask, "Well?", lambda request: script.say("good"))
    assert "<history>\nwriter: A.\nuser: Well?\n</history>" in ran.requests[0].messages[-1].content


async def test_a_goal_pipeline_runs_its_agents_until_the_verifier_passes(agent_run, script):
    model = own_model()
    pipeline = GoalPipeline(agent_of(model, "executor"), agent_of(model, "verifier"))
    verdicts = iter(["fail", "pass"])

    def policy(request):
        if request.role == "executor":
            return script.call(("GenerateStructuredOutput", {"report": "did it"}))
        return script.call(("GenerateStructuredOutput", {"result": next(verdicts), "message": "m"}))

    ran = await agent_run(pipeline, "do it", policy)
    assert [request.role for request in ran.requests] == ["executor", "verifier"] * 2
    reports = [event.structured_output for event in ran.result if isinstance(event, Msg)]
    assert reports == [{"report": "did it"}, {"report": "did it"}]
    assert pipeline._goal is None


async def test_a_fallback_model_is_answered_too_and_no_retry_sees_an_abort(agent_run, script):
    writer = agent_of(
        own_model(), model_config=ModelConfig(fallback_model=own_model(), max_retries=3), tools=[add]
    )
    policy = script.tool_then("never", ("add", {"a": 1, "b": 1}))
    ran = await agent_run(writer, "hi", policy, limits=RunLimits(max_calls=1))
    assert ran.end.origin == "limit"
    assert len(ran.requests) == 1


async def test_a_model_made_while_the_agent_runs_is_answered(agent_run, script):
    async def ask(question: str) -> str:
        return (await agent_of(own_model()).reply(user(question))).get_text_content()

    ran = await agent_run(ask, "hi", lambda request: script.say("policy"))
    assert ran.result == "policy"
    assert ran.requests[0].role == "writer"


async def test_several_calls_of_one_role_wait_at_once(agent_run, script):
    def build(llm):
        async def ask(question: str) -> list[str]:
            writers = [agent_of(llm) for _ in range(3)]
            return [
                m.get_text_content()
                for m in await asyncio.gather(*(w.reply(user(question)) for w in writers))
            ]

        return ask

    ran = await agent_run(build, "hi", lambda request: script.say("x"), delay_s=0.05)
    assert ran.result == ["x", "x", "x"]


async def test_an_abort_inside_a_tools_agent_ends_the_run_though_tools_are_gathered(agent_run, script):
    class Counting(MiddlewareBase):
        calls = 0

        async def on_model_call(self, agent, input_kwargs, next_handler):
            self.calls += 1
            return await next_handler(**input_kwargs)

    counting = Counting()

    def build(llm):
        async def ask_helper(question: str) -> str:
            """Asks the helper."""
            return (await agent_of(llm, "helper").reply(user(question))).get_text_content()

        return agent_of(llm, tools=[ask_helper], middlewares=[counting])

    ran = await agent_run(
        build,
        "go",
        script.tool_then("never", *[("ask_helper", {"question": "why?"})] * 2),
        limits=RunLimits(max_calls=1),
    )
    assert ran.end.origin == "limit"
    assert len(ran.requests) == 1
    assert counting.calls == 1  # the agent took the tools for done, and would have gone on


async def test_a_time_limit_ends_an_agent_that_swallows_its_cancellation(agent_run, script):
    async def wait() -> str:
        """Waits."""
        await asyncio.sleep(30)
        return "never"

    def build(llm):
        writer, critic = agent_of(llm, "writer", [wait]), agent_of(llm, "critic")

        async def converse(question: str) -> Msg:
            return await critic.reply(await writer.reply(user(question)))

        return converse

    started = time.monotonic()
    ran = await agent_run(
        build, "go", lambda request: script.call(("wait", {})), limits=RunLimits(max_seconds=0.3)
    )
    assert ran.end.error == "the agent took more than 0.3 seconds"
    assert time.monotonic() - started < 3
    assert active_patches() == []
