"""What of AgentScope can be wrapped, and what its agents are called with."""

import pytest
from agentscope.agent import Agent
from agentscope.credential import OpenAICredential
from agentscope.message import Msg, UserMsg
from agentscope.model import ChatModelBase, OpenAIChatModel
from agentscope.pipeline import GoalPipeline
from kits.agentscope_kit import agent, openai_model

import raybolt
from raybolt.adapters.agentscope.adapter import AgentScopeAdapter
from raybolt.env.chat import ChatMessage


def build(llm: ChatModelBase) -> Agent:
    return agent("writer", llm)


@pytest.mark.parametrize(
    "task_input", ["hi", {"role": "user", "content": "hi"}, [{"content": "hi"}]], ids=["text", "dict", "list"]
)
async def test_texts_and_messages_are_what_an_agent_takes(agent_run, script, task_input):
    ran = await agent_run(build, task_input, lambda _: script.say("x"))
    assert ran.requests[0].messages[1] == ChatMessage("user", "hi")


async def test_another_input_is_refused_with_the_remedy(agent_run, script):
    ran = await agent_run(build, {"question": "hi"}, lambda request: script.say("x"))
    assert "an AgentScope agent takes a text, or messages" in ran.end.error
    assert "pass wrap(…, inputs=function_of_the_task)" in ran.end.error


def test_agents_pipelines_factories_and_functions_over_agents_are_recognised():
    writer = build(openai_model())

    async def converse(question: str) -> Msg:
        return await writer.reply(UserMsg(name="user", content=question))

    for brought in (build, writer, GoalPipeline(writer, writer), converse):
        assert isinstance(raybolt.wrap(brought).adapter, AgentScopeAdapter)
    assert raybolt.wrap(writer).name == "writer"
    assert raybolt.wrap(converse).name == "converse"


async def test_without_training_an_agent_runs_on_the_users_llm():
    class Parrot(OpenAIChatModel):
        async def _call_api(self, model_name, messages, tools=None, tool_choice=None, **kwargs):
            from agentscope.message import TextBlock
            from agentscope.model import ChatResponse

            return ChatResponse(content=[TextBlock(text=messages[-1].get_text_content())], is_last=True)

    parrot = Parrot(OpenAICredential(api_key="unused"), "parrot", stream=False)
    reply = await raybolt.wrap(build).arun(raybolt.Task("t", "hello"), parrot)
    assert reply.get_text_content() == "hello"
