"""A run of an agent, turned into a reinforcement-learning environment.

`AgentEnv` is RLlib's multi-agent environment over `AgentRun`; `ChatCodec` stands between chat and tokens.
Everything is imported on first use: this room needs Ray for `AgentEnv` and Transformers for models only.
The emitters are public names of `raybolt` itself; `demonstrate` lives in `raybolt.env.demonstrate`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raybolt.env.agent_env import AgentEnv
    from raybolt.env.chat import ChatMessage, ChatRequest, Completion, ToolCall, ToolSpec
    from raybolt.env.check import check_env
    from raybolt.env.codec import ChatCodec, codec_for
    from raybolt.env.diagnosis import diagnose
    from raybolt.env.gym_view import GymView
    from raybolt.env.limits import RunLimits
    from raybolt.env.memory import CodecMemory
    from raybolt.env.models import resolve_model
    from raybolt.env.padded_env import PaddedAgentEnv
    from raybolt.env.policy import AgentProgram, PendingCall, PolicyAbort, PolicyPort, RunEnd, Sampled
    from raybolt.env.recorder import SpanRecorder
    from raybolt.env.run import AgentRun
    from raybolt.env.stepper import RunStepper
    from raybolt.env.task import Task, load_tasks, write_tasks
    from raybolt.env.trajectory import Call, Trajectory, trajectory_from_spans

__all__ = [
    "AgentEnv",
    "AgentProgram",
    "AgentRun",
    "Call",
    "ChatCodec",
    "ChatMessage",
    "ChatRequest",
    "CodecMemory",
    "Completion",
    "GymView",
    "PaddedAgentEnv",
    "PendingCall",
    "PolicyAbort",
    "PolicyPort",
    "RunEnd",
    "RunLimits",
    "RunStepper",
    "Sampled",
    "SpanRecorder",
    "Task",
    "ToolCall",
    "ToolSpec",
    "Trajectory",
    "check_env",
    "codec_for",
    "diagnose",
    "load_tasks",
    "resolve_model",
    "trajectory_from_spans",
    "write_tasks",
]

_HOMES = {
    "agent_env": ("AgentEnv",),
    "chat": ("ChatMessage", "ChatRequest", "Completion", "ToolCall", "ToolSpec"),
    "check": ("check_env",),
    "codec": ("ChatCodec", "codec_for"),
    "diagnosis": ("diagnose",),
    "gym_view": ("GymView",),
    "limits": ("RunLimits",),
    "memory": ("CodecMemory",),
    "models": ("resolve_model",),
    "padded_env": ("PaddedAgentEnv",),
    "policy": ("AgentProgram", "PendingCall", "PolicyAbort", "PolicyPort", "RunEnd", "Sampled"),
    "recorder": ("SpanRecorder",),
    "run": ("AgentRun",),
    "stepper": ("RunStepper",),
    "task": ("Task", "load_tasks", "write_tasks"),
    "trajectory": ("Call", "Trajectory", "trajectory_from_spans"),
}
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
