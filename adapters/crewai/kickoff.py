"""Kick a crew, an agent or a Flow off on a task."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from crewai import Crew
from crewai.flow.flow import Flow
from crewai.types.streaming import StreamingOutputBase, StreamSession
from pydantic import BaseModel

from raybolt.env.task import Task
from raybolt.store.errors import InvalidValue

_PLACEHOLDER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")  # as CrewAI fills them; other braces are text
_REMEDY = "or pass wrap(…, inputs=function_of_the_task)"


def result_of_kickoff(agent: Any, given: Any) -> Any:
    """What `agent.kickoff(given)` gives; of a streaming agent, what it has once the stream has ended."""
    result = agent.kickoff(given)
    if not isinstance(result, StreamingOutputBase | StreamSession):
        return result
    for _ in result:
        pass
    return result.result


def kickoff_argument(agent: Any, task: Task) -> Any:
    """The argument of `agent.kickoff`.

    A mapping is the inputs of a crew or a Flow. A text fills a crew's only placeholder, or a Flow's only
    field of state (of a state without fields, "input"). An agent by itself takes a text or a list of
    messages.

    Raises:
        InvalidValue: the input has no place in the agent.
    """
    given = task.input
    if isinstance(agent, Crew):
        return _crew_inputs(agent, task, given)
    if isinstance(agent, Flow):
        return _flow_inputs(agent, task, given)
    if isinstance(given, str | list):
        return given
    raise InvalidValue(
        f"task {task.task_id!r}: an agent by itself takes a text or a list of messages, but the task's input "
        f"is {_kind(given)}; give tasks such inputs, {_REMEDY}"
    )


def _crew_inputs(crew: Crew, task: Task, given: Any) -> Mapping[str, Any]:
    if isinstance(given, Mapping):
        return given
    wanted = sorted(name for name in crew.fetch_inputs() if _PLACEHOLDER.fullmatch(name))
    if isinstance(given, str) and len(wanted) == 1:
        return {wanted[0]: given}
    if wanted:
        raise InvalidValue(
            f"task {task.task_id!r}: the crew's placeholders are {', '.join(wanted)}, but the task's input "
            f"is {_kind(given)}; give tasks an object with these keys, {_REMEDY}"
        )
    raise InvalidValue(
        f"task {task.task_id!r}: the crew has no placeholder, so the task's input ({_kind(given)}) would "
        f"reach none of its agents; write one into a task's description, such as {{question}}, {_REMEDY}"
    )


def _flow_inputs(flow: Flow[Any], task: Task, given: Any) -> Mapping[str, Any]:
    if isinstance(given, Mapping):
        return given
    state = flow.state
    fields = set(type(state).model_fields) - {"id"} if isinstance(state, BaseModel) else {"input"}
    if isinstance(given, str) and len(fields) == 1:
        return {fields.pop(): given}
    raise InvalidValue(
        f"task {task.task_id!r}: the Flow's state has the fields {', '.join(sorted(fields))}, but the task's "
        f"input is {_kind(given)}; give tasks an object with fields of the state, {_REMEDY}"
    )


def _kind(given: Any) -> str:
    return "a text" if isinstance(given, str) else type(given).__name__
