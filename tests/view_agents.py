"""Small two-role agents for the environment views and their checks."""

from __future__ import annotations

import asyncio
from typing import Any

from raybolt.env.chat import ChatMessage, ChatRequest
from raybolt.env.context import entering
from raybolt.env.emit import emit_reward
from raybolt.env.policy import PolicyPort
from raybolt.env.task import Task

TASKS = [Task(f"t{number}", f"Say {number}.") for number in range(20)]


def asking(role: str, text: str | None) -> ChatRequest:
    return ChatRequest((ChatMessage("user", text or "nothing"),), role=role)


async def writer_and_critic(task: Task, policy: PolicyPort) -> float:
    """The writer drafts, which is worth 0.5, and the critic has the last word, which is worth 1."""
    draft = await policy.complete(asking("writer", task.input))
    emit_reward(0.5)
    await policy.complete(asking("critic", draft.message.content))
    return 1.0


async def three_at_once(task: Task, policy: PolicyPort) -> float:
    """Two calls of the writer and one of the critic, at the same time."""
    roles_and_texts = [("writer", "first"), ("critic", "second"), ("writer", "third")]
    replies = await asyncio.gather(*(policy.complete(asking(*each)) for each in roles_and_texts))
    return float(len(replies))


async def fails_at_once(task: Task, policy: PolicyPort) -> float:
    raise RuntimeError("no key")


async def fails_late(task: Task, policy: PolicyPort) -> float:
    await policy.complete(asking("writer", task.input))
    emit_reward(7.0)
    raise RuntimeError("boom")


async def only_the_critic(task: Task, policy: PolicyPort) -> float:
    await policy.complete(asking("critic", "anything?"))
    return 2.0


async def critic_of_its_own(task: Task, policy: PolicyPort) -> float:
    """The writer is the policy's if it takes that; the critic has a model of its own."""
    draft = await policy.complete(asking("writer", task.input))
    request = asking("critic", draft.message.content)
    assert not policy.takes(request)
    with policy.observe(request) as seen:
        seen.reply(ChatMessage("assistant", f"my own view of {draft.message.content}"), model="own-1")
    return 1.0


def duo(text: str) -> str | None:
    """Writer and critic through the unchanged OpenAI client."""
    import openai

    with openai.OpenAI(api_key="none", base_url="http://127.0.0.1:9/v1", max_retries=0) as client:
        reply: Any = None
        for role in ("writer", "critic"):
            with entering(role=role):
                messages: Any = [{"role": "user", "content": text}]
                reply = client.chat.completions.create(model="policy", messages=messages, max_tokens=12)
                text = reply.choices[0].message.content or "nothing"
        return text
