"""Agents of which only some are trained: the others keep the models that they have."""

import asyncio
import contextlib

import httpx
import pytest
from agents import (
    Agent,
    Model,
    ModelProvider,
    ModelResponse,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    WebSearchTool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

import raybolt
from raybolt.adapters.openai_agents.messages import model_response, stream_events
from raybolt.adapters.openai_python.responses import completion_to_response
from raybolt.env.chat import ChatMessage, Completion
from raybolt.store import names

REPLY = Completion(ChatMessage("assistant", "own reply"))


@pytest.fixture(autouse=True)
def no_uploads():
    """What happens outside runs is the SDK's own affair, and it would upload traces."""
    set_tracing_disabled(True)
    yield
    set_tracing_disabled(False)


class Parrot(Model):
    """A model of the user's own."""

    def __init__(self) -> None:
        self.model = "parrot-1"
        self.inputs: list[object] = []

    async def get_response(self, system_instructions, input, *args, **kwargs) -> ModelResponse:
        self.inputs.append(input)
        return model_response(completion_to_response(REPLY, model="parrot-1", response_id="resp_p"))

    async def stream_response(self, system_instructions, input, *args, **kwargs):
        self.inputs.append(input)
        for event in stream_events(completion_to_response(REPLY, model="parrot-1", response_id="resp_p")):
            await asyncio.sleep(0)
            yield event


class Aviary(ModelProvider):
    """Knows one model by name."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def get_model(self, model_name: str | None) -> Model:
        return self.model


def pair(critic: Agent, *, streamed: bool = False, config: RunConfig | None = None):
    async def ask(question):
        draft = (await Runner.run(Agent("writer"), question)).final_output
        if not streamed:
            return (await Runner.run(critic, draft, run_config=config)).final_output
        run = Runner.run_streamed(critic, draft, run_config=config)
        kinds = [event.data.type async for event in run.stream_events() if event.type == "raw_response_event"]
        assert "response.output_text.delta" in kinds
        return run.final_output

    return ask


def expect_observed(ran, model):
    assert ran.result == "own reply"
    assert [request.role for request in ran.requests] == ["writer"]
    span = ran.span("chat critic")
    assert span.status == "ok"
    assert span.attributes[names.TRAINABLE] is False
    assert span.attributes[names.OUTPUT_MESSAGES] == [{"role": "assistant", "content": "own reply"}]
    assert span.attributes[names.INPUT_MESSAGES][-1] == {"role": "user", "content": "draft"}
    assert span.attributes[names.REQUEST_MODEL] == model
    assert ran.parent_name(span) == "agent critic"


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_users_model_answers_the_roles_that_are_not_trained(agent_run, script, streamed):
    parrot = Parrot()
    agent = pair(Agent("critic", model=parrot), streamed=streamed)
    ran = await agent_run(agent, "go", lambda request: script.say("draft"), trainable=["writer"])
    expect_observed(ran, "parrot-1")
    assert len(parrot.inputs) == 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_so_does_a_model_known_by_name_to_the_runs_provider(agent_run, script, streamed):
    config = RunConfig(model_provider=Aviary(Parrot()))
    agent = pair(Agent("critic", model="polly"), streamed=streamed, config=config)
    ran = await agent_run(agent, "go", lambda request: script.say("draft"), trainable=["writer"])
    expect_observed(ran, "parrot-1")


@pytest.mark.parametrize("make", [OpenAIResponsesModel, OpenAIChatCompletionsModel])
@pytest.mark.parametrize("streamed", [False, True])
async def test_openais_own_models_are_recorded_once_and_not_again_by_their_client(
    agent_run, script, make, streamed
):
    from raybolt.adapters.openai_python.responses import completion_to_response_events
    from raybolt.adapters.openai_python.wire import completion_to_body, completion_to_events

    def serve(request):
        chat = {"model": "own-1", "completion_id": "c"}
        response = {"model": "own-1", "response_id": "r"}
        if request.url.path.endswith("/responses"):
            events = completion_to_response_events(REPLY, **response)
            whole = completion_to_response(REPLY, **response)
        else:
            events = completion_to_events(REPLY, **chat, include_usage=True)
            whole = completion_to_body(REPLY, **chat)
        return httpx.Response(200, content=b"".join(events)) if streamed else httpx.Response(200, json=whole)

    async with httpx.AsyncClient(transport=httpx.MockTransport(serve)) as http:
        client = AsyncOpenAI(api_key="x", base_url="http://own/v1", http_client=http)
        agent = pair(Agent("critic", model=make("own-1", client)), streamed=streamed)
        ran = await agent_run(agent, "go", lambda request: script.say("draft"), trainable=["writer"])
    expect_observed(ran, "own-1")
    assert sum(span.name.startswith("chat") for span in ran.spans) == 2


async def test_what_only_the_own_model_knows_is_left_to_it(agent_run, script):
    parrot = Parrot()
    critic = Agent("critic", model=parrot, tools=[WebSearchTool()])
    ran = await agent_run(pair(critic), "go", lambda request: script.say("draft"), trainable=["writer"])
    expect_observed(ran, "parrot-1")


async def test_an_own_model_that_cannot_be_made_says_so_when_it_is_asked(agent_run, script, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    ran = await agent_run(
        pair(Agent("critic")), "go", lambda request: script.say("draft"), trainable=["writer"]
    )
    assert "OPENAI_API_KEY" in ran.end.error
    assert ran.span("chat critic").status == "error"


async def test_an_error_of_the_own_model_is_the_agents_to_handle(agent_run, script):
    class Mute(Parrot):
        async def get_response(self, *args, **kwargs):
            raise ConnectionError("no voice")

    async def agent(question):
        with contextlib.suppress(ConnectionError):
            await Runner.run(Agent("critic", model=Mute()), question)
        return "went on"

    ran = await agent_run(agent, "go", lambda request: script.say("draft"), trainable=["writer"])
    assert ran.result == "went on"
    assert ran.span("chat critic").status_message == "ConnectionError: no voice"


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_frozen_model_of_a_factory_answers_what_is_not_trained(agent_run, script, streamed):
    parrot = Parrot()

    def build(llm):
        async def ask(question):
            draft = (await Runner.run(Agent("writer", model=llm), question)).final_output
            critic = Agent("critic", model=llm)
            if not streamed:
                return (await Runner.run(critic, draft)).final_output
            run = Runner.run_streamed(critic, draft)
            async for _ in run.stream_events():
                pass
            return run.final_output

        return ask

    options = {"trainable": ["writer"], "frozen": parrot}
    ran = await agent_run(build, "go", lambda request: script.say("draft"), **options)
    expect_observed(ran, "parrot-1")
    assert len(parrot.inputs) == 1


async def test_the_policy_goes_on_where_an_own_model_left_off(agent_run, script):
    """Roles may take turns in one conversation that lives with the responses."""

    async def agent(question):
        first = await Runner.run(Agent("writer"), question)
        second = await Runner.run(Agent("writer"), "again", previous_response_id=first.last_response_id)
        return second.final_output

    ran = await agent_run(agent, "go", lambda request: script.say("draft"))
    assert [message.content for message in ran.requests[1].messages] == ["go", "draft", "again"]


async def test_callers_outside_the_run_reach_their_own_model_meanwhile(agent_run, script):
    parrot = Parrot()
    critic = Agent("critic", model=parrot)
    gate, done = asyncio.Event(), asyncio.Event()
    seen = []

    async def outsider():
        await gate.wait()
        seen.append((await Runner.run(critic, "outside")).final_output)
        done.set()

    async def agent(question):
        gate.set()
        await done.wait()
        return (await Runner.run(critic, question)).final_output

    task = asyncio.create_task(outsider())
    ran = await agent_run(agent, "go", lambda request: script.say("policy"))
    await task
    assert (ran.result, seen) == ("policy", ["own reply"])


async def test_a_traced_agent_keeps_its_models_and_is_recorded(tmp_path):
    parrot = Parrot()
    async with raybolt.trace(tmp_path) as run:
        draft = (await Runner.run(Agent("writer", model=parrot), "go")).final_output
        stream = Runner.run_streamed(Agent("critic", model=parrot), draft)
        async for _ in stream.stream_events():
            pass
    assert stream.final_output == "own reply"
    calls = run.trajectory.calls
    assert [(call.role, call.reply.content) for call in calls] == [
        ("writer", "own reply"),
        ("critic", "own reply"),
    ]
