"""Roles whose models differ: each call in the tokens of its own role's model."""

from __future__ import annotations

import numpy as np
import pytest
from scripted_runs import TASK, Program, new_run, say

from raybolt.env.agent_env import AgentEnv
from raybolt.env.chat import ChatMessage, ChatRequest
from raybolt.env.errors import RoleWithoutPolicy
from raybolt.env.policy import RunEnd, Sampled
from raybolt.env.roles import free_agent_id, role_of
from raybolt.env.stepper import RunStepper
from raybolt.store.errors import InvalidValue

USER = ChatMessage("user", "hello")


async def writer_then_critic(task, policy):
    """The critic goes on from the writer's own conversation."""
    written = await policy.complete(ChatRequest((USER,), role="writer"))
    review = ChatRequest((USER, written.message, ChatMessage("user", "good?")), role="critic")
    read = await policy.complete(review)
    again = ChatRequest((*review.messages, read.message, USER), role="critic")
    await policy.complete(again)
    return 1.0


async def stepped(stepper: RunStepper, reply: list[int], **sampled: object) -> RunEnd | list:
    """Answers every call with `reply` to the end; the prompts, by role."""
    prompts: list = []
    while not isinstance(pending := await stepper.next(), RunEnd):
        prompts += pending
        ids = np.array(reply, np.int32)
        stepper.act(
            {p.call.call_id: Sampled(ids, np.zeros(len(ids), np.float32), **sampled) for p in pending}
        )
    assert not pending.failed, pending
    return prompts


async def test_tokens_of_one_tokenizer_never_enter_the_prompts_of_another(make_codec, templates):
    codecs = {"writer": make_codec(), "critic": make_codec(templates["llama2"])}
    # Two tokens that tokenising their text would make one of: reused they stay, read again they do not.
    reply = [*codecs["writer"].tokenizer.encode("na"), *codecs["writer"].tokenizer.encode("me")]
    assert len(codecs["writer"].tokenizer.encode("name")) < len(reply)
    stepper = RunStepper(new_run(writer_then_critic), lambda role: codecs[role])

    written, read, again = await stepped(stepper, reply)

    first = codecs["critic"].tokenizer.decode(read.prompt_ids)
    assert first == "[user] hello [/] name <|im_end|>[user] good? [/]"
    assert str(reply)[1:-1] not in str(read.prompt_ids.tolist())
    assert [written.drift, read.drift, again.drift] == [None, None, None]
    assert again.prompt_ids.tolist()[: len(read.prompt_ids) + len(reply)] == [*read.prompt_ids, *reply]


async def test_roles_with_one_tokenizer_reuse_each_others_tokens(make_codec):
    codec = make_codec()
    reply = [*codec.tokenizer.encode("na"), *codec.tokenizer.encode("me"), codec.end_id]
    stepper = RunStepper(new_run(writer_then_critic), lambda role: codec)

    written, read, _ = await stepped(stepper, reply)

    assert read.prompt_ids.tolist()[: len(written.prompt_ids) + len(reply)] == [*written.prompt_ids, *reply]


async def test_spans_and_calls_name_the_policy_that_spoke(codec):
    run = new_run(writer_then_critic)
    await stepped(RunStepper(run, codec), [5], policy="large")

    assert [call.policy for call in run.trajectory.calls] == ["large"] * 3


async def test_without_policies_no_span_names_one(codec):
    run = new_run(writer_then_critic)
    await stepped(RunStepper(run, codec), [5])

    assert [call.policy for call in run.trajectory.calls] == [None] * 3
    assert not any("raybolt.policy" in span.attributes for span in run.recorder.spans)


async def test_a_role_for_which_there_is_no_policy_fails_the_run_and_says_so(codec):
    def codec_of(role):
        if role == "critic":
            raise RoleWithoutPolicy("no policy answers the role 'critic'")
        return codec

    env = AgentEnv(Program(writer_then_critic), codec=codec_of)
    observations, _ = await env.areset(TASK)
    assert list(observations) == ["writer"]
    observations, rewards, _, truncateds, infos = await env.astep({"writer": say("hi")})

    assert (observations, rewards, truncateds["__all__"]) == ({}, {}, True)
    assert infos["__common__"]["origin"] == "raybolt"
    assert infos["__common__"]["error"] == "RoleWithoutPolicy: no policy answers the role 'critic'"


def test_each_agent_has_the_space_of_its_roles_model(make_codec):
    codecs = {"writer": make_codec(max_context=100), "critic": make_codec(max_context=200)}
    env = AgentEnv(Program(writer_then_critic), codec=codecs.__getitem__)

    assert env.get_observation_space("writer#2").max_length == 100
    assert env.get_action_space("critic").max_length == 200
    assert env.get_action_space("critic") is env.get_action_space("critic#1")
    with pytest.raises(InvalidValue, match=r"env\.codecs\(role\)"):
        _ = env.space


@pytest.mark.parametrize(
    ("agent_id", "role"), [("writer", "writer"), ("writer#12", "writer"), ("C#", "C#"), ("a#1#2", "a#1")]
)
def test_an_agent_id_is_a_role_with_or_without_a_number(agent_id, role):
    assert role_of(agent_id) == role


def test_the_smallest_free_number_is_taken():
    assert free_agent_id("critic", ()) == "critic"
    assert free_agent_id("critic", {"critic", "critic#2"}) == "critic#1"
