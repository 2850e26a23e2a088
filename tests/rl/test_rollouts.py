"""The crew that runs queued rollouts, with engines that say what they are told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scripted_runs import Program

from raybolt.env.agent_env import AgentEnv
from raybolt.env.chat import ChatMessage, ChatRequest
from raybolt.env.codec import codec_for
from raybolt.env.policy import PolicyPort
from raybolt.env.task import Task
from raybolt.env.trajectory import Call, trajectory_from_spans
from raybolt.rl.engines.base import Engine, GenerateRequest, Generation
from raybolt.rl.policies import Policies, PolicySpec
from raybolt.rl.recipes import LightningRL
from raybolt.rl.rollouts import RolloutCrew, Speaker
from raybolt.store import LocalStore

STOP = codec_for("tiny").stop_ids


class Says(Engine):
    """Gives the same reply to everything."""

    def __init__(self, text: str) -> None:
        self.reply = np.array([*codec_for("tiny").tokenizer.encode(text), STOP[0]], np.int32)
        self.stop_ids: list[tuple[int, ...]] = []

    async def generate(self, request: GenerateRequest) -> Generation:
        self.stop_ids.append(request.stop_ids)
        return Generation(self.reply, np.zeros(len(self.reply), np.float32), "stop", 3)

    def set_weights_version(self, version: int) -> None:
        """Weightless."""

    def close(self) -> None:
        """Nothing to close."""


async def two_writers_and_a_critic(task: Task, policy: PolicyPort) -> float:
    def asked(role: str) -> ChatRequest:
        return ChatRequest((ChatMessage("user", "hello"),), role=role)

    await asyncio.gather(policy.complete(asked("writer")), policy.complete(asked("writer")))
    await policy.complete(asked("critic"))
    return 1.0


async def run_one(
    speaker_of: Callable[[str], Speaker], codec: Any, **options: Any
) -> tuple[str, dict[str, Any], tuple[Call, ...]]:
    """Status and summary of one rollout of the agent above, and its calls."""
    async with LocalStore() as store:
        resources = await store.add_resources({"sampling": {"temperature": 1.0, "max_new_tokens": 4}})
        queued = await store.enqueue_rollout("hello", task_id="t", resources_id=resources.resources_id)
        crew = RolloutCrew(
            make_env=lambda: AgentEnv(Program(two_writers_and_a_critic), codec=codec, **options),
            store=store,
            speaker_of=speaker_of,
            concurrency=1,
            worker_id="test",
        )
        await crew.drain()
        (attempt,) = await store.get_latest_attempts([queued.rollout_id])
        assert attempt is not None
        spans = await store.query_spans(queued.rollout_id, "latest")
        calls = trajectory_from_spans(spans, rollout_id="", attempt_id="").calls
        return attempt.status, attempt.metadata, calls


async def test_each_role_is_answered_by_its_policys_engine_and_the_spans_say_so() -> None:
    policies = Policies.of(
        LightningRL(policies={"w": PolicySpec(roles=["writer*"]), "c": PolicySpec(roles=["critic"])})
    )
    engines = {"w": Says("name"), "c": Says("city")}

    def speaker_of(role: str) -> Speaker:
        policy_id = policies.of_role(role)
        return Speaker(engines[policy_id], STOP, policy_id)

    status, _, calls = await run_one(speaker_of, policies.codec_of)

    assert status == "succeeded"
    said = [(call.role, call.policy, call.reply.content, call.weights_version) for call in calls]
    assert said == [("writer", "w", "name", 3), ("writer", "w", "name", 3), ("critic", "c", "city", 3)]
    assert engines["w"].stop_ids == [STOP, STOP]


async def test_the_shared_policy_answers_all_roles_and_no_span_names_it() -> None:
    speaker = Speaker(Says("name"), STOP)

    status, _, calls = await run_one(lambda role: speaker, codec_for("tiny"))

    assert status == "succeeded"
    assert [(call.role, call.policy) for call in calls] == [
        ("writer", None),
        ("writer", None),
        ("critic", None),
    ]


async def test_a_role_without_a_policy_fails_the_rollout_and_says_what_to_do() -> None:
    policies = Policies.of(LightningRL(policies={"w": PolicySpec(roles=["writer"])}))
    speaker = Speaker(Says("name"), STOP, "w")

    status, summary, _ = await run_one(lambda role: speaker, policies.codec_of)

    assert (status, summary["origin"]) == ("failed", "raybolt")
    assert summary["error"].startswith("RoleWithoutPolicy: no policy answers the role 'critic' (the recipe's")
    assert "add it to the roles of a PolicySpec" in summary["error"]


@pytest.mark.parametrize(("trainable", "learned"), [(None, [True] * 3), (["critic"], [False, False, True])])
async def test_calls_that_are_not_selected_are_answered_but_marked(
    trainable: Any, learned: list[bool]
) -> None:
    # This agent has no model of its own to leave them to.
    speaker = Speaker(Says("name"), STOP)

    status, _, calls = await run_one(lambda role: speaker, codec_for("tiny"), trainable=trainable)

    assert status == "succeeded"
    assert [call.trainable for call in calls] == learned
    assert all(call.has_tokens for call in calls)
