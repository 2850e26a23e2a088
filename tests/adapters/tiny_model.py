"""Play an episode of an agent on the real tiny model."""

from __future__ import annotations

import raybolt
from raybolt.env.policy import Sampled
from raybolt.rl.engines.base import GenerateRequest
from raybolt.rl.engines.transformers import TransformersEngine


async def episode(
    env: raybolt.AgentEnv,
    engine: TransformersEngine,
    task: raybolt.Task,
    *,
    max_new_tokens: int = 24,
    temperature: float = 0.0,
) -> raybolt.Trajectory:
    """What a successful run left, every call sampled by the engine under weights version 3."""
    observations, _ = await env.areset(task)
    while env.end is None:
        actions = {}
        for agent_id, prompt_ids in observations.items():
            request = GenerateRequest(
                prompt_ids=prompt_ids,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                seed=7,
                stop_ids=env.codec.stop_ids,
            )
            generation = await engine.generate(request)
            actions[agent_id] = Sampled(generation.response_ids, generation.logprobs, 3, temperature)
        observations, *_ = await env.astep(actions)
    assert not env.end.failed, env.end
    return env.trajectory
