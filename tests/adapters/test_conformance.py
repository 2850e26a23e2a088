"""The shipped conformance checks, on the real package of every framework and every way to bring an agent."""

import importlib

import pytest

from raybolt.adapters.check import CHECKS, AgentKit, NotOffered

KITS = {
    "langchain": ("langchain", "kits.langchain_kit"),
    "autogen": ("autogen_agentchat", "kits.autogen_kit"),
    "crewai": ("crewai", "kits.crewai_kit"),
    "openai-agents": ("agents", "kits.openai_agents_kit"),
    "agentscope": ("agentscope", "kits.agentscope_kit"),
    "python": ("openai", "kits.python_kit"),
}
"""Framework -> its package, and the module of its kit."""

CASES = [
    pytest.param(framework, check, way, id=f"{framework}-{check.name}-{way}")
    for framework in KITS
    for check in CHECKS
    for way in check.ways
]


def kit_of(framework: str) -> AgentKit:
    package, module = KITS[framework]
    pytest.importorskip(package)
    kits = [
        value
        for value in vars(importlib.import_module(module)).values()
        if isinstance(value, type) and issubclass(value, AgentKit) and value.__module__ == module
    ]
    (kit,) = kits
    return kit()


@pytest.mark.parametrize(("framework", "check", "way"), CASES)
async def test_the_adapter_keeps_the_rule(framework, check, way):
    kit = kit_of(framework)
    if way not in kit.ways:
        pytest.skip(f"agents of {framework} are not brought as {way}")
    try:
        await check.run(kit, way)
    except NotOffered as reason:
        pytest.skip(f"not offered: {reason}")
