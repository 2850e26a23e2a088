"""AutoGen's AssistantAgent as people write it, stepped by a scripted policy."""

import asyncio
import threading

import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.base import TaskResult
from autogen_agentchat.messages import ModelClientStreamingChunkEvent, TextMessage
from autogen_core import CancellationToken
from autogen_core.memory import ListMemory, MemoryContent
from autogen_core.model_context import BufferedChatCompletionContext, TokenLimitedChatCompletionContext
from autogen_core.models import ChatCompletionClient
from autogen_core.tools import FunctionTool, StaticWorkbench, TextResultContent, ToolResult, Workbench
from autogen_ext.models.replay import ReplayChatCompletionClient
from pydantic import BaseModel

import raybolt
from raybolt.adapters.autogen.model import PolicyClient
from raybolt.adapters.patching import active_patches
from raybolt.env.chat import ChatMessage, Completion, ToolCall


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


async def slow_add(a: int, b: int) -> int:
    """Adds two numbers in a while."""
    await asyncio.sleep(0.01)
    return a + b


def fail(a: int) -> int:
    """Fails."""
    raise ValueError(f"no {a}")


class Answer(BaseModel):
    """The answer."""

    number: int


def adder(llm: ChatCompletionClient):
    return AssistantAgent(
        "writer", llm, tools=[add, slow_add, fail], system_message="Add.", reflect_on_tool_use=True
    )


def last_text(result):
    return result.messages[-1].to_model_text()


def tool_messages(request):
    return [message.content for message in request.messages if message.role == "tool"]


async def test_an_assistant_runs_its_tool_and_the_result_is_autogens_own(agent_run, script):
    ran = await agent_run(adder, "1 + 2?", script.tool_then("three", ("add", {"a": 1, "b": 2})))
    assert isinstance(ran.result, TaskResult)
    assert [message.source for message in ran.result.messages] == ["user", "writer", "writer", "writer"]
    assert last_text(ran.result) == "three"
    first, second = ran.requests
    assert first.messages == (ChatMessage("system", "Add."), ChatMessage("user", "1 + 2?", name="user"))
    assert [spec.name for spec in first.tools] == ["add", "slow_add", "fail"]
    assert first.role == "writer"
    assert second.messages[2:] == (
        ChatMessage("assistant", tool_calls=(ToolCall("call_0", "add", '{"a": 1, "b": 2}'),)),
        ChatMessage("tool", "3", tool_call_id="call_0", name="add"),
    )
    assert second.tools == ()


@pytest.mark.parametrize(
    "calls", [[("add", 1)], [("slow_add", 1)], [("add", 1), ("slow_add", 2), ("add", 3)]]
)
async def test_sync_async_and_parallel_tools_all_answer(agent_run, script, calls):
    asked = [(name, {"a": a, "b": 10}) for name, a in calls]
    ran = await agent_run(adder, "go", script.tool_then("done", *asked))
    assert tool_messages(ran.requests[1]) == [str(a + 10) for _, a in calls]


async def test_the_text_beside_tool_calls_comes_back_with_them(agent_run, script):
    def policy(request):
        if tool_messages(request):
            return script.say("done")
        return script.call(("add", {"a": 1, "b": 2}), content="I will add.")

    ran = await agent_run(adder, "go", policy)
    assert ran.requests[1].messages[2].content == "I will add."


async def test_an_error_in_a_tool_is_shown_to_the_policy(agent_run, script):
    ran = await agent_run(adder, "go", script.tool_then("oh", ("fail", {"a": 7})))
    assert tool_messages(ran.requests[1]) == ["no 7"]
    assert last_text(ran.result) == "oh"


async def test_arguments_that_are_no_json_are_answered_by_the_framework(agent_run, script):
    def policy(request):
        if tool_messages(request):
            return script.say("sorry")
        bad = ToolCall("call_0", "add", '{"a": 1,')
        return Completion(ChatMessage("assistant", None, (bad,)), "tool_calls")

    ran = await agent_run(adder, "go", policy)
    assert tool_messages(ran.requests[1])[0].startswith("Error: Expecting property name")


async def test_a_reply_in_which_no_call_could_be_read_is_a_text(agent_run):
    def policy(request):
        return Completion(ChatMessage("assistant", "<tool_call>{oops"), parse_error="no JSON object")

    ran = await agent_run(adder, "go", policy)
    assert last_text(ran.result) == "<tool_call>{oops"


async def test_several_rounds_of_tools_are_one_conversation(agent_run, script):
    def build(llm):
        return AssistantAgent("writer", llm, tools=[add], max_tool_iterations=5)

    def policy(request):
        done = len(tool_messages(request))
        return script.say("three rounds") if done == 3 else script.call(("add", {"a": done, "b": 1}))

    ran = await agent_run(build, "count", policy)
    assert last_text(ran.result) == "three rounds"
    assert tool_messages(ran.requests[-1]) == ["1", "2", "3"]


async def test_structured_output_asks_for_the_schema_and_arrives_as_its_type(agent_run, script):
    def build(llm):
        return AssistantAgent("writer", llm, output_content_type=Answer)

    ran = await agent_run(build, "2 + 2?", lambda request: script.say('{"number": 4}'))
    assert ran.result.messages[-1].content == Answer(number=4)
    asked = ran.requests[0].response_format
    assert (asked["type"], asked["json_schema"]["name"]) == ("json_schema", "Answer")


async def test_structured_output_that_does_not_fit_fails_the_run_as_the_agents(agent_run, script):
    def build(llm):
        return AssistantAgent("writer", llm, output_content_type=Answer)

    ran = await agent_run(build, "2 + 2?", lambda request: script.say("four"))
    assert ran.end.origin == "agent"
    assert ran.end.error.startswith("ValidationError: 1 validation error for Answer")


async def test_consumers_of_streams_get_the_text_and_then_the_result(agent_run, script):
    def build(llm):
        async def ask(question: str) -> list[str]:
            agent = AssistantAgent(
                "writer", llm, tools=[add], model_client_stream=True, max_tool_iterations=2
            )
            return [
                event.content
                async for event in agent.run_stream(task=question)
                if isinstance(event, ModelClientStreamingChunkEvent)
            ]

        return ask

    ran = await agent_run(build, "hi", script.tool_then("hello there", ("add", {"a": 1, "b": 2})))
    assert ran.result == ["hello there"]
    assert [request.role for request in ran.requests] == ["writer", "writer"]


class Shouting(Workbench):
    """A workbench of the user's own: no AutoGen tool behind it."""

    component_type = "workbench"

    async def list_tools(self):
        return [
            {"name": "shout", "description": "Shouts.", "parameters": {"type": "object", "properties": {}}}
        ]

    async def call_tool(self, name, arguments=None, cancellation_token=None, call_id=None):
        raybolt.emit("shouted")
        return ToolResult(name=name, result=[TextResultContent(content="AH")], is_error=False)

    async def start(self): ...
    async def stop(self): ...
    async def reset(self): ...
    async def save_state(self):
        return {}

    async def load_state(self, state): ...


async def test_tools_of_a_workbench_are_offered_run_and_recorded(agent_run, script):
    def build(llm):
        tools = StaticWorkbench([FunctionTool(add, description="Adds.")])
        return AssistantAgent("writer", llm, workbench=[tools, Shouting()], reflect_on_tool_use=True)

    policy = script.tool_then("done", ("add", {"a": 1, "b": 2}), ("shout", {}))
    ran = await agent_run(build, "go", policy)
    assert [spec.name for spec in ran.requests[0].tools] == ["add", "shout"]
    assert tool_messages(ran.requests[1]) == ["3", "AH"]
    assert ran.span("execute_tool add").attributes["gen_ai.tool.call.result"] == "3"
    assert ran.parent_name(ran.span("shouted")) == "execute_tool shout"


class Falling(Shouting):
    """A workbench that raises, which AutoGen does not expect."""

    async def call_tool(self, name, arguments=None, cancellation_token=None, call_id=None):
        raise OSError("fell")


async def test_a_workbench_that_raises_fails_the_run_where_autogen_would_wait_for_ever(agent_run, script):
    def build(llm):
        return AssistantAgent("writer", llm, workbench=Falling())

    ran = await agent_run(build, "go", script.tool_then("done", ("shout", {})), framework="autogen")
    assert ran.end.error == "OSError: fell"
    assert ran.span("execute_tool shout").status_message == "OSError: fell"


async def test_memory_and_model_contexts_of_the_agent_shape_its_requests(agent_run, script):
    async def build(llm):
        memory = ListMemory()
        await memory.add(MemoryContent(content="it rains", mime_type="text/plain"))
        return AssistantAgent(
            "writer", llm, memory=[memory], model_context=BufferedChatCompletionContext(buffer_size=2)
        )

    ran = await agent_run(build, "weather?", lambda request: script.say("rain"), framework="autogen")
    assert "it rains" in ran.requests[0].messages[-1].content


async def test_a_context_that_counts_tokens_can_ask_the_policys_client(agent_run, script):
    def build(llm):
        context = TokenLimitedChatCompletionContext(llm, token_limit=3)
        return AssistantAgent("writer", llm, system_message=None, model_context=context)

    ran = await agent_run(build, "four", lambda request: script.say("ok"))
    assert [message.content for message in ran.requests[0].messages] == ["four"]


async def test_the_client_alone_can_be_called_by_a_function(agent_run, script):
    def build(llm: ChatCompletionClient):
        async def ask(question: str):
            from autogen_core.models import UserMessage

            result = await llm.create(
                [UserMessage(content=question, source="user")],
                json_output=True,
                extra_create_args={"temperature": 0.5, "max_tokens": 9, "stop": "."},
            )
            return result.content, llm.total_usage().completion_tokens

        return ask

    ran = await agent_run(build, "hi", lambda request: script.say("{}"))
    (request,) = ran.requests
    assert ran.result == ("{}", 0)
    assert request.response_format == {"type": "json_object"}
    assert (request.temperature, request.max_tokens, request.stop) == (0.5, 9, (".",))
    assert request.role == "agent"


async def test_on_messages_is_an_entry_too_and_knows_the_role(agent_run, script):
    def build(llm):
        async def ask(question: str) -> str:
            agent = AssistantAgent("writer", llm)
            message = TextMessage(content=question, source="user")
            return (await agent.on_messages([message], CancellationToken())).chat_message.content

        return ask

    ran = await agent_run(build, "hi", lambda request: script.say("hello"))
    assert ran.result == "hello"
    assert ran.requests[0].role == "writer"
    assert ran.parent_name(ran.span("chat writer")) == "agent writer"


async def test_the_users_own_client_beside_the_factorys_stays_his(agent_run, script):
    judge = ReplayChatCompletionClient(["good"])

    def build(llm):
        async def answer(question: str) -> str:
            drafts = await AssistantAgent("writer", llm).run(task=question)
            verdict = await AssistantAgent("judge", judge).run(task="?")
            return f"{last_text(drafts)} {last_text(verdict)}"

        return answer

    ran = await agent_run(build, "hi", lambda request: script.say("hello"))
    assert ran.result == "hello good"
    assert len(ran.requests) == 1


async def test_thirty_two_runs_of_a_factory_never_see_one_another(agent_run, script):
    def policy(request):
        question = next(message.content for message in request.messages if message.role == "user")
        return script.tool_then(f"answer {question}", ("add", {"a": int(question), "b": 0}))(request)

    agent = raybolt.wrap(adder)
    runs = await asyncio.gather(*(agent_run(agent, str(k), policy, delay_s=0.005) for k in range(32)))
    for k, ran in enumerate(runs):
        assert last_text(ran.result) == f"answer {k}"
        assert ran.span("execute_tool add").attributes["gen_ai.tool.call.result"] == str(k)
        assert sorted(span.name for span in ran.spans) == [
            "agent writer",
            "chat writer",
            "chat writer",
            "execute_tool add",
            "invoke_agent agent",
        ]
    assert active_patches() == []


async def test_blocking_tools_of_many_runs_do_not_starve_one_another(agent_run, script):
    num_runs = 24
    arrived = threading.Barrier(num_runs, timeout=20)

    def build(llm):
        def meet() -> str:
            """Waits for the other runs."""
            arrived.wait()
            return "met"

        return AssistantAgent("writer", llm, tools=[meet], reflect_on_tool_use=True)

    agent = raybolt.wrap(build)
    policy = script.tool_then("done", ("meet", {}))
    runs = await asyncio.gather(*(agent_run(agent, "go", policy) for _ in range(num_runs)))
    assert {last_text(ran.result) for ran in runs} == {"done"}


MESSAGE = {"type": "TextMessage", "source": "ann", "content": "hi"}


@pytest.mark.parametrize("task_input", [MESSAGE, [MESSAGE], {"task": [MESSAGE]}])
async def test_messages_written_down_are_a_task_too(agent_run, script, task_input):
    ran = await agent_run(adder, task_input, lambda request: script.say("hello"))
    assert ran.requests[0].messages[-1] == ChatMessage("user", "hi", name="ann")


async def test_an_input_that_is_no_message_says_what_an_agent_takes(agent_run, script):
    ran = await agent_run(adder, {"question": "1 + 2?"}, lambda request: script.say("3"))
    assert ran.end.error == (
        "InvalidValue: task 'task': an AutoGen agent takes a text, or messages such as "
        "{'type': 'TextMessage', 'source': 'user', 'content': …}, but the task's input is ['question']; pass "
        "wrap(…, inputs=function_of_the_task) to make one from the other"
    )


async def test_inputs_makes_what_the_agent_runs_on(agent_run, script):
    ran = await agent_run(
        adder,
        {"question": "1 + 2?"},
        lambda request: script.say("3"),
        inputs=lambda task: TextMessage(content=task.input["question"], source="user"),
    )
    assert ran.requests[0].messages[-1].content == "1 + 2?"


async def test_without_training_the_agent_runs_on_the_users_client():
    agent = raybolt.wrap(lambda llm: AssistantAgent("writer", llm))
    task = raybolt.Task("t", "hi")
    assert last_text(await agent.arun(task, ReplayChatCompletionClient(["hello"]))) == "hello"


async def test_a_built_agent_without_training_remembers_nothing_between_runs():
    client = ReplayChatCompletionClient(["one", "two"])
    agent = raybolt.wrap(AssistantAgent("writer", client))
    for expected in ("one", "two"):
        assert last_text(await agent.arun(raybolt.Task("t", "hi"))) == expected
    assert [len(call["messages"]) for call in client.create_calls] == [2, 2]


def test_what_has_no_run_is_refused_with_what_is_taken():
    with pytest.raises(raybolt.UnsupportedAgent, match=r"has no run\(task=…\); pass a function build\(llm\)"):
        raybolt.wrap(ReplayChatCompletionClient(["x"]))


def test_a_function_of_a_question_is_no_factory():
    def answer(question):
        return AssistantAgent("writer", question)

    with pytest.raises(raybolt.UnsupportedAgent, match="A function that answers questions itself"):
        raybolt.wrap(answer, framework="autogen")


async def test_a_factory_that_returns_something_else_says_what_was_expected(agent_run, script):
    ran = await agent_run(lambda llm: 3, "hi", lambda request: script.say("x"), framework="autogen")
    assert ran.end.error.endswith("the factory returned int (3); expected an agent, a team or a function")


def test_copies_of_the_policys_client_are_the_client():
    import copy

    client = PolicyClient.of(None)
    assert copy.deepcopy([client]) == [client]
