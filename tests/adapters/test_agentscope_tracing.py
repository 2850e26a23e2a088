"""Spans of AgentScope's agents and tools, with the right parents, from code that knows nothing of tracing."""

import asyncio

import pytest
from agentscope.agent import Agent, InjectionConfig
from agentscope.credential import OpenAICredential
from agentscope.message import Base64Source, DataBlock, TextBlock, UserMsg
from agentscope.middleware import MiddlewareBase
from agentscope.model import ChatModelBase, ChatResponse, ChatUsage, OpenAIChatModel
from agentscope.permission import PermissionContext, PermissionMode
from agentscope.state import AgentState
from agentscope.tool import FunctionTool, Toolkit

import raybolt
from raybolt.env.policy import RunEnd
from raybolt.env.recorder import SpanRecorder
from raybolt.env.run import AgentRun


def look(thing: str) -> str:
    """Looks at a thing."""
    raybolt.emit("noticed", thing=thing)
    return f"{thing} is red"


async def listen(thing: str) -> str:
    """Listens to a thing."""
    await asyncio.sleep(0.01)
    raybolt.emit("noticed", thing=thing)
    return f"{thing} is loud"


def smash(thing: str) -> str:
    """Smashes a thing."""
    raise RuntimeError(f"{thing} broke")


def agent_of(llm: ChatModelBase, name: str = "scout", tools=(look, listen, smash), middlewares=()) -> Agent:
    return Agent(
        name=name,
        system_prompt="You see.",
        model=llm,
        toolkit=Toolkit(tools=[FunctionTool(tool) for tool in tools]),
        state=AgentState(permission_context=PermissionContext(mode=PermissionMode.BYPASS)),
        injection_config=InjectionConfig(inject_runtime_state=False),
        middlewares=list(middlewares),
    )


class Parrot(OpenAIChatModel):
    """A model of the user's own that streams word by word."""

    def __init__(self, stream: bool) -> None:
        super().__init__(OpenAICredential(api_key="unused"), "parrot", stream=stream)

    async def _call_api(self, model_name, messages, tools=None, tool_choice=None, **kwargs):
        if not self.stream:
            return self._said("own words", True)
        return self._chunks()

    async def _chunks(self):
        for word in ("own ", "words"):
            yield self._said(word, False)

    def _said(self, text: str, is_last: bool) -> ChatResponse:
        usage = ChatUsage(input_tokens=7, output_tokens=2, time=0.0)
        return ChatResponse([TextBlock(text=text, id="block")], is_last, usage=usage)


async def run(agent, policy, **options):
    """Runs with the options of `wrap`, trainable included; returns the end, the requests and the spans."""
    wrapped = raybolt.wrap(agent, **options)
    recorder = SpanRecorder("rollout", "attempt")
    stepped = AgentRun(
        wrapped.program(),
        raybolt.Task("task", "hi"),
        recorder=recorder,
        require_reward=False,
        trainable=wrapped.trainable,
    )
    requests = []
    while not isinstance(pending := await stepped.next(), RunEnd):
        for each in pending:
            requests.append(each.request)
            stepped.answer(each.call_id, policy(each.request))
    return pending, requests, {span.name: span for span in recorder.spans}


def build(llm):
    return agent_of(llm)


async def test_a_tool_span_has_name_arguments_result_call_id_and_role(agent_run, script):
    ran = await agent_run(build, "go", script.tool_then("done", ("look", {"thing": "sun"})))
    span = ran.span("execute_tool look")
    assert span.status == "ok"
    assert span.attributes["gen_ai.operation.name"] == "execute_tool"
    assert span.attributes["gen_ai.tool.name"] == "look"
    assert span.attributes["gen_ai.tool.call.id"] == "call_0"
    assert span.attributes["gen_ai.tool.call.arguments"] == {"thing": "sun"}
    assert span.attributes["gen_ai.tool.call.result"] == "sun is red"
    assert span.attributes["gen_ai.agent.name"] == "scout"


@pytest.mark.parametrize("tool_name", ["look", "listen"])
async def test_what_parallel_tools_emit_lands_below_the_right_tool(agent_run, script, tool_name):
    things = ("sun", "moon", "star")
    calls = [(tool_name, {"thing": thing}) for thing in things]
    ran = await agent_run(build, "go", script.tool_then("done", *calls))
    spans = {span.span_id: span for span in ran.spans}
    noticed = [span for span in ran.spans if span.name == "noticed"]
    assert {span.attributes["thing"] for span in noticed} == set(things)
    for span in noticed:
        parent = spans[span.parent_id]
        assert parent.attributes["gen_ai.tool.call.arguments"] == {"thing": span.attributes["thing"]}


async def test_calls_and_tools_of_the_wrapped_agent_are_children_of_the_run(agent_run, script):
    ran = await agent_run(build, "go", script.tool_then("done", ("look", {"thing": "sun"})), name="scout")
    assert [(span.name, ran.parent_name(span)) for span in ran.spans] == [
        ("invoke_agent scout", None),
        ("chat scout", "invoke_agent scout"),
        ("execute_tool look", "invoke_agent scout"),
        ("noticed", "execute_tool look"),
        ("chat scout", "invoke_agent scout"),
    ]


async def test_an_agent_inside_a_tool_is_a_child_of_the_tool(agent_run, script):
    def build_boss(llm):
        async def research(topic: str) -> str:
            """Asks the researcher."""
            reply = await agent_of(llm, "researcher", ()).reply(UserMsg(name="user", content=topic))
            return reply.get_text_content()

        return agent_of(llm, "boss", [research])

    def policy(request):
        asked = script.tool_then("done", ("research", {"topic": "rain"}))
        return script.say("wet") if request.role == "researcher" else asked(request)

    ran = await agent_run(build_boss, "go", policy, name="boss")
    assert [request.role for request in ran.requests] == ["boss", "researcher", "boss"]
    assert ran.parent_name(ran.span("chat researcher")) == "agent researcher"
    assert ran.parent_name(ran.span("agent researcher")) == "execute_tool research"


async def test_a_tool_that_raises_is_a_failed_span_with_what_it_said(agent_run, script):
    ran = await agent_run(build, "go", script.tool_then("x", ("smash", {"thing": "cup"})))
    span = ran.span("execute_tool smash")
    assert (span.status, span.status_message) == ("error", "cup broke")


async def test_after_an_agents_reply_the_role_is_the_callers_again(agent_run, script):
    def build_function(llm):
        scout = agent_of(llm)

        async def ask(question: str) -> None:
            message = UserMsg(name="user", content=question)
            async for event in scout.reply_stream(message):
                raybolt.emit("event", kind=type(event).__name__)
            await llm([message])

        return ask

    ran = await agent_run(build_function, "go", lambda request: script.say("x"), name="caller")
    assert [request.role for request in ran.requests] == ["scout", "caller"]
    assert {ran.parent_name(span) for span in ran.spans if span.name == "event"} == {"invoke_agent caller"}
    assert ran.parent_name(ran.span("chat caller")) == "invoke_agent caller"


async def test_the_authors_middlewares_go_on_working(agent_run, script):
    class Shouting(MiddlewareBase):
        async def on_model_call(self, agent, input_kwargs, next_handler):
            response = await next_handler(**input_kwargs)
            response.content[0].text = response.content[0].text.upper()
            return response

    def build_loud(llm):
        return agent_of(llm, middlewares=[Shouting()])

    ran = await agent_run(build_loud, "go", lambda request: script.say("hello"))
    assert ran.result.get_text_content() == "HELLO"


@pytest.mark.parametrize("stream", [False, True])
async def test_the_own_models_of_roles_that_are_not_trainable_answer_and_are_recorded(script, stream):
    scout, critic = agent_of(Parrot(stream)), agent_of(Parrot(stream), "critic")

    async def both(question: str) -> list[str]:
        draft = await scout.reply(UserMsg(name="user", content=question))
        events = critic.reply_stream(draft)
        return [event.delta async for event in events if hasattr(event, "delta")]

    end, requests, spans = await run(both, lambda request: script.say("policy"), trainable=["scout"])
    assert not end.failed, end
    assert end.result == (["own ", "words"] if stream else ["own words"])
    assert [request.role for request in requests] == ["scout"]
    chat = spans["chat critic"]
    assert chat.status == "ok"
    assert chat.attributes["raybolt.trainable"] is False
    assert chat.attributes["gen_ai.output.messages"] == [{"role": "assistant", "content": "own words"}]
    assert chat.attributes["gen_ai.request.model"] == "parrot"
    assert chat.attributes["gen_ai.usage.output_tokens"] == 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("frozen_streams", [False, True])
async def test_the_frozen_model_answers_in_the_form_that_the_factory_wants(script, stream, frozen_streams):
    def build_function(llm):
        llm.stream = stream

        async def ask(question: str) -> str:
            reply = await llm([UserMsg(name="user", content=question)])
            if not stream:
                return reply.content[0].text
            *_, last = [chunk async for chunk in reply]
            assert last.is_last
            return last.content[0].text

        return ask

    end, requests, spans = await run(
        build_function,
        lambda request: script.say("policy"),
        framework="agentscope",
        trainable=["nobody"],
        frozen=Parrot(frozen_streams),
    )
    assert end.result == "own words", end
    assert requests == []
    assert spans["chat agent"].attributes["gen_ai.output.messages"][0]["content"] == "own words"


async def test_an_image_is_an_error_only_where_the_policy_would_have_to_see_it(script):
    source = Base64Source(data="aGk=", media_type="image/png")
    picture = UserMsg(name="user", content=[TextBlock(text="what is this? "), DataBlock(source=source)])
    model = Parrot(False)

    async def ask(question: str) -> str:
        return (await model([picture])).content[0].text

    end, _, spans = await run(ask, lambda request: script.say("x"), trainable=["nobody"], name="me")
    assert end.result == "own words"
    assert spans["chat me"].attributes["gen_ai.input.messages"][0]["content"] == "what is this? [image_url]"
    end, _, _ = await run(ask, lambda request: script.say("x"))
    assert "a part of type 'image_url'; only text parts are supported" in end.error
