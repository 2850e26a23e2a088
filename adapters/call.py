"""Call an agent that is a plain function (or any callable), sync or async, on a task."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from raybolt.adapters.base import Inputs
from raybolt.adapters.evidence import required_parameters
from raybolt.env.executor import run_in_thread
from raybolt.env.task import Task
from raybolt.store.errors import InvalidValue


async def call_on_task(function: Callable[..., Any], task: Task, inputs: Inputs | None) -> Any:
    """The function's result; a blocking function runs in a thread of its own, in a copy of this context.

    With `inputs`, the function gets `inputs(task)`. Otherwise: a parameter named `task` (or typed `Task`)
    gets the task; a single parameter gets the task's input; several get the input's fields by name.
    """
    arguments, keywords = ((inputs(task),), {}) if inputs else _arguments(function, task)
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        return await function(*arguments, **keywords)
    result = await run_in_thread(function, *arguments, **keywords)
    return await result if inspect.isawaitable(result) else result


def _arguments(function: Callable[..., Any], task: Task) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    parameters = required_parameters(function)
    if len(parameters) > 1:
        return (), _fields([parameter.name for parameter in parameters], task)
    wants_task = parameters and (parameters[0].name == "task" or parameters[0].annotation in (Task, "Task"))
    return (task if wants_task else task.input,), {}


def _fields(names: list[str], task: Task) -> Mapping[str, Any]:
    if not isinstance(task.input, Mapping) or not set(names) <= set(task.input):
        given = sorted(task.input) if isinstance(task.input, Mapping) else type(task.input).__name__
        raise InvalidValue(
            f"task {task.task_id!r}: the agent takes {', '.join(names)}, but the task's input is {given}; "
            "give tasks an input object with these keys, or pass wrap(…, inputs=function_of_the_task)"
        )
    return {name: task.input[name] for name in names}
