"""The public names are these and no others, and cost nothing until they are used."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import raybolt

PUBLIC = """
    AgentEnv Call EvalResult FitResult InvalidValue LightningRL LightningStore LocalStore PolicySpec Progress
    RayStore RayboltError RunLimits SFT Task Trainer Trajectory UnsupportedAgent Upstream WrappedAgent
    __version__ command demonstrate demonstrations_from_traces emit emit_exception emit_message
    emit_object emit_reward external fork load_tasks operation re_reward replay trace wrap write_tasks
"""
ROOMS = "adapters benchmarks benchmarks.sql env rl rl.credit rl.engines rl.losses store"
HEAVY = """
    ray torch transformers gymnasium pyarrow matplotlib typer rich langchain langchain_core langgraph openai
    httpx autogen_agentchat crewai agents agentscope
"""


def test_the_public_names_are_the_documented_ones():
    assert sorted(raybolt.__all__) == sorted(PUBLIC.split())


@pytest.mark.parametrize("name", PUBLIC.split())
def test_each_public_name_can_be_used(name):
    assert getattr(raybolt, name) is not None
    assert name in dir(raybolt)


@pytest.mark.parametrize("room", ROOMS.split())
def test_each_name_a_room_declares_exists(room):
    if room == "benchmarks.sql":
        pytest.importorskip("langchain", reason="the suite's agent is written in LangChain")
    module = importlib.import_module(f"raybolt.{room}")
    missing = [name for name in getattr(module, "__all__", ()) if not hasattr(module, name)]
    assert missing == []


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'raybolt' has no attribute 'wrapp'"):
        _ = raybolt.wrapp


@pytest.mark.parametrize("module", ["raybolt", "raybolt.store", "raybolt.cli", "raybolt.settings"])
def test_importing_loads_nothing_heavy(module):
    light = {"typer", "rich"} if module == "raybolt.cli" else set()
    code = f"import sys, {module}; print(*({set(HEAVY.split()) - light!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
