"""`raybolt.wrap`: one call that makes an agent of any supported framework trainable."""

from __future__ import annotations

import importlib
from typing import Any

from raybolt.adapters.base import Adapter, Inputs, UnsupportedAgent, describe
from raybolt.adapters.evidence import takes_llm
from raybolt.adapters.wrapped import WrappedAgent
from raybolt.env.limits import RunLimits
from raybolt.env.run import RewardFunction
from raybolt.env.selection import Trainable, check_trainable
from raybolt.store.errors import InvalidValue

__all__ = ["UnsupportedAgent", "WrappedAgent", "wrap"]

# In the order in which they are asked; the plain one takes whatever function is left.
_ADAPTERS = {
    "langchain": "raybolt.adapters.langchain.adapter:LangChainAdapter",
    "autogen": "raybolt.adapters.autogen.adapter:AutoGenAdapter",
    "crewai": "raybolt.adapters.crewai.adapter:CrewAIAdapter",
    "openai-agents": "raybolt.adapters.openai_agents.adapter:OpenAIAgentsAdapter",
    "agentscope": "raybolt.adapters.agentscope.adapter:AgentScopeAdapter",
    "command": "raybolt.adapters.command.adapter:CommandAdapter",
    "python": "raybolt.adapters.openai_python.adapter:PythonAdapter",
}


def wrap(
    agent: Any,
    *,
    reward: RewardFunction | None = None,
    name: str | None = None,
    limits: RunLimits | None = None,
    inputs: Inputs | None = None,
    framework: str | Adapter | None = None,
    trainable: Trainable = None,
    frozen: Any = None,
) -> WrappedAgent:
    """The agent, ready to be stepped, trained or simply run; its own code stays as it is.

    Args:
        agent: A factory `build(llm) -> agent` (best: every run has its own objects), a built agent, or a
            plain function of the task's input. The framework is told from its type, its first parameter's
            name and annotation, and the libraries its code names.
        reward: `reward(task, result, trajectory) -> number`, sync or async. Without it, a number that the
            agent returns, or what it gives `raybolt.emit_reward`.
        name: What to call the agent; by default the framework's name for it, or the function's.
        limits: LLM calls and seconds that one run may take.
        inputs: Makes what the agent is called with from a `Task`; by default the task's input, by the
            conventions in docs/adapters.md.
        framework: "langchain", "autogen", …, where it cannot be told from the agent; or an adapter of your
            own.
        trainable: Whose LLM calls the policy answers and learns from: roles or patterns of them
            (["writer", "critic*"]), or a function of the `ChatRequest`; by default every call. The other
            calls go to the agent's own models and are recorded as part of the environment.
        frozen: For a factory, the LLM that answers the calls which are not trainable, in the framework's own
            type. Without it the policy answers them, too, but does not learn from them.

    Raises:
        InvalidValue: An option is none; the message says what was expected.
        UnsupportedAgent: No adapter can run it; the message lists what can be wrapped.
    """
    _check_callable("reward", reward)
    _check_callable("inputs", inputs)
    check_trainable(trainable)
    if frozen is not None and trainable is None:
        raise InvalidValue(
            "wrap(frozen=…) answers the calls that are not trainable, but all are; say which are: "
            "wrap(…, trainable=['writer'])"
        )
    adapter = _adapter_for(agent, framework)
    adapter.check(agent)
    return WrappedAgent(
        agent=agent,
        adapter=adapter,
        name=name or adapter.default_name(agent),
        reward=reward,
        limits=limits or RunLimits(),
        inputs=inputs,
        trainable=trainable,
        frozen=frozen,
    )


def _adapter_for(agent: Any, framework: str | Adapter | None) -> Adapter:
    if isinstance(framework, Adapter):
        return framework
    if framework is not None:
        if framework not in _ADAPTERS:
            raise UnsupportedAgent(f"framework={framework!r} is not supported; expected one of {_names()}")
        return _load(framework)
    adapters = [_load(name) for name in _ADAPTERS]
    for adapter in adapters:
        if adapter.detect(agent):
            return adapter
    for adapter in adapters:
        if adapter.suspect(agent):
            return adapter
    supported = "\n".join(
        f"  {name}: {adapter.supports}" for name, adapter in zip(_ADAPTERS, adapters, strict=True)
    )
    hint = ""
    if takes_llm(agent):
        hint = "; it looks like a factory, so say of which framework: wrap(…, framework='langchain'), say"
    raise UnsupportedAgent(f"cannot wrap {describe(agent)}{hint}. What can be wrapped:\n{supported}")


def _load(name: str) -> Adapter:
    module, _, cls = _ADAPTERS[name].partition(":")
    adapter: Adapter = getattr(importlib.import_module(module), cls)()
    return adapter


def _names() -> str:
    return ", ".join(repr(name) for name in _ADAPTERS)


def _check_callable(option: str, value: Any) -> None:
    if value is not None and not callable(value):
        raise InvalidValue(f"wrap({option}=…) is {describe(value)}; expected a function")
