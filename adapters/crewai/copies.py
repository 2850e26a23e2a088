"""A copy of a built crew, agent or Flow for one run, since none of them can do two runs at once."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Sequence
from typing import Any, TypeVar

from crewai import Crew, Task
from crewai.agents.agent_builder.base_agent import BaseAgent
from crewai.flow.flow import Flow
from crewai.llms.base_llm import BaseLLM
from crewai.tools import BaseTool

T = TypeVar("T")

_AGENT_TEXTS = ("role", "goal", "backstory")
_TASK_TEXTS = ("description", "expected_output", "output_file")


def own_copy(agent: T) -> T:
    """The agent as it was before its first run, with state of its own; models and tools are shared.

    Tools that count their uses are copied, too. What is no crew, agent or Flow comes back as it is.
    """
    if isinstance(agent, Crew):
        return _copied_crew(agent)  # type: ignore[return-value]
    if isinstance(agent, BaseAgent):
        return _copied_agent(agent)  # type: ignore[return-value]
    if isinstance(agent, Flow):
        return _copied_flow(agent)  # type: ignore[return-value]
    return agent


def _copied_crew(crew: Crew) -> Crew:
    """`Crew.copy`, put right: it keeps the texts of the last run, and finds agents by role alone."""
    own = crew.copy()
    agents: dict[int, BaseAgent] = {}
    for agent, own_agent in zip(crew.agents, own.agents, strict=True):
        agents[id(agent)] = _made_own(agent, own_agent)
    tasks = {id(task): own_task for task, own_task in zip(crew.tasks, own.tasks, strict=True)}
    for task, own_task in zip(crew.tasks, own.tasks, strict=True):
        _restore(task, own_task, _TASK_TEXTS)
        own_task.tools = _own_tools(own_task.tools)
        if task.agent is not None:
            if id(task.agent) not in agents:  # a task may have an agent that the crew does not list
                agents[id(task.agent)] = _copied_agent(task.agent)
            own_task.agent = agents[id(task.agent)]
        if isinstance(task.context, list):
            own_task.context = [tasks.get(id(other), other) for other in task.context]
    if crew.manager_llm is not None:
        own.manager_agent = None  # one from an earlier run would delegate to the original's agents
        own.manager_llm = _own_model(own.manager_llm)
    elif crew.manager_agent is not None and own.manager_agent is not None:
        _made_own(crew.manager_agent, own.manager_agent)
    return own


def _copied_agent(agent: BaseAgent) -> BaseAgent:
    return _made_own(agent, agent.copy())


def _made_own(agent: BaseAgent, own: BaseAgent) -> BaseAgent:
    """`own`, a fresh copy of `agent` by CrewAI, without what the two still share."""
    _restore(agent, own, _AGENT_TEXTS)
    own.tools = _own_tools(own.tools)
    own.llm = _own_model(own.llm)
    return own


def _restore(source: BaseAgent | Task, own: Any, texts: Sequence[str]) -> None:
    """The texts as their author wrote them: a run has filled in their placeholders."""
    for name in texts:
        original = getattr(source, f"_original_{name}")
        if original is not None:
            setattr(own, name, original)


def _own_model(llm: Any) -> Any:
    """A model that counts its own tokens; whatever it holds (clients, say) is shared."""
    if not isinstance(llm, BaseLLM):
        return llm
    own = copy.copy(llm)
    own._token_usage = dict.fromkeys(llm._token_usage, 0)
    return own


def _own_tools(tools: list[Any] | None) -> list[Any] | None:
    if tools is None:
        return None
    return [_own_tool(tool) for tool in tools]


def _own_tool(tool: Any) -> Any:
    counts = isinstance(tool, BaseTool) and tool.max_usage_count is not None
    return tool.model_copy() if counts else tool


def _copied_flow(flow: Flow[Any]) -> Flow[Any]:
    """A Flow as after its construction, with copies of the crews, agents and containers put on it."""
    own = flow.model_copy()
    for name, value in vars(flow).items():
        if name not in type(flow).model_fields:
            object.__setattr__(own, name, _own_value(value))
    own.human_feedback_history = []
    for name, attribute in type(flow).__private_attributes__.items():
        if name != "_definition":  # the only one without a default
            setattr(own, name, attribute.get_default())
    if not flow._completed_methods:  # it has not run yet: its state is what its author has made it
        own._state = _new_state(flow._state)
    object.__setattr__(own, "_flow_post_init_done", False)
    own._flow_post_init(flow._definition if type(flow) is Flow else None)
    return own


def _new_state(state: Any) -> Any:
    new = copy.deepcopy(state)
    if isinstance(new, dict):
        new["id"] = str(uuid.uuid4())
    else:
        new.id = str(uuid.uuid4())
    return new


def _own_value(value: Any) -> Any:
    if isinstance(value, Crew | BaseAgent | Flow):
        return own_copy(value)
    if isinstance(value, dict):
        return {key: _own_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return type(value)(_own_value(item) for item in value)
    return _own_model(value)  # anything else is its author's, and shared
