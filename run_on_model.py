"""A program run once, its LLM calls answered by a model: what `raybolt run --model` does."""

from __future__ import annotations

import asyncio
from pathlib import Path

from raybolt.env.codec import ChatCodec, codec_for
from raybolt.env.limits import RunLimits
from raybolt.env.models import resolve_model
from raybolt.env.policy import AgentProgram, RunEnd, Sampled
from raybolt.env.recorder import SpanRecorder
from raybolt.env.report import report
from raybolt.env.run import AgentRun
from raybolt.env.stepper import Prompt, RunStepper
from raybolt.env.task import Task
from raybolt.rl.checkpoint import load_causal_lm
from raybolt.rl.engines.base import Engine, GenerateRequest
from raybolt.rl.engines.transformers import TransformersEngine
from raybolt.rl.errors import EngineError
from raybolt.store.local import LocalStore
from raybolt.store.patience import ROOM_SECONDS

_NO_LIMITS = RunLimits(max_calls=1_000_000, max_seconds=30 * 24 * 3600.0)
_MAX_NEW_TOKENS = 512  # for a request that names no bound of its own


async def answered(
    program: AgentProgram, task: Task, folder: Path, *, model: str, seed: int
) -> tuple[SpanRecorder, str | None]:
    """What one run recorded, by then a rollout of the store in `folder`, and its error if it failed."""
    codec = codec_for(model)
    engine = TransformersEngine(load_causal_lm(resolve_model(model).path).eval())
    try:
        async with LocalStore(folder) as store:
            started = await store.start_rollout(task.input, metadata={"command": True, "model": model})
            rollout_id, attempt_id = started.rollout_id, started.attempt.attempt_id
            recorder = SpanRecorder(rollout_id, attempt_id)
            run = AgentRun(program, task, recorder=recorder, limits=_NO_LIMITS, require_reward=False)
            try:
                end = await _step(RunStepper(run, codec), codec, engine, seed)
            finally:  # Ctrl-C, too, leaves what was recorded until then
                limit_seconds = ROOM_SECONDS if run.end else 0.0  # who interrupts will not wait for room
                end = run.end or await run.abort("interrupted", "raybolt")
                outcome = await report(
                    store, rollout_id, attempt_id, recorder.drain(), end.to_metadata(),
                    limit_seconds=limit_seconds,
                )  # fmt: skip
            return recorder, outcome.get("error")
    finally:
        engine.close()


async def _step(stepper: RunStepper, codec: ChatCodec, engine: Engine, seed: int) -> RunEnd:
    """Answers every call by the engine."""
    num_calls = 0
    while not isinstance(prompts := await stepper.next(), RunEnd):
        replies = [_reply(prompt, codec, engine, seed + num_calls + i) for i, prompt in enumerate(prompts)]
        num_calls += len(prompts)
        answers = await asyncio.gather(*replies, return_exceptions=True)
        for prompt, answer in zip(prompts, answers, strict=True):
            if isinstance(answer, Sampled):
                stepper.act({prompt.call.call_id: answer})
            elif isinstance(answer, EngineError):
                stepper.run.fail(prompt.call.call_id, answer)
            else:
                raise answer
    return prompts


async def _reply(prompt: Prompt, codec: ChatCodec, engine: Engine, seed: int) -> Sampled:
    asked = prompt.call.request
    temperature = 1.0 if asked.temperature is None else asked.temperature
    room = codec.max_context - len(prompt.prompt_ids)
    generation = await engine.generate(
        GenerateRequest(
            prompt_ids=prompt.prompt_ids,
            max_new_tokens=min(asked.max_tokens or _MAX_NEW_TOKENS, room),
            temperature=temperature,
            seed=seed,
            stop_ids=codec.stop_ids,
        )
    )
    return Sampled(generation.response_ids, generation.logprobs, generation.weights_version, temperature)
