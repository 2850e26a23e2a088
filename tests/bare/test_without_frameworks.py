"""With every agent framework unimportable, raybolt imports, wraps a plain function and keeps a store."""

from __future__ import annotations

import subprocess
import sys
import textwrap

BLOCK = """
import sys
from importlib.abc import MetaPathFinder

FRAMEWORKS = {
    "agents", "agentscope", "autogen_agentchat", "autogen_core", "autogen_ext", "crewai", "httpx",
    "langchain", "langchain_core", "langchain_openai", "langgraph", "openai", "vllm",
}

class Blocker(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in FRAMEWORKS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def run_without_frameworks(code: str) -> str:
    """What `code` prints in a new process where no framework can be imported."""
    source = BLOCK + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_public_name_imports():
    printed = run_without_frameworks("""
        import raybolt
        for name in raybolt.__all__:
            getattr(raybolt, name)
        print("all there")
    """)
    assert printed == "all there"


def test_a_plain_function_can_be_wrapped_and_run():
    printed = run_without_frameworks("""
        import raybolt

        def agent(task):
            raybolt.emit_reward(1.0)
            return "done"

        print(type(raybolt.wrap(agent)).__name__)
    """)
    assert printed == "WrappedAgent"


def test_a_command_is_served_its_policy_over_http():
    printed = run_without_frameworks("""
        import asyncio
        import raybolt
        from raybolt.env import AgentRun, ChatMessage, Completion, SpanRecorder

        SCRIPT = '''
        import json, os, urllib.request
        body = json.dumps({"model": "any", "messages": [{"role": "user", "content": "hi"}]}).encode()
        key = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
        url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
        with urllib.request.urlopen(urllib.request.Request(url, body, key)) as answer:
            print(json.load(answer)["choices"][0]["message"]["content"])
        '''

        async def main():
            code = SCRIPT.replace("\\n        ", "\\n")
            agent = raybolt.wrap(raybolt.command([sys.executable, "-c", code]))
            recorder = SpanRecorder("ro-1", "at-1")
            run = AgentRun(agent.program(), raybolt.Task("t", "x"), recorder=recorder, require_reward=False)
            (call,) = await run.next()
            run.answer(call.call_id, Completion(ChatMessage("assistant", "hello")))
            print((await run.next()).result)

        asyncio.run(main())
    """)
    assert printed == "hello"


def test_a_local_store_keeps_rollouts():
    printed = run_without_frameworks("""
        import asyncio
        import raybolt

        async def main():
            store = raybolt.LocalStore(None)
            await store.enqueue_rollout({"question": "2+2"})
            taken = await store.dequeue_rollout()
            print(taken.input, taken.attempt.sequence_id)

        asyncio.run(main())
    """)
    assert printed == "{'question': '2+2'} 1"
