"""What a tool gave in the run that is replayed, be the replay in this process or in the one it works for."""

from __future__ import annotations

from typing import Any

from raybolt.env.outside_tools import OutsideTools, outside_tools
from raybolt.env.recorded_tools import RecordedTools, ToolAnswer, recorded_tools


def replaying() -> bool:
    """Whether the present code belongs to a replay."""
    return _tools() is not None


def recorded_answer(name: str, arguments: Any, call_id: str | None = None) -> ToolAnswer | None:
    """What the tool answered to these arguments in the run that is replayed; None to run it."""
    tools = _tools()
    return None if tools is None else tools.take(name, arguments, call_id)


def _tools() -> RecordedTools | OutsideTools | None:
    return recorded_tools.get() or outside_tools()
