"""Answer the LLM calls of code that names no policy itself.

Code that was handed a policy model (`build(llm)`) calls it directly. All other code goes on using its own
clients; while a run is on, guarded patches ask `captured_policy` whether their caller belongs to it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar

from raybolt.env.chat import ChatRequest
from raybolt.env.context import DEFAULT_ROLE, current_run
from raybolt.env.observed import ObservedCall
from raybolt.env.policy import PolicyPort

captured_policy: ContextVar[PolicyPort | None] = ContextVar("raybolt_captured_policy", default=None)
"""None: LLM calls go where the agent sends them."""

# Every chat client that speaks OpenAI's protocol ends up in an HTTP library, which costs little to import; a
# framework's own patch sees more (roles, tools, clients of other providers) and is used once it is loaded.
_ALWAYS = {
    "httpx": "raybolt.adapters.openai_python.transport",
    "httpx2": "raybolt.adapters.openai_python.transport",  # openai 3 moved to it
}
_IF_LOADED = {
    "langchain_core": "raybolt.adapters.langchain.capture",
    "autogen_agentchat": "raybolt.adapters.autogen.capture",
    "crewai": "raybolt.adapters.crewai.capture",
    "agents": "raybolt.adapters.openai_agents.capture",
    "agentscope": "raybolt.adapters.agentscope.capture",
}
FRAMEWORK_LIBRARIES = frozenset(_IF_LOADED)


@contextmanager
def captured_by(policy: PolicyPort) -> Iterator[None]:
    """LLM calls made in this context, and in tasks and threads that inherit it, are `policy`'s."""
    token = captured_policy.set(policy)
    try:
        with ExitStack() as stack:
            for library, module in _patches():
                stack.enter_context(importlib.import_module(module).capture(library))
            yield
    finally:
        captured_policy.reset(token)


def capture_of(library: str) -> AbstractContextManager[None]:
    """What the framework in this package does for captured runs: one of `FRAMEWORK_LIBRARIES`."""
    capture: AbstractContextManager[None] = importlib.import_module(_IF_LOADED[library]).capture(library)
    return capture


@contextmanager
def own_call(policy: PolicyPort, request: ChatRequest) -> Iterator[ObservedCall]:
    """The agent's own model answers in this block; what it does underneath is not captured once more.

    Raises PolicyAbort: the run is over.
    """
    with policy.observe(request) as call:
        token = captured_policy.set(None)
        try:
            yield call
        finally:
            captured_policy.reset(token)


def _patches() -> Iterator[tuple[str, str]]:
    for library, module in _ALWAYS.items():
        if library in sys.modules or importlib.util.find_spec(library) is not None:
            yield library, module
    for library, module in _IF_LOADED.items():
        if library in sys.modules:
            yield library, module


def current_role() -> str:
    """The role of the code that runs here, for calls about which the framework says nothing."""
    context = current_run.get()
    return DEFAULT_ROLE if context is None else context.role
