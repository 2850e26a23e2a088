"""The SDK's own tracing becomes the run's spans; the user's processors go on, and nothing is uploaded."""

import contextlib
from collections.abc import Iterator

import pytest
from agents import (
    Agent,
    RunConfig,
    Runner,
    add_trace_processor,
    custom_span,
    function_tool,
    set_trace_processors,
    set_tracing_disabled,
    trace,
)
from agents.tracing import TracingProcessor, get_trace_provider
from agents.tracing.processors import default_processor

import raybolt
from raybolt.adapters.patching import active_patches
from raybolt.store import names


class Notes(TracingProcessor):
    """A user's processor."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.ended: list[str] = []

    def on_trace_start(self, trace):
        self.started.append(trace.name)

    def on_trace_end(self, trace):
        """Nothing."""

    def on_span_start(self, span):
        """Nothing."""

    def on_span_end(self, span):
        self.ended.append(span.span_data.type)

    def shutdown(self):
        """Nothing."""

    def force_flush(self):
        """Nothing."""


class Uploads:
    """What reached the SDK's uploading processor.

    It looks empty to the processor's thread, which earlier tests may have started.
    """

    def __init__(self) -> None:
        self.items: list[object] = []

    def put_nowait(self, item: object) -> None:
        self.items.append(item)

    def qsize(self) -> int:
        return 0

    def empty(self) -> bool:
        return True


@pytest.fixture
def uploads(monkeypatch) -> Uploads:
    monkeypatch.delenv("OPENAI_AGENTS_DISABLE_TRACING", raising=False)
    uploads, processor = Uploads(), default_processor()
    monkeypatch.setattr(processor, "_queue", uploads)
    monkeypatch.setattr(processor, "_ensure_thread_started", lambda: None)
    return uploads


@pytest.fixture
def notes() -> Iterator[Notes]:
    notes = Notes()
    add_trace_processor(notes)
    yield notes
    set_trace_processors([default_processor()])


@contextlib.contextmanager
def tracing_off() -> Iterator[None]:
    set_tracing_disabled(True)
    try:
        yield
    finally:
        set_tracing_disabled(False)


@function_tool
def add(a: int) -> int:
    """Adds one."""
    raybolt.emit("inside")
    return a + 1


@function_tool
def divide(a: int) -> int:
    """Divides."""
    raise ValueError("by zero")


def team() -> Agent:
    return Agent("writer", tools=[add, divide], handoffs=[Agent("critic")])


def policy_of(script):
    def policy(request):
        if request.role == "critic":
            return script.say("fine")
        if any(message.role == "tool" for message in request.messages):
            from raybolt.env.chat import ChatMessage, Completion, ToolCall

            call = ToolCall("call_over", "transfer_to_critic", "{}")
            return Completion(ChatMessage("assistant", None, (call,)), "tool_calls")
        return script.call(("add", {"a": 1}), ("divide", {"a": 1}))

    return policy


async def expect_spans(agent_run, script, agent):
    ran = await agent_run(agent, "go", policy_of(script), name="team")
    assert not ran.end.failed, ran.end.error
    tool = ran.span("execute_tool add")
    assert tool.attributes[names.OPERATION] == "execute_tool"
    assert tool.attributes[names.TOOL_ARGUMENTS] == {"a": 1}
    assert tool.attributes[names.TOOL_RESULT] == 2
    assert tool.attributes[names.TOOL_CALL_ID] == "call_0"
    assert tool.attributes[names.AGENT_NAME] == "writer"
    assert ran.parent_name(tool) == "agent writer"
    assert ran.parent_name(ran.span("inside")) == "execute_tool add"
    failed = ran.span("execute_tool divide")
    assert (failed.status, failed.status_message) == ("error", "by zero")
    assert "by zero" in failed.attributes[names.TOOL_RESULT]
    over = ran.span("handoff writer -> critic")
    assert over.attributes[names.KIND] == "handoff"
    assert (over.attributes[names.HANDOFF_SOURCE], over.attributes[names.HANDOFF_TARGET]) == (
        "writer",
        "critic",
    )
    critic = ran.span("agent critic")
    assert (critic.attributes[names.KIND], critic.attributes[names.OPERATION]) == ("agent", "invoke_agent")
    assert ran.parent_name(ran.span("chat critic")) == "agent critic"
    assert ran.parent_name(over) == "agent writer"
    return ran


async def test_tools_agents_and_hand_offs_are_spans(agent_run, script):
    await expect_spans(agent_run, script, team())


async def test_they_are_even_where_tracing_is_switched_off(agent_run, script):
    async def agent(question):
        return await Runner.run(team(), question, run_config=RunConfig(tracing_disabled=True))

    with tracing_off():
        await expect_spans(agent_run, script, team())
    await expect_spans(agent_run, script, agent)


async def test_they_are_in_streamed_and_in_blocking_runs(agent_run, script):
    async def streamed(question):
        run = Runner.run_streamed(team(), question)
        async for _ in run.stream_events():
            pass

    def blocking(question):
        Runner.run_sync(team(), question)

    await expect_spans(agent_run, script, streamed)
    await expect_spans(agent_run, script, blocking)


async def test_the_wrapped_agents_own_span_is_the_runs(agent_run, script):
    ran = await agent_run(Agent("writer"), "go", lambda request: script.say("x"))
    assert [span.name for span in ran.spans] == ["invoke_agent writer", "chat writer"]


async def test_what_follows_an_agent_does_not_lie_within_it(agent_run, script):
    async def agent(question):
        draft = (await Runner.run(Agent("writer"), question)).final_output
        raybolt.emit("between")
        return (await Runner.run(Agent("critic"), draft)).final_output

    ran = await agent_run(agent, "go", lambda request: script.say("x"))
    for name in ("agent writer", "between", "agent critic"):
        assert ran.parent_name(ran.span(name)) == "invoke_agent agent"


async def test_spans_of_the_users_own_are_kept(agent_run, script):
    async def agent(question):
        with trace("my workflow"), custom_span("look up", {"key": "k"}):
            return (await Runner.run(Agent("writer"), question)).final_output

    ran = await agent_run(agent, "go", lambda request: script.say("x"))
    span = ran.span("look up")
    assert (span.attributes["key"], span.attributes[names.KIND]) == ("k", "operation")
    assert ran.parent_name(ran.span("agent writer")) == "look up"


async def test_an_agent_that_fails_ends_its_span_as_failed(agent_run, script):
    @function_tool(failure_error_function=None)
    def explode() -> str:
        """Explodes."""
        raise KeyError("gone")

    agent = Agent("writer", tools=[explode])
    ran = await agent_run(agent, "go", script.tool_then("x", ("explode", {})), name="outer")
    span = ran.span("agent writer")
    assert (span.status, span.attributes[names.ERROR_TYPE]) == ("error", "UserError")


async def test_nothing_is_uploaded_during_runs(agent_run, script, uploads, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-unused")
    await agent_run(team(), "go", policy_of(script))
    await agent_run(lambda llm: Agent("writer", model=llm), "go", lambda request: script.say("x"))
    assert uploads.items == []


async def test_it_is_if_the_user_asks_for_it(agent_run, script, uploads, monkeypatch):
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "false")
    await agent_run(Agent("writer"), "go", lambda request: script.say("x"))
    assert len(uploads.items) > 1


async def test_outside_runs_tracing_is_as_the_user_left_it(agent_run, script, uploads):
    def policy(request):
        with trace("outside"):
            return script.say("x")

    await agent_run(Agent("writer"), "go", policy)
    assert [item.name for item in uploads.items] == ["outside"]
    assert active_patches() == []


async def test_the_users_processors_and_provider_go_on(agent_run, script, notes):
    provider = get_trace_provider()
    await agent_run(team(), "go", policy_of(script))
    assert notes.started == ["Agent workflow"]
    assert {"agent", "function", "handoff"} <= set(notes.ended)
    assert get_trace_provider() is provider
