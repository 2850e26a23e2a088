"""raybolt: train any LLM agent with reinforcement learning, without changing the agent.

The public names below are imported when first used, so `import raybolt` loads neither Ray nor torch nor any
agent framework.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raybolt.adapters.command.agents import command, external
    from raybolt.adapters.endpoint.upstream import Upstream
    from raybolt.adapters.trace import trace
    from raybolt.adapters.wrap import UnsupportedAgent, WrappedAgent, wrap
    from raybolt.env.agent_env import AgentEnv
    from raybolt.env.demonstrate import demonstrate
    from raybolt.env.emit import emit, emit_exception, emit_message, emit_object, emit_reward, operation
    from raybolt.env.fork import fork
    from raybolt.env.limits import RunLimits
    from raybolt.env.replay import replay
    from raybolt.env.rereward import re_reward
    from raybolt.env.task import Task, load_tasks, write_tasks
    from raybolt.env.trace_data import demonstrations_from_traces
    from raybolt.env.trajectory import Call, Trajectory
    from raybolt.rl.policies import PolicySpec
    from raybolt.rl.recipes import SFT, LightningRL
    from raybolt.rl.results import EvalResult, FitResult, Progress
    from raybolt.rl.trainer import Trainer
    from raybolt.store.base import LightningStore
    from raybolt.store.errors import InvalidValue, RayboltError
    from raybolt.store.local import LocalStore
    from raybolt.store.ray_store import RayStore

__all__ = [
    "SFT",
    "AgentEnv",
    "Call",
    "EvalResult",
    "FitResult",
    "InvalidValue",
    "LightningRL",
    "LightningStore",
    "LocalStore",
    "PolicySpec",
    "Progress",
    "RayStore",
    "RayboltError",
    "RunLimits",
    "Task",
    "Trainer",
    "Trajectory",
    "UnsupportedAgent",
    "Upstream",
    "WrappedAgent",
    "__version__",
    "command",
    "demonstrate",
    "demonstrations_from_traces",
    "emit",
    "emit_exception",
    "emit_message",
    "emit_object",
    "emit_reward",
    "external",
    "fork",
    "load_tasks",
    "operation",
    "re_reward",
    "replay",
    "trace",
    "wrap",
    "write_tasks",
]

_HOMES = {
    "adapters.command.agents": ("command", "external"),
    "adapters.endpoint.upstream": ("Upstream",),
    "adapters.trace": ("trace",),
    "adapters.wrap": ("UnsupportedAgent", "WrappedAgent", "wrap"),
    "env.agent_env": ("AgentEnv",),
    "env.demonstrate": ("demonstrate",),
    "env.emit": ("emit", "emit_exception", "emit_message", "emit_object", "emit_reward", "operation"),
    "env.fork": ("fork",),
    "env.limits": ("RunLimits",),
    "env.replay": ("replay",),
    "env.rereward": ("re_reward",),
    "env.task": ("Task", "load_tasks", "write_tasks"),
    "env.trace_data": ("demonstrations_from_traces",),
    "env.trajectory": ("Call", "Trajectory"),
    "rl.policies": ("PolicySpec",),
    "rl.recipes": ("SFT", "LightningRL"),
    "rl.results": ("EvalResult", "FitResult", "Progress"),
    "rl.trainer": ("Trainer",),
    "store.base": ("LightningStore",),
    "store.errors": ("InvalidValue", "RayboltError"),
    "store.local": ("LocalStore",),
    "store.ray_store": ("RayStore",),
}
_MODULE_OF = {name: f"raybolt.{module}" for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name, or the version, on first use and keep it."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("raybolt")
    elif name in _MODULE_OF:
        value = getattr(import_module(_MODULE_OF[name]), name)
    else:
        raise AttributeError(f"module 'raybolt' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
