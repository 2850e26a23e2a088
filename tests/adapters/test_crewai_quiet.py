"""Runs of CrewAI agents send, write, print and ask nothing by themselves, and stay stopped."""

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

from crewai import BaseLLM, Crew
from crewai.flow.flow import Flow, start
from crewai.tools import tool
from kits.crewai_kit import ask, member

import raybolt
from raybolt.adapters.check.drive import Stage
from raybolt.adapters.check.scripted import call
from raybolt.adapters.patching import active_patches
from raybolt.env.executor import threads

ON_A_NEW_MACHINE = """
    import asyncio, os, socket, sys

    class Seen(list):
        def guard(self, original):
            def guarded(*args, **kwargs):
                self.append(args[-1] if args else kwargs)
                return original(*args, **kwargs)
            return guarded

    seen = Seen()
    socket.getaddrinfo = seen.guard(socket.getaddrinfo)
    socket.socket.connect = seen.guard(socket.socket.connect)

    from crewai import Agent, Crew, Task
    from crewai.flow.flow import Flow, start

    import raybolt
    from raybolt.adapters.check.drive import play
    from raybolt.adapters.check.scripted import say

    def build(llm):
        writer = Agent(role="writer", goal="Write.", backstory="Brief.", llm=llm)
        return Crew(agents=[writer], tasks=[Task(description="{q}", expected_output="x", agent=writer)])

    class Late(Flow):
        @start()
        def write(self):
            return Agent(role="late", goal="g", backstory="b", llm="gpt-5").kickoff(self.state["input"])

    home = lambda: sorted(os.path.join(at, f) for at, _, files in os.walk(os.environ["HOME"]) for f in files)
    written = home()  # what importing CrewAI leaves
    crew = build("gpt-5")
    written_by_user = home()
    for agent in (build, crew, Late):
        ran = asyncio.run(play(raybolt.wrap(agent), lambda request: say("x")))
        assert ran.end.error is None, ran.end
    assert home() == written_by_user, (written_by_user, home())
    assert os.listdir(".") == [], os.listdir(".")
    addresses = [address for address in seen if address not in (None, 0)]
    assert addresses == [], addresses
"""


def test_on_a_new_machine_nothing_is_sent_written_asked_or_shown(tmp_path):
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("CREWAI", "OTEL", "XDG"))
    }
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ON_A_NEW_MACHINE)],
        env={**kept, "HOME": str(home), "OPENAI_API_KEY": "unused"},
        cwd=here,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ""


def crew_on(llm: BaseLLM, **options: Any) -> Crew:
    writer = member("writer", llm)
    return Crew(agents=[writer], tasks=[ask(writer)], **options)


async def test_a_crew_shows_its_work_if_its_author_wants_that(agent_run, script, capfd):
    await agent_run(crew_on, "rain", lambda request: script.say("x"))
    assert capfd.readouterr().out == ""
    await agent_run(lambda llm: crew_on(llm, verbose=True), "rain", lambda request: script.say("x"))
    assert "Crew Execution Started" in capfd.readouterr().out


async def test_what_the_user_has_set_is_left_as_it_is(agent_run, script, monkeypatch, tmp_path):
    monkeypatch.setenv("CREWAI_DISABLE_TELEMETRY", "no")
    monkeypatch.setenv("CREWAI_STORAGE_DIR", str(tmp_path))
    seen = []

    def build(llm: BaseLLM) -> Any:
        def solve(question: str) -> str:
            from crewai_core.paths import db_storage_path

            seen.extend([os.environ["CREWAI_DISABLE_TELEMETRY"], db_storage_path()])
            return llm.call(question)

        return solve

    await agent_run(build, "rain", lambda request: script.say("x"))
    assert seen == ["no", str(tmp_path)]


class Own(BaseLLM):
    """The user's own model; it notes that it was asked."""

    def call(self, *args: Any, **kwargs: Any) -> str:
        asked.append(threading.current_thread().name)
        return "own"


asked: list[str] = []


async def test_a_thread_that_outlives_its_run_does_not_get_at_the_users_models():
    finished = threading.Event()

    @tool
    def dawdle() -> str:
        """Takes its time."""
        time.sleep(1.5)
        finished.set()
        return "done"

    class Team(Own):
        def supports_function_calling(self) -> bool:
            return True

    tardy = member("writer", Team(model="own"), tools=[dawdle])
    editor = member("editor", Own(model="own"))
    crew = Crew(
        agents=[tardy, editor],
        tasks=[ask(tardy, async_execution=True), ask(editor, "Join them.", context=[])],
    )
    stage = Stage(raybolt.wrap(crew))
    (waiting,) = await stage.waiting()
    stage.run.answer(waiting.call_id, call(("dawdle", {})))
    await asyncio.sleep(0.1)
    end = await stage.run.abort("enough")
    assert (end.error, finished.is_set()) == ("enough", False)
    await asyncio.to_thread(finished.wait, 10)
    for _ in range(200):
        if not threads.num_busy and not active_patches():
            break
        await asyncio.sleep(0.05)
    assert (threads.num_busy, active_patches(), asked) == (0, [], [])


class Streamed(Flow):
    stream = True

    @start()
    def write(self) -> str:
        return str(member("writer", Own(model="own")).kickoff(self.state["input"]))


async def test_a_streaming_flow_is_run_to_its_end(agent_run, script):
    ran = await agent_run(Streamed(), "rain", lambda request: script.say("wet"))
    assert ran.result == "wet"
    assert asked == []


def test_importing_the_adapter_does_not_import_crewai():
    code = "import sys, raybolt.adapters.crewai.adapter; sys.exit('crewai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
