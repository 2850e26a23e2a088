"""Questions on SQL databases: a generated world and Spider, a LangChain agent that answers, its reward.

The world's tasks come from `raybolt.benchmarks.sql.generate.generate`.
"""

from importlib import import_module
from typing import Any

__all__ = ["SqlTasks", "build_agent", "execution_match", "load_spider", "score", "teacher"]

# Imported on first use: the agent needs LangChain, which nothing else here does.
_HOMES = {
    "SqlTasks": "generate",
    "build_agent": "agent",
    "execution_match": "metric",
    "load_spider": "spider",
    "score": "reward",
    "teacher": "demos",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
