"""A small hand-made database, the generated world, and a chat model that follows a script."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from raybolt.benchmarks.sql.generate import SqlTasks, generate


@pytest.fixture(scope="session")
def clubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of three clubs, the last of which has no player."""
    path = tmp_path_factory.mktemp("clubs") / "clubs of #1?.sqlite"  # letters that a file URI must escape
    connection = sqlite3.connect(path)
    connection.executescript(
        """
        CREATE TABLE club (club_id INTEGER PRIMARY KEY, name TEXT, city TEXT);
        INSERT INTO club VALUES (1, 'Tiger', 'Rome'), (2, 'Falcon', 'Oslo'), (3, 'Lotus', 'Rome');
        CREATE TABLE player (player_id INTEGER PRIMARY KEY, name TEXT, age INTEGER, club_id INTEGER);
        INSERT INTO player VALUES (1, 'Ada', 30, 1), (2, 'Hugo', 20, 1);
        INSERT INTO player VALUES (3, 'Iris', 25, 2), (4, 'Ada', NULL, 2);
        """
    )
    connection.close()
    return path


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> SqlTasks:
    """The tasks of seed 0."""
    return generate(0, tmp_path_factory.mktemp("world"), num_train=360, num_val=36, num_held_out=240)


@pytest.fixture
def scripted() -> Callable[..., Any]:
    """Makes a LangChain chat model that answers with the given replies in turn.

    A reply is a text, or `{"query": …}` for a call of `run_sql`.
    """
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.outputs import ChatGeneration, ChatResult
    from langchain_core.runnables import Runnable

    class ScriptedModel(BaseChatModel):
        replies: tuple[Any, ...]

        @property
        def _llm_type(self) -> str:
            return "scripted"

        def bind_tools(self, tools: Sequence[Any], **_: Any) -> Runnable[Any, Any]:
            return self.bind()

        def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
            number = sum(message.type == "ai" for message in messages)
            reply = self.replies[number]
            if isinstance(reply, dict):
                call = {"name": "run_sql", "args": reply, "id": f"call_{number}", "type": "tool_call"}
                message = AIMessage("", tool_calls=[call])
            else:
                message = AIMessage(reply)
            return ChatResult(generations=[ChatGeneration(message=message)])

    return lambda *replies: ScriptedModel(replies=replies)
