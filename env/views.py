"""The views of an agent's run that other libraries take, made from the agent."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from raybolt.env.agent import Agent
from raybolt.env.codec import codec_for
from raybolt.env.gym_view import GymView, Others
from raybolt.env.padded_env import PaddedAgentEnv, roles_in_a_dry_run
from raybolt.store.errors import InvalidValue

if TYPE_CHECKING:
    from raybolt.env.parallel_view import ParallelView


def padded_env(
    agent: Agent,
    model: str,
    *,
    possible_agents: Sequence[str] | None = None,
    max_tokens: int | None = None,
    max_new_tokens: int = 64,
    **options: Any,
) -> PaddedAgentEnv:
    """The agent's environment with fixed shapes, for the roles given or found in a dry run."""
    env = agent.env(model, **_with_codec(model, max_tokens, options))
    roles = roles_in_a_dry_run(env) if possible_agents is None else possible_agents
    return PaddedAgentEnv(env, roles, max_new_tokens=max_new_tokens)


def gym_view(
    agent: Agent,
    model: str,
    role: str | None,
    others: Others | None,
    max_tokens: int | None,
    max_new_tokens: int,
    **options: Any,
) -> GymView:
    """The agent's single-agent environment.

    Raises:
        InvalidValue: `others` without `role`, when no call is theirs.
    """
    if others is not None and role is None:
        raise InvalidValue("others answers the calls of all roles but one: say which, gym_env(role=…)")
    if role is not None:
        # Given a function for them, the other calls must not go to the agent's own models.
        options["trainable"] = None if others is not None else [role]
    env = agent.env(model, **_with_codec(model, max_tokens, options))
    return GymView(env, role=role, others=others, max_new_tokens=max_new_tokens)


def parallel_view(env: PaddedAgentEnv) -> ParallelView:
    """The PettingZoo environment over a padded one.

    Raises:
        InvalidValue: PettingZoo is not installed.
    """
    if importlib.util.find_spec("pettingzoo") is None:
        raise InvalidValue("parallel_env needs PettingZoo: pip install 'raybolt[pettingzoo]'")
    from raybolt.env.parallel_view import ParallelView

    return ParallelView(env)


def _with_codec(model: str, max_tokens: int | None, options: dict[str, Any]) -> dict[str, Any]:
    # A longer prompt than can be padded ends its run as one longer than the model's context does.
    if max_tokens is None:
        return options
    if max_tokens < 1:
        raise InvalidValue(f"max_tokens is {max_tokens}; expected 1 or more, or None for the model's context")
    return {"codec": codec_for(model, context=max_tokens + 1), **options}
