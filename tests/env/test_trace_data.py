"""Traces of an agent on its own LLM, turned into demonstrations for a model of ours."""

from store_samples import make_span

from raybolt.env.trace_data import demonstrations_from_traces
from raybolt.store import LocalStore, names


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def chat_span(attempt, number, messages, reply):
    attributes = {
        names.OPERATION: names.CHAT,
        names.AGENT_NAME: "agent",
        names.CALL_ID: number,
        names.TRAINABLE: False,
        names.INPUT_MESSAGES: messages,
        names.OUTPUT_MESSAGES: [assistant(reply)],
    }
    return make_span(attempt, number, **attributes)


async def trace(store, *replies, metadata):
    """A conversation of so many replies, as a rollout that succeeded."""
    started = await store.start_rollout("x", metadata=metadata)
    messages = []
    for number, reply in enumerate(replies, 1):
        messages = [*messages, user(f"question {number}")]
        await store.add_span(chat_span(started.attempt, number, messages, reply))
        messages = [*messages, assistant(reply.strip())]
    await store.update_attempt(started.rollout_id, "latest", status="succeeded")
    return started.rollout_id


async def test_only_what_was_traced_becomes_a_demonstration_and_no_demonstration_becomes_another(codec):
    store = LocalStore(None)
    traced = await trace(store, "hello", metadata={"traced": True})
    await trace(store, "hello", metadata={})
    for _ in range(2):
        made = await demonstrations_from_traces(store, store, codec=codec)
        (rollout_id,) = made.rollout_ids
        rollout = await store.get_rollout_by_id(rollout_id)
        assert rollout.metadata == {"traced_rollout_id": traced}


async def test_a_later_prompt_goes_on_from_the_tokens_of_the_call_before(codec):
    """Also where the agent has trimmed the reply that it sends back."""
    store = LocalStore(None)
    await trace(store, " hello ", "bye", metadata={"traced": True})
    made = await demonstrations_from_traces(store, store, codec=codec)
    first, second = await store.query_spans(made.rollout_ids[0])
    before = [*first.attributes[names.PROMPT_IDS], *first.attributes[names.RESPONSE_IDS]]
    assert list(second.attributes[names.PROMPT_IDS][: len(before)]) == before
    assert len(second.attributes[names.PROMPT_IDS]) > len(before)
