"""Agents that training tests wrap. A module of its own, since Ray's workers import them by name."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import raybolt
from raybolt.env.task import Task
from raybolt.env.trajectory import Trajectory


def short_talker(text: str) -> str | None:
    """One LLM call through the unchanged OpenAI client."""
    import openai

    client = openai.OpenAI(api_key="none", base_url="http://nobody.invalid/v1")
    messages: Any = [{"role": "user", "content": text}]
    reply = client.chat.completions.create(model="policy", messages=messages, max_tokens=12)
    return reply.choices[0].message.content


def evenness(task: Task, result: Any, trajectory: Trajectory) -> float:
    """The share of even token ids in the reply: meaningless, and learnt in a few updates."""
    return float((trajectory.calls[0].response_ids % 2 == 0).mean())


def never_works(text: str) -> str:
    """An agent with a bug."""
    raise KeyError("weather")


def sometimes_fails(text: str) -> str | None:
    """Fails on every task that says so."""
    if "fail" in text:
        raise ValueError("this task is cursed")
    return short_talker(text)


def kills_its_process_once(text: str) -> str | None:
    """Takes its whole process down, but only the first time, which a file remembers."""
    word, _, marker = text.partition("@")
    if word == "kill" and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return short_talker(word)


def writer_and_critic(text: str) -> str | None:
    """Two roles: one writes, one says something about it that changes nothing."""
    with raybolt.operation("write", role="writer-1"):
        written = short_talker(text)
    with raybolt.operation("read", role="critic"):
        short_talker(f"Is this good? {written}")
    return written


def writer_and_own_critic(text: str) -> str | None:
    """The same, but the critic has a server of its own, which a stand-in plays inside the process."""
    import httpx
    import openai

    with raybolt.operation("write", role="writer-1"):
        written = short_talker(text)
    with raybolt.operation("read", role="critic"):
        transport = httpx.MockTransport(_praise)
        client = openai.OpenAI(api_key="none", http_client=httpx.Client(transport=transport))
        messages: Any = [{"role": "user", "content": f"Is this good? {written}"}]
        reply = client.chat.completions.create(model="critic-9", messages=messages)
    assert reply.choices[0].message.content == "Very good."
    return written


def _praise(request: Any) -> Any:
    import httpx

    message = {"role": "assistant", "content": "Very good."}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "critic-9", "choices": [choice]}
    return httpx.Response(200, json=body, request=request)
