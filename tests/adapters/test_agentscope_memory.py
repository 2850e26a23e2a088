"""Runs that share agent objects: none sees another's conversation, tools or spans."""

import asyncio
import functools

import pytest
from agentscope.agent import Agent, InjectionConfig
from agentscope.credential import OpenAICredential
from agentscope.message import Msg, UserMsg
from agentscope.model import OpenAIChatModel
from agentscope.permission import PermissionContext, PermissionMode
from agentscope.state import AgentState
from agentscope.tool import FunctionTool, Toolkit
from pydantic import BaseModel

import raybolt
from raybolt.adapters.patching import active_patches


def note(text: str) -> str:
    """Notes a text."""
    raybolt.emit("noted", text=text)
    return f"noted {text}"


class Answer(BaseModel):
    """The answer."""

    number: int


def make(name: str = "writer", state: AgentState | None = None) -> Agent:
    credential = OpenAICredential(api_key="unused", base_url="http://127.0.0.1:9/v1")
    bypass = PermissionContext(mode=PermissionMode.BYPASS)
    return Agent(
        name=name,
        system_prompt="You write.",
        model=OpenAIChatModel(credential, "gpt-5-mini", max_retries=0),
        toolkit=Toolkit(tools=[FunctionTool(note)]),
        state=state or AgentState(permission_context=bypass),
        injection_config=InjectionConfig(inject_runtime_state=False),
    )


def user(text: str) -> Msg:
    return UserMsg(name="user", content=text)


WRITER, CRITIC = make(), make("critic")


async def converse(question: str) -> str:
    return (await CRITIC.reply(await WRITER.reply(user(question)))).get_text_content()


def echo(request):
    """Notes the question, then repeats it; fails if it sees more than one run's question."""
    from raybolt.env.chat import ChatMessage, Completion, ToolCall

    said = [m.content for m in request.messages if m.role in ("user", "assistant") and m.content]
    (question,) = {text.split()[-1] for text in said}
    if request.messages[-1].role == "tool":
        return Completion(ChatMessage("assistant", f"{request.role} {question}"))
    arguments = f'{{"text": "{question}"}}'
    calls = (ToolCall("call_0", "note", arguments),)
    return Completion(ChatMessage("assistant", None, calls), "tool_calls")


@pytest.mark.parametrize("agent", [converse, make()], ids=["function over globals", "built agent"])
async def test_thirty_two_runs_of_the_same_objects_never_mix(agent_run, agent):
    wrapped = raybolt.wrap(agent)
    runs = await asyncio.gather(*(agent_run(wrapped, f"q{k}", echo, delay_s=0.003) for k in range(32)))
    for k, ran in enumerate(runs):
        text = ran.result if isinstance(ran.result, str) else ran.result.get_text_content()
        assert text.split()[-1] == f"q{k}"
        assert {span.attributes["text"] for span in ran.spans if span.name == "noted"} == {f"q{k}"}
    assert active_patches() == []


async def test_after_its_runs_an_agent_is_as_it_was(agent_run, script):
    agent = make()
    await agent_run(agent, "hi", lambda request: script.say("hello"))
    assert agent.state.context == []
    assert "__getattribute__" not in vars(Agent)
    assert type(agent.model) is OpenAIChatModel


async def test_what_an_agent_remembered_before_every_run_begins_with(agent_run, script):
    agent = make()
    await agent.observe(user("the sky is green"))
    for _ in range(2):
        ran = await agent_run(agent, "hi", lambda request: script.say("hello"))
        assert [m.content for m in ran.requests[0].messages[1:]] == ["the sky is green", "hi"]


async def test_agents_that_share_a_state_go_on_sharing_it_in_a_run(agent_run, script):
    state = AgentState(permission_context=PermissionContext(mode=PermissionMode.BYPASS))
    writer, critic = make("writer", state), make("critic", state)

    async def both(question: str) -> None:
        await writer.reply(user(question))
        await critic.reply(user("and you?"))

    ran = await agent_run(both, "hi", lambda request: script.say(request.role))
    assert [m.content for m in ran.requests[1].messages[1:]] == ["hi", "writer", "and you?"]
    assert state.context == []


async def test_an_agent_that_is_made_once_by_the_first_run_remembers_nothing_of_it(agent_run, script):
    @functools.cache
    def writer() -> Agent:
        return make()

    async def ask(question: str) -> str:
        return (await writer().reply(user(question))).get_text_content()

    for question in ("first", "second"):
        ran = await agent_run(ask, question, lambda request: script.say("ok"))
        assert [m.content for m in ran.requests[0].messages[1:]] == [question]


async def test_structured_output_of_one_run_takes_no_tool_from_another(agent_run, script):
    writer = make()

    async def ask(question: str) -> int:
        reply = await writer.reply(user(question), structured_schema=Answer)
        return reply.structured_output["number"]

    def policy(request):
        number = int(request.messages[1].content)
        if not any(m.role == "tool" for m in request.messages):
            return script.call(("note", {"text": str(number)}))
        return script.call(("GenerateStructuredOutput", {"number": number}))

    wrapped = raybolt.wrap(ask)
    runs = await asyncio.gather(*(agent_run(wrapped, str(k), policy, delay_s=0.003) for k in range(16)))
    assert [ran.result for ran in runs] == list(range(16))
    assert [tool.name for tool in writer.toolkit.tool_groups[0].tools] == ["note"]


async def test_a_state_that_the_agents_code_resets_is_reset_for_its_run_only(agent_run, script):
    writer = make()
    await writer.observe(user("old"))
    kept = writer.state

    async def ask(question: str) -> None:
        writer.state = AgentState()
        await writer.reply(user(question))

    ran = await agent_run(ask, "hi", lambda request: script.say("ok"))
    assert [m.content for m in ran.requests[0].messages[1:]] == ["hi"]
    assert writer.state is kept
    assert len(kept.context) == 1


async def test_others_use_the_agent_as_ever_while_runs_are_on(agent_run, script):
    writer = make()

    def policy(request):
        writer.state.summary = "set by the driver"
        return script.say("ok")

    ran = await agent_run(writer, "hi", policy)
    assert ran.result.get_text_content() == "ok"
    assert writer.state.summary == "set by the driver"


async def test_under_trace_an_agent_remembers_as_it_always_does(tmp_path):
    from agentscope.message import TextBlock
    from agentscope.model import ChatResponse

    class Parrot(OpenAIChatModel):
        async def _call_api(self, model_name, messages, tools=None, tool_choice=None, **kwargs):
            return ChatResponse(content=[TextBlock(text=messages[-1].get_text_content())], is_last=True)

    writer = make()
    writer.model = Parrot(OpenAICredential(api_key="unused"), "parrot", stream=False)
    async with raybolt.trace(tmp_path / "store"):
        assert (await writer.reply(user("hello"))).get_text_content() == "hello"
    assert len(writer.state.context) == 2
    assert active_patches() == []
