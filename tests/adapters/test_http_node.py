"""An agent in JavaScript, with the npm package `openai`: `make node` installs it, CI insists on it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from http_support import drive

import raybolt
from raybolt.adapters.check.scripted import call, say
from raybolt.env.chat import ChatRequest, Completion
from raybolt.env.recorder import SpanRecorder
from raybolt.env.run import AgentRun

MODULES = Path(__file__).parents[2] / ".node" / "node_modules"


@pytest.fixture
def node() -> str:
    """The program. Without it or the package the test is skipped, unless they are required."""
    found = shutil.which("node")
    lacking = "Node.js is not installed" if found is None else None
    if lacking is None and not (MODULES / "openai").is_dir():
        lacking = "the npm package openai is not installed; run: make node"
    if lacking is not None:
        if os.environ.get("RAYBOLT_REQUIRE_NODE"):
            pytest.fail(lacking)
        pytest.skip(lacking)
    assert found is not None
    return found


def policy(request: ChatRequest) -> Completion:
    if request.tools:
        return call(("add", {"a": 1}))
    return say(f"to {request.messages[-1].content}")


async def test_an_agent_in_javascript_uses_chats_tools_streams_responses_and_rewards(node):
    script = Path(__file__).with_name("node_agent.js")
    agent = raybolt.wrap(raybolt.command([node, str(script)], env={"NODE_PATH": str(MODULES)}))
    run = AgentRun(
        agent.program(), raybolt.Task("t-1", {"question": "1 + 1?"}), recorder=SpanRecorder("ro-1", "at-1")
    )
    ran = await drive(run, policy)
    assert ran.result == {"called": 1, "streamed": "to 2", "response": "to and now?"}
    assert [message.role for message in ran.requests[1].messages] == ["user", "assistant", "tool"]
    assert run.trajectory.total_reward == 0.5
    assert len(run.trajectory.calls) == 3
