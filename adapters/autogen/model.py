"""The policy as an AutoGen model client."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from autogen_core import CancellationToken
from autogen_core.models import (
    ChatCompletionClient,
    CreateResult,
    LLMMessage,
    ModelFamily,
    ModelInfo,
    RequestUsage,
)
from autogen_core.tools import Tool, ToolSchema

from raybolt.adapters.autogen.answers import answer, answer_stream
from raybolt.adapters.autogen.messages import messages_from_autogen
from raybolt.env.policy import PolicyPort

_CHARACTERS_PER_TOKEN = 4  # a client knows no tokenizer, and AutoGen counts only to shorten histories


class PolicyClient(ChatCompletionClient):
    """The model client that a factory `build(llm)` is given: every call of it is one step of the run.

    A stream is the whole text in one piece, then the result. Copies share the run.
    """

    component_type = "model"

    def __init__(self, port: PolicyPort, frozen: ChatCompletionClient | None = None) -> None:
        self._port = port
        self._frozen = frozen
        self._usage = RequestUsage(prompt_tokens=0, completion_tokens=0)

    @classmethod
    def of(cls, port: PolicyPort, frozen: ChatCompletionClient | None = None) -> PolicyClient:
        """A client whose calls go to `port`; those that the policy does not take are `frozen`'s, if given."""
        return cls(port, frozen)

    async def create(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = (),
        tool_choice: Any = "auto",
        json_output: Any = None,
        extra_create_args: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
    ) -> CreateResult:
        """One reply; what it needs beyond AutoGen's own rules, `extra_create_args` says in OpenAI's names."""
        options = {
            "tools": tools,
            "tool_choice": tool_choice,
            "json_output": json_output,
            "extra_create_args": extra_create_args or {},
            "cancellation_token": cancellation_token,
        }
        result = await answer(self._port, self._frozen, messages, options)
        self._count(result)
        return result

    async def create_stream(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = (),
        tool_choice: Any = "auto",
        json_output: Any = None,
        extra_create_args: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
    ) -> AsyncGenerator[str | CreateResult, None]:
        options = {
            "tools": tools,
            "tool_choice": tool_choice,
            "json_output": json_output,
            "extra_create_args": extra_create_args or {},
            "cancellation_token": cancellation_token,
        }
        async for chunk in answer_stream(self._port, self._frozen, messages, options):
            if isinstance(chunk, CreateResult):
                self._count(chunk)
            yield chunk

    async def close(self) -> None:
        """Nothing: the run is not the client's."""

    def actual_usage(self) -> RequestUsage:
        return self._usage

    def total_usage(self) -> RequestUsage:
        return self._usage

    def count_tokens(self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()) -> int:
        """A guess from the length of the texts."""
        texts = (message.content or "" for message in messages_from_autogen(messages))
        return sum(len(text) for text in texts) // _CHARACTERS_PER_TOKEN

    def remaining_tokens(
        self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()
    ) -> int:
        """As good as unlimited: how much a policy can read is settled where it is stepped."""
        return sys.maxsize

    @property
    def model_info(self) -> ModelInfo:
        return ModelInfo(
            vision=False,
            function_calling=True,
            json_output=True,
            structured_output=True,
            family=ModelFamily.UNKNOWN,
            multiple_system_messages=False,
        )

    @property
    def capabilities(self) -> Any:
        return self.model_info

    def __deepcopy__(self, memo: dict[int, Any]) -> PolicyClient:
        return self

    def _count(self, result: CreateResult) -> None:
        self._usage = RequestUsage(
            self._usage.prompt_tokens + result.usage.prompt_tokens,
            self._usage.completion_tokens + result.usage.completion_tokens,
        )
