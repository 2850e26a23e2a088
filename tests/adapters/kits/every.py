"""The kits of all adapters, loaded with their frameworks only when they are asked for."""

import importlib

import pytest

from raybolt.adapters.check import AgentKit

KITS = {
    "langchain": ("langchain", "kits.langchain_kit"),
    "autogen": ("autogen_agentchat", "kits.autogen_kit"),
    "crewai": ("crewai", "kits.crewai_kit"),
    "openai-agents": ("agents", "kits.openai_agents_kit"),
    "agentscope": ("agentscope", "kits.agentscope_kit"),
    "python": ("openai", "kits.python_kit"),
}
"""Framework -> its package, and the module of its kit."""


def kit_of(framework: str) -> AgentKit:
    """A framework's kit; skips the test where the framework is not installed."""
    package, module = KITS[framework]
    pytest.importorskip(package)
    (kit,) = (
        value
        for value in vars(importlib.import_module(module)).values()
        if isinstance(value, type) and issubclass(value, AgentKit) and value.__module__ == module
    )
    return kit()
