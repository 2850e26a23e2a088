"""Frameworks in the process of a command: roles and tools are known there as they are in a wrapped agent."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from http_support import drive
from ran import Ran

import raybolt
from raybolt.adapters.capture import FRAMEWORK_LIBRARIES
from raybolt.adapters.check.scripted import call, say, tools_then
from raybolt.adapters.command.environment import HOOK
from raybolt.env.recorder import SpanRecorder
from raybolt.env.run import AgentRun
from raybolt.store import names

AGENTS = {
    "openai-agents": """
import agents
agents.set_default_openai_api("chat_completions")
@agents.function_tool
def add(a: int) -> int:
    return a + 1
print(agents.Runner.run_sync(agents.Agent("writer", tools=[add]), "hi").final_output)
""",
    "langchain": """
from langchain.agents import create_agent
from langchain_openai import ChatOpenAI
def add(a: int) -> int:
    '''Add one.'''
    return a + 1
llm = ChatOpenAI(model="gpt-5", base_url="http://127.0.0.1:9/v1", api_key="own")
print(create_agent(llm, [add], name="writer").invoke({"messages": "hi"})["messages"][-1].text)
""",
    "autogen": """
import asyncio
from autogen_agentchat.agents import AssistantAgent
from autogen_ext.models.openai import OpenAIChatCompletionClient
def add(a: int) -> int:
    return a + 1
async def main():
    client = OpenAIChatCompletionClient(model="gpt-4o", base_url="http://127.0.0.1:9/v1", api_key="own")
    writer = AssistantAgent(
        "writer", client, tools=[add], description="adds", system_message="Add.", reflect_on_tool_use=True)
    print((await writer.run(task="hi")).messages[-1].content)
    await client.close()
asyncio.run(main())
""",
    "agentscope": """
import asyncio
from agentscope.agent import Agent
from agentscope.credential import OpenAICredential
from agentscope.message import UserMsg
from agentscope.model import OpenAIChatModel
from agentscope.permission import PermissionContext, PermissionMode
from agentscope.state import AgentState
from agentscope.tool import FunctionTool, Toolkit
def add(a: int) -> int:
    '''Add one.'''
    return a + 1
async def main():
    credential = OpenAICredential(api_key="own", base_url="http://127.0.0.1:9/v1")
    model = OpenAIChatModel(credential, "m", stream=False)
    writer = Agent(
        name="writer", system_prompt="Add.", model=model, toolkit=Toolkit(tools=[FunctionTool(add)]),
        state=AgentState(permission_context=PermissionContext(mode=PermissionMode.BYPASS)))
    print((await writer.reply(UserMsg(name="user", content="hi"))).get_text_content())
asyncio.run(main())
""",
    "crewai": """
from crewai import LLM, Agent, Crew, Task
from crewai.tools import tool
@tool("add")
def add(a: int) -> int:
    '''Add one.'''
    return a + 1
llm = LLM(model="policy", provider="openai", base_url="http://127.0.0.1:9/v1", api_key="own")
writer = Agent(role="writer", goal="add", backstory="adds", llm=llm, tools=[add])
task = Task(description="hi", expected_output="a number", agent=writer)
print(Crew(agents=[writer], tasks=[task]).kickoff().raw)
""",
}  # fmt: skip


async def run(code: str, policy: Any) -> Ran:
    agent = raybolt.wrap(raybolt.command([sys.executable, "-c", code]))
    run_of = AgentRun(
        agent.program(),
        raybolt.Task("t-1", "hi"),
        recorder=SpanRecorder("ro-1", "at-1"),
        require_reward=False,
    )
    return await drive(run_of, policy)


@pytest.mark.parametrize("framework", AGENTS)
async def test_the_roles_and_tools_of_an_unchanged_script_are_known(framework):
    ran = await run(AGENTS[framework], tools_then("2 it is", ("add", {"a": 1})))
    assert "2 it is" in str(ran.result)
    assert {request.role for request in ran.requests} == {"writer"}
    assert len(ran.requests) == 2
    tool = ran.span("execute_tool add")
    assert tool.attributes[names.TOOL_NAME] == "add"
    assert "2" in str(tool.attributes[names.TOOL_RESULT])


async def test_two_roles_of_a_script_are_told_apart_and_a_hand_off_is_seen():
    code = """
import agents
agents.set_default_openai_api("chat_completions")
critic = agents.Agent("critic")
print(agents.Runner.run_sync(agents.Agent("writer", handoffs=[critic]), "hi").final_output)
"""

    def policy(request: Any) -> Any:
        return call(("transfer_to_critic", {})) if request.role == "writer" else say("fine")

    ran = await run(code, policy)
    assert ran.result == "fine"
    assert [request.role for request in ran.requests] == ["writer", "critic"]
    assert ran.span("handoff writer -> critic").attributes[names.HANDOFF_TARGET] == "critic"


def test_the_hook_knows_every_framework_that_can_be_captured(monkeypatch):
    monkeypatch.delenv("RAYBOLT_RUN_URL", raising=False)
    before = list(sys.meta_path)
    hook = runpy.run_path(str(Path(HOOK) / "sitecustomize.py"))
    assert set(hook["_FRAMEWORKS"]) == FRAMEWORK_LIBRARIES
    assert sys.meta_path == before  # a process that works for no run is left alone
