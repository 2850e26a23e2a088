"""Replays of commands, of traced runs, and of plain functions that nobody has decorated."""

import sys

import pytest
from openai import AsyncOpenAI
from recorded_agents import asks, record, say

import raybolt
from raybolt.adapters.check import NOWHERE
from raybolt.adapters.check.server import ModelServer
from raybolt.env.errors import ReplayDiverged
from raybolt.env.replay import replay
from raybolt.store import LocalStore

BEGIN = """
import json, os, sys, urllib.request
def ask(text):
    headers = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"}
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()
    url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
    with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
        return json.load(answer)["choices"][0]["message"]["content"]
def count():
    with open(sys.argv[1], "a+") as file:
        file.write("x")
        file.seek(0)
        return len(file.read())
"""
SCRIPT = """
draft = ask("begin")
number = count() if "chance" in sys.argv else bool(count())
print(json.dumps(ask(f"{draft}, and the tool says {number}")))
"""
DECORATED = """
import raybolt
@raybolt.operation
def look(word):
    number = count()
    raybolt.emit_reward(0.25)
    if word == "nowhere":
        raise FileNotFoundError(2, "No such place", f"{word} {number}")
    return {"found": number}
said = ask(f"found {look('here')['found']}")
try:
    look("nowhere")
except FileNotFoundError as error:
    said = ask(f"{said}; {error}")
again = look("here")["found"] if "again" in said else "no more"
print(said, again)
"""
IN_A_FRAMEWORK = """
import agents
agents.set_default_openai_api("chat_completions")
@agents.function_tool
def look(query: str) -> str:
    number = count()
    if query == "nowhere":
        raise ValueError(f"no such place ({number})")
    return f"{query} #{number}"
print(agents.Runner.run_sync(agents.Agent("writer", tools=[look]), "hi").final_output)
"""


def in_turn(request):
    return say(f"re: {request.messages[-1].content}")


def command(tmp_path, *arguments, code=SCRIPT):
    path = tmp_path / "count"
    agent = raybolt.wrap(
        raybolt.command([sys.executable, "-c", BEGIN + code, str(path), *arguments]), reward=lambda *_: 1.0
    )
    return agent, path


async def test_a_commands_calls_are_answered_from_the_store_and_its_tools_run(tmp_path):
    agent, path = command(tmp_path)
    async with LocalStore(None) as store:
        rollout_id, then = await record(store, agent, in_turn)
        async with await replay(agent, store, rollout_id) as at:
            assert (
                at.run.end.result == then.calls[-1].reply.content == "re: re: begin, and the tool says True"
            )
        assert path.read_text() == "xx"
        async with await replay(agent, store, rollout_id, until=1) as at:
            assert at.call.request.messages[-1].content == "re: begin, and the tool says True"
            at.run.answer(at.call.call_id, say("otherwise"))
            assert (await at.run.next()).result == "otherwise"


async def test_a_tool_of_a_command_that_answers_otherwise_is_a_divergence(tmp_path):
    agent, _ = command(tmp_path, "chance")
    async with LocalStore(None) as store:
        rollout_id, _ = await record(store, agent, in_turn)
        with pytest.raises(ReplayDiverged) as diverged:
            await replay(agent, store, rollout_id)
    assert str(diverged.value).startswith(
        f"call 1 (role 'agent') of rollout '{rollout_id}': message 0 differs: then user: 're: begin, and the "
        "tool says 1'; now user: 're: begin, and the tool says 2'; usual causes: the time or chance in the "
        "agent's own code (seed it, or pass it in with the task), a tool that ran for real"
    )


async def test_decorated_functions_of_a_command_answer_from_the_store(tmp_path):
    agent, path = command(tmp_path, code=DECORATED)
    async with LocalStore(None) as store:
        rollout_id, then = await record(store, agent, in_turn)
        assert then.calls[-1].messages[-1].content == ("re: found 1; [Errno 2] No such place: 'nowhere 2'")
        async with await replay(agent, store, rollout_id) as at:
            assert at.run.end.error is None
            now = at.run.trajectory
        assert [call.messages for call in now.calls] == [call.messages for call in then.calls]
        assert now.total_reward == then.total_reward == 1.5
        looks = [span for span in at.run.recorder.spans if span.name == "look"]
        assert [span.status for span in looks] == ["ok", "error"]
        assert path.read_text() == "xx"
        async with await replay(agent, store, rollout_id, until=1) as at:  # behind it tools run
            at.run.answer(at.call.call_id, say("again"))
            assert (await at.run.next()).result == "again 3"


async def test_tools_of_a_framework_in_a_command_answer_from_the_store(tmp_path):
    pytest.importorskip("agents")
    agent, path = command(tmp_path, code=IN_A_FRAMEWORK)
    async with LocalStore(None) as store:
        rollout_id, then = await record(store, agent, asks(("look", "here"), ("look", "nowhere")))
        assert [call.role for call in then.calls] == ["writer", "writer"]
        assert "no such place (" in then.calls[-1].reply.content
        async with await replay(agent, store, rollout_id) as at:
            assert at.run.end.result == then.calls[-1].reply.content
    assert path.read_text() == "xx"


@pytest.mark.parametrize("decorated", [True, False])
async def test_a_plain_function_is_answered_if_it_is_decorated_and_else_runs_and_is_noticed(decorated):
    executions = []

    def look(query):
        executions.append(query)
        return len(executions)

    tool = raybolt.operation(look) if decorated else look

    async def agent(question):
        async with AsyncOpenAI(api_key="unused", base_url=NOWHERE, max_retries=0) as client:
            messages = [{"role": "user", "content": str(tool(question))}]
            await client.chat.completions.create(model="m", messages=messages)

    wrapped = raybolt.wrap(agent, reward=lambda *_: 1.0)
    async with LocalStore(None) as store:
        rollout_id, _ = await record(store, wrapped, in_turn)
        if decorated:
            async with await replay(wrapped, store, rollout_id) as at:
                assert at.run.end.error is None
            assert executions == ["go"]
        else:
            with pytest.raises(ReplayDiverged, match=r"call 0 .*then user: '1'; now user: '2'"):
                await replay(wrapped, store, rollout_id)


async def test_a_traced_run_is_replayed_without_its_model_and_its_tools():
    executions = []

    @raybolt.operation
    def look(query):
        executions.append(query)
        return len(executions)

    with ModelServer().serving() as server:

        async def answer(question):
            async with AsyncOpenAI(api_key="unused", base_url=server.url, max_retries=0) as client:
                messages = [{"role": "user", "content": f"{question}: {look(question)}"}]
                reply = await client.chat.completions.create(model="m", messages=messages)
                return reply.choices[0].message.content

        async with LocalStore(None) as store:
            assert await raybolt.trace(store)(answer)("go") == "own reply 1"
            (rollout,) = await store.query_rollouts()
            async with await replay(raybolt.wrap(answer), store, rollout.rollout_id) as at:
                assert at.run.end.result == "own reply 1"
            assert executions == ["go"]
            async with await replay(raybolt.wrap(answer), store, rollout.rollout_id, until=0) as at:
                assert at.call.request.messages[-1].content == "go: 1"
