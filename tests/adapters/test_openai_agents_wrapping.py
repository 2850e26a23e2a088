"""What of the OpenAI Agents SDK can be wrapped, what it is called with, and what its models are asked."""

import sys

import pytest
from agents import (
    Agent,
    ModelSettings,
    RunConfig,
    Runner,
    WebSearchTool,
    function_tool,
    set_tracing_disabled,
)

import raybolt
from raybolt.adapters.openai_agents.adapter import OpenAIAgentsAdapter, is_the_sdk
from raybolt.adapters.openai_python.adapter import PythonAdapter
from raybolt.adapters.wrap import UnsupportedAgent


@function_tool
def add(a: int) -> int:
    """Adds one."""
    return a + 1


def texts(request):
    return [message.content for message in request.messages]


async def test_settings_of_the_agent_and_of_the_run_reach_the_request(agent_run, script):
    async def agent(question):
        settings = ModelSettings(temperature=0.5, tool_choice="required")
        writer = Agent("writer", model_settings=settings, tools=[add])
        config = RunConfig(model="gpt-5", model_settings=ModelSettings(max_tokens=7))
        return (await Runner.run(writer, question, run_config=config)).final_output

    ran = await agent_run(agent, "go", lambda request: script.say("x"))
    (request,) = ran.requests
    assert (request.temperature, request.max_tokens, request.tool_choice) == (0.5, 7, "required")


@pytest.mark.parametrize(
    ("given", "contents"),
    [
        ("hi", ["hi"]),
        ([{"role": "user", "content": "hi"}], ["hi"]),
        ({"messages": [{"role": "user", "content": "hi"}]}, ["hi"]),
        ({"input": "hi", "max_turns": 3}, ["hi"]),
    ],
)
async def test_inputs_of_several_shapes_are_understood(agent_run, script, given, contents):
    ran = await agent_run(Agent("writer"), given, lambda request: script.say("x"))
    assert texts(ran.requests[0]) == contents


async def test_an_input_that_fits_nothing_says_what_does(agent_run, script):
    ran = await agent_run(Agent("writer"), {"question": "hi"}, lambda request: script.say("x"))
    assert "takes a text, a list of messages" in ran.end.error
    ran = await agent_run(
        Agent("writer"), {"question": "hi"}, lambda request: script.say("x"), inputs=lambda task: "ho"
    )
    assert texts(ran.requests[0]) == ["ho"]


async def test_tools_that_openai_runs_are_refused_with_their_name(agent_run, script):
    ran = await agent_run(Agent("writer", tools=[WebSearchTool()]), "go", lambda request: script.say("x"))
    assert "tool of type 'web_search'" in ran.end.error


@pytest.fixture
def no_uploads():
    """What happens outside runs is the SDK's own affair, and it would upload traces."""
    set_tracing_disabled(True)
    yield
    set_tracing_disabled(False)


async def test_without_training_the_agent_runs_on_the_users_own_model(no_uploads):
    from agents import Model, ModelResponse, Usage

    from raybolt.adapters.openai_agents.messages import model_response
    from raybolt.adapters.openai_python.responses import completion_to_response
    from raybolt.env.chat import ChatMessage, Completion

    class Parrot(Model):
        async def get_response(self, system_instructions, input, *args, **kwargs) -> ModelResponse:
            reply = Completion(ChatMessage("assistant", input[-1]["content"]))
            return model_response(completion_to_response(reply, model="m", response_id="r"))

        def stream_response(self, *args, **kwargs):
            raise NotImplementedError

    agent = raybolt.wrap(lambda llm: Agent("writer", model=llm), framework="openai-agents")
    result = await agent.arun(raybolt.Task("t", "polly"), Parrot())
    assert result.final_output == "polly"
    assert result.context_wrapper.usage == Usage(requests=1)


def test_what_is_wrapped_is_told_by_type_annotation_and_imports():
    def build(llm):
        return Agent("writer", model=llm)

    def typed(brain: "Model"):  # noqa: F821  # imported only for type checkers
        return brain

    def function(question):
        return Runner.run_sync(Agent("writer"), question)

    assert isinstance(raybolt.wrap(build).adapter, OpenAIAgentsAdapter)
    assert isinstance(raybolt.wrap(typed).adapter, OpenAIAgentsAdapter)
    assert isinstance(raybolt.wrap(function).adapter, PythonAdapter)
    wrapped = raybolt.wrap(Agent("writer"))
    assert isinstance(wrapped.adapter, OpenAIAgentsAdapter)
    assert wrapped.name == "writer"
    with pytest.raises(UnsupportedAgent, match="cannot be run; pass a function build"):
        raybolt.wrap(RunConfig())
    with pytest.raises(UnsupportedAgent, match="cannot be a factory of the OpenAI Agents SDK"):
        raybolt.wrap(function, framework="openai-agents")


def test_a_package_of_the_users_that_is_called_agents_is_not_the_sdk(monkeypatch, tmp_path):
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "agents"]:
        monkeypatch.delitem(sys.modules, name)
    is_the_sdk.cache_clear()
    try:
        assert not is_the_sdk()
    finally:
        is_the_sdk.cache_clear()
