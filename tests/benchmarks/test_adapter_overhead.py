"""What the overhead script compares does the same work on both sides."""

import pytest

from raybolt.benchmarks.perf._agents import SIDES
from raybolt.benchmarks.perf.adapter_overhead import measure, per_call, through_raybolt

PACKAGES = {
    "langchain": "langchain",
    "autogen": "autogen_agentchat",
    "crewai": "crewai",
    "openai-agents": "agents",
    "agentscope": "agentscope",
    "python": "openai",
}


@pytest.mark.parametrize("side", SIDES, ids=lambda side: side.name)
async def test_a_frameworks_agent_makes_as_many_calls_natively_as_through_raybolt(side, monkeypatch):
    pytest.importorskip(PACKAGES[side.name])
    tool_uses = []

    def run_sql(query: str) -> str:
        """Run a SQLite query and see its rows."""
        tool_uses.append(query)
        return "3"

    monkeypatch.setattr("raybolt.benchmarks.perf._agents.run_sql", run_sql)
    agent = side()
    await agent.native(3)
    natively = len(tool_uses)
    await through_raybolt(agent, 3)()  # raises if the calls are not three
    assert len(tool_uses) - natively == natively == (0 if side.name == "python" else 2)


async def test_the_figures_of_a_framework_are_complete():
    (python,) = [side for side in SIDES if side.name == "python"]
    figures = await measure(python(), num_runs=2)
    assert figures["native_long_run_ms"] > 0
    assert len(figures) == 8


def test_the_aim_is_a_millisecond_or_five_percent_whichever_is_more():
    quick = {"native_long_run_ms": 10.0, "added_long_run_ms": 5.0}
    slow = {"native_long_run_ms": 500.0, "added_long_run_ms": 25.5}
    assert per_call(quick) == (2.0, 1.0, True)
    assert per_call(quick | {"added_long_run_ms": 5.5})[2] is False
    assert per_call(slow)[2] is False
    assert per_call(slow | {"added_long_run_ms": 25.0})[2] is True
