"""Agents on their own LLM, traced into a store, and what is learned from the traces."""

import asyncio
import logging
from collections.abc import Iterator

import pytest
from openai import AsyncOpenAI, OpenAI

import raybolt
from raybolt.adapters.check.server import ModelServer
from raybolt.adapters.patching import active_patches
from raybolt.env.codec import codec_for
from raybolt.store import LocalStore, names
from raybolt.store.blocking import blocking
from raybolt.store.errors import InvalidValue, StoreError


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer().serving() as server:
        yield server


def ask(server: ModelServer, question: str, **options) -> str:
    with OpenAI(api_key="unused", base_url=server.url, max_retries=0) as client:
        messages = [{"role": "user", "content": question}]
        reply = client.chat.completions.create(model="gpt-5", messages=messages, **options)
        return reply.choices[0].message.content


def read(store: LocalStore):
    """The rollouts of a store, each with its last attempt and its spans."""
    return [
        (
            rollout,
            blocking(store.get_latest_attempt(rollout.rollout_id)),
            blocking(store.query_spans(rollout.rollout_id)),
        )
        for rollout in blocking(store.query_rollouts())
    ]


def test_a_block_becomes_a_rollout_with_its_calls_and_what_the_code_emits(server, tmp_path):
    with raybolt.trace(tmp_path, name="answerer", input={"question": "why?"}, task_id="t-1") as run:
        with raybolt.operation("think"):
            assert ask(server, "why?") == "own reply 1"
        raybolt.emit_reward(0.5)
        assert [call.reply.content for call in run.trajectory.calls] == ["own reply 1"]
    assert active_patches() == []
    store = LocalStore(tmp_path)
    ((rollout, attempt, spans),) = read(store)
    assert (rollout.rollout_id, rollout.input, rollout.task_id) == (
        run.rollout_id,
        {"question": "why?"},
        "t-1",
    )
    assert (rollout.status, attempt.metadata) == ("succeeded", {"num_calls": 1, "reward": 0.5})
    by_name = {span.name: span for span in spans}
    chat = by_name["chat answerer"]
    assert chat.parent_id == by_name["think"].span_id
    assert by_name["think"].parent_id == by_name["invoke_agent answerer"].span_id
    assert chat.attributes[names.REQUEST_MODEL] == "gpt-5"
    assert chat.attributes[names.INPUT_MESSAGES] == [{"role": "user", "content": "why?"}]
    assert chat.attributes[names.OUTPUT_MESSAGES] == [{"role": "assistant", "content": "own reply 1"}]
    assert (chat.attributes[names.INPUT_TOKENS], chat.attributes[names.OUTPUT_TOKENS]) == (11, 5)
    assert names.PROMPT_IDS not in chat.attributes
    blocking(store.close())


def test_what_traced_code_came_to_is_kept_and_can_be_judged_later(server, tmp_path):
    @raybolt.trace(tmp_path, task_id="t-1")
    def answer(question):
        return {"said": ask(server, question)}

    @raybolt.trace(tmp_path, task_id="t-2")
    async def strange(question):
        return {question}

    assert answer("why?") == {"said": "own reply 1"}
    assert asyncio.run(strange("who?")) == {"who?"}
    with raybolt.trace(tmp_path, input="how?") as run:
        run.result = ["so", 1]
    with raybolt.trace(tmp_path):
        pass
    with pytest.raises(ZeroDivisionError), raybolt.trace(tmp_path) as run:
        run.result = 1 / 0
    store = LocalStore(tmp_path)
    roots = [next(span for span in spans if span.parent_id is None).attributes for _, _, spans in read(store)]
    assert [root.get(names.RESULT) for root in roots] == [
        {"said": "own reply 1"},
        None,
        ["so", 1],
        None,
        None,
    ]
    assert roots[1][names.RESULT_MISSING] == (
        "it is, or holds, a value of type set, which JSON does not give back"
    )
    assert "as run`, assign it to run.result" in roots[3][names.RESULT_MISSING]
    made = blocking(raybolt.re_reward(store, lambda task, result, _: len(result) if task.input else 0))
    ids = [rollout.rollout_id for rollout, _, _ in read(store)]
    assert made.rewards == {ids[0]: 1.0, ids[2]: 2.0}
    assert list(made.errors) == [ids[1], ids[3]]
    blocking(store.close())


def test_a_traced_rollout_without_a_task_is_judged_under_its_own_id(server):
    async def judged():
        async with LocalStore(None) as store:
            async with raybolt.trace(store, input="q") as run:
                run.result = 3
            seen = []
            await raybolt.re_reward(store, lambda task, result, _: seen.append(task) or result)
            return seen == [raybolt.Task(run.rollout_id, "q")]

    assert asyncio.run(judged())


def test_outside_the_block_nothing_is_recorded(server, tmp_path):
    ask(server, "before")
    with raybolt.trace(tmp_path):
        ask(server, "inside")
    ask(server, "after")
    store = LocalStore(tmp_path)
    ((_, attempt, _),) = read(store)
    assert attempt.metadata["num_calls"] == 1
    blocking(store.close())


def test_an_exception_passes_and_fails_the_rollout(server, tmp_path):
    @raybolt.trace(tmp_path)
    def agent():
        ask(server, "one")
        return 1 / 0

    with pytest.raises(ZeroDivisionError):
        agent()
    store = LocalStore(tmp_path)
    ((rollout, attempt, spans),) = read(store)
    assert rollout.status == "failed"
    assert attempt.metadata == {
        "num_calls": 1,
        "error": "ZeroDivisionError: division by zero",
        "error_type": "ZeroDivisionError",
        "origin": "agent",
    }
    assert [span.status for span in spans] == ["error", "ok"]
    blocking(store.close())


def test_an_emitted_reward_that_is_no_number_fails_the_rollout_but_not_the_agent(server, tmp_path):
    with raybolt.trace(tmp_path):
        ask(server, "one")
        raybolt.emit_reward(float("nan"))
    store = LocalStore(tmp_path)
    ((rollout, attempt, _),) = read(store)
    assert (rollout.status, attempt.metadata["origin"]) == ("failed", "reward")
    assert attempt.metadata["error"] == "emit_reward: the reward is nan; expected a finite number"
    blocking(store.close())


def test_a_decorated_function_is_traced_on_every_call_with_its_arguments_as_input(server, tmp_path):
    @raybolt.trace(tmp_path)
    def answer(question):
        return ask(server, question)

    @raybolt.trace(tmp_path, name="comparer")
    def compare(first, second="b"):
        return ask(server, first + second)

    assert answer("why?") == "own reply 1"
    assert compare("a") == "own reply 2"
    store = LocalStore(tmp_path)
    (_, _, spans), (_, _, others) = found = read(store)
    assert [rollout.input for rollout, _, _ in found] == ["why?", {"first": "a", "second": "b"}]
    assert [span.name for span in spans] == ["invoke_agent answer", "chat answer"]
    assert [span.name for span in others] == ["invoke_agent comparer", "chat comparer"]
    blocking(store.close())


async def test_async_blocks_at_once_keep_their_calls_apart(server):
    store = LocalStore(None)

    @raybolt.trace(store)
    async def answer(word):
        async with AsyncOpenAI(api_key="unused", base_url=server.url, max_retries=0) as client:
            messages = [{"role": "user", "content": word}]
            stream = await client.chat.completions.create(model="m", messages=messages, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    words = [f"word-{number}" for number in range(12)]
    replies = await asyncio.gather(*map(answer, words))
    rollouts = await store.query_rollouts()
    assert sorted(rollout.input for rollout in rollouts) == sorted(words)
    for rollout in rollouts:
        _, chat = await store.query_spans(rollout.rollout_id)
        assert chat.attributes[names.INPUT_MESSAGES][0]["content"] == rollout.input
        assert chat.attributes[names.OUTPUT_MESSAGES][0]["content"] == replies[words.index(rollout.input)]
    assert active_patches() == []


async def test_blocking_code_that_the_agent_puts_into_the_loops_threads_is_traced(server):
    store = LocalStore(None)

    def tool():
        raybolt.emit("looked")

    async with raybolt.trace(store) as run:
        await asyncio.get_running_loop().run_in_executor(None, tool)
    assert [span.name for span in await store.query_spans(run.rollout_id)] == ["invoke_agent agent", "looked"]


async def test_a_plain_block_in_async_code_says_to_write_async_with():
    with pytest.raises(StoreError, match="write `async with raybolt"), raybolt.trace(LocalStore(None)):
        pass


def test_a_trace_without_calls_says_so(tmp_path, caplog):
    with caplog.at_level(logging.WARNING), raybolt.trace(tmp_path):
        pass
    assert "saw no LLM call" in caplog.text


def test_a_block_is_used_once(tmp_path):
    block = raybolt.trace(tmp_path)
    with block:
        raybolt.emit("x")
    with pytest.raises(InvalidValue, match="a trace records one block"), block:
        pass


def test_a_generator_is_refused(tmp_path):
    def stream():
        yield 1

    with pytest.raises(raybolt.UnsupportedAgent, match="is a generator"):
        raybolt.trace(tmp_path)(stream)


@pytest.mark.parametrize("value", [None, 7])
def test_what_is_no_store_is_refused(value):
    with pytest.raises(InvalidValue, match="expected a store or the folder of one"):
        raybolt.trace(value)


TOOL = {
    "type": "function",
    "function": {"name": "run_sql", "description": "d", "parameters": {"type": "object", "properties": {}}},
}


async def test_traces_become_demonstrations_with_the_tokens_of_our_model(server):
    store = LocalStore(None)

    @raybolt.trace(store)
    async def chat(question):
        async with AsyncOpenAI(api_key="unused", base_url=server.url, max_retries=0) as client:
            messages = [{"role": "user", "content": question}]
            for _ in range(2):
                reply = await client.chat.completions.create(model="m", messages=messages, tools=[TOOL])
                messages += [
                    {"role": "assistant", "content": reply.choices[0].message.content},
                    {"role": "user", "content": "and then?"},
                ]
        raybolt.emit_reward(len(question))

    await chat("short")
    await chat("much longer")
    codec = codec_for("tiny")
    made = await raybolt.demonstrations_from_traces(
        store, store, codec=codec, keep=lambda rollout, trajectory: trajectory.total_reward > 5
    )
    assert made.errors == {}
    (rollout,) = await store.query_rollouts(mode="demo")
    assert made.rollout_ids == (rollout.rollout_id,)
    assert (rollout.input, rollout.status) == ("much longer", "succeeded")
    spans = [s for s in await store.query_spans(rollout.rollout_id) if names.RESPONSE_IDS in s.attributes]
    first, second = (
        (span.attributes[names.PROMPT_IDS], span.attributes[names.RESPONSE_IDS]) for span in spans
    )
    text = codec.tokenizer.decode(first[0])
    assert "run_sql" in text
    assert "much longer" in text
    assert codec.tokenizer.decode(first[1][:-1]) == "own reply 3"
    assert int(first[1][-1]) == codec.end_id
    assert second[0][: len(first[0]) + len(first[1])].tolist() == [*first[0].tolist(), *first[1].tolist()]
    assert names.TRAINABLE not in spans[0].attributes
    groups = await store.query_groups()
    assert [group.status for group in groups] == ["complete"]


async def test_a_trace_that_does_not_fit_the_model_is_reported(server):
    store = LocalStore(None)
    client = AsyncOpenAI(api_key="unused", base_url=server.url, max_retries=0)
    async with raybolt.trace(store), client:
        messages = [{"role": "user", "content": "word " * 200}]
        await client.chat.completions.create(model="m", messages=messages)
    made = await raybolt.demonstrations_from_traces(store, store, codec=codec_for("tiny", context=64))
    (error,) = made.errors.values()
    assert error.startswith("ContextTooLong: ")
    (rollout,) = await store.query_rollouts(mode="demo")
    assert rollout.status == "failed"
