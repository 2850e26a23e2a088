"""Tokens per second of TransformersEngine, against `model.generate` on the same prompts.

    python -m raybolt.benchmarks.perf.engine_throughput --concurrency 16 48 96 --threads 1

Measured: K requests in flight at all times, of 8 rollouts per task, each a first call and a second one that
extends it (what an agent with one tool call does), under random weights of the tiny model's shape, so that
replies end at their length and the work is the same for both sides. `generate` gets each call's prompts
as left-padded batches of K, which is as good as it can do without knowing what the calls share.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import transformers

from raybolt.rl.engines import GenerateRequest, TransformersEngine

ROLLOUTS_PER_TASK = 8
TOOL_RESULT_TOKENS = 25


@dataclass(frozen=True)
class Throughput:
    """Sampled tokens per second, of the clock and of CPU time, and the step time of a full batch.

    On a machine that others use too, only CPU time says something about the code.
    """

    concurrency: int
    engine_tokens_per_s: float
    engine_tokens_per_cpu_s: float
    generate_tokens_per_s: float
    generate_tokens_per_cpu_s: float
    decode_step_ms: float


class Stopwatch:
    """Seconds of a `with` block: by the clock, and of CPU time in all threads of this process."""

    clock_s: float
    cpu_s: float

    def __enter__(self) -> Stopwatch:
        self._started = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *exception: object) -> None:
        clock, cpu = self._started
        self.clock_s, self.cpu_s = time.perf_counter() - clock, time.process_time() - cpu


def build_model() -> Any:
    """A Llama of 1.1 M parameters with random weights."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=2048,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    return transformers.LlamaForCausalLM(config).eval()


def task_prompts(num_tasks: int, prompt_tokens: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Prompts around `prompt_tokens` long, every one `ROLLOUTS_PER_TASK` times in a row."""
    lengths = rng.integers(prompt_tokens * 4 // 5, prompt_tokens * 6 // 5, num_tasks)
    return [
        prompt
        for length in lengths
        for prompt in [rng.integers(1, 2048, length).astype(np.int32)] * ROLLOUTS_PER_TASK
    ]


async def run_engine(
    engine: TransformersEngine, prompts: list[np.ndarray], concurrency: int, reply_tokens: int
) -> tuple[int, list[np.ndarray]]:
    """Number of tokens sampled by two-call agents, `concurrency` at once, and the second calls' prompts."""
    seats = asyncio.Semaphore(concurrency)
    second_prompts: list[np.ndarray] = []

    async def agent(seed: int) -> int:
        async with seats:
            first = await engine.generate(GenerateRequest(prompts[seed], reply_tokens, seed=seed))
            tool_result = np.random.default_rng(seed).integers(1, 2048, TOOL_RESULT_TOKENS).astype(np.int32)
            second_prompt = np.concatenate([prompts[seed], first.response_ids, tool_result])
            second_prompts.append(second_prompt)
            second = await engine.generate(GenerateRequest(second_prompt, reply_tokens, seed=seed))
            return len(first.response_ids) + len(second.response_ids)

    counts = await asyncio.gather(*(agent(seed) for seed in range(len(prompts))))
    return sum(counts), second_prompts


def run_generate(model: Any, prompts: list[np.ndarray], concurrency: int, reply_tokens: int) -> int:
    """Number of tokens that `generate` samples for `prompts`, in left-padded batches of `concurrency`."""
    num_tokens = 0
    for start in range(0, len(prompts), concurrency):
        batch = prompts[start : start + concurrency]
        width = max(map(len, batch))
        ids = torch.zeros(len(batch), width, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(batch):
            ids[row, width - len(prompt) :] = torch.from_numpy(prompt)
            mask[row, width - len(prompt) :] = 1
        with torch.inference_mode():
            model.generate(
                ids,
                attention_mask=mask,
                do_sample=True,
                top_k=0,
                min_new_tokens=reply_tokens,
                max_new_tokens=reply_tokens,
            )
        num_tokens += len(batch) * reply_tokens
    return num_tokens


def decode_step_ms(model: Any, concurrency: int, prompt_tokens: int, reply_tokens: int) -> float:
    """Milliseconds of one decode step of a full batch, prefill left out."""

    async def run() -> float:
        engine = TransformersEngine(model, max_batch=concurrency)
        prompt = np.arange(1, prompt_tokens + 1, dtype=np.int32)

        async def seconds(num_tokens: int) -> float:
            start = time.perf_counter()
            await asyncio.gather(
                *(engine.generate(GenerateRequest(prompt, num_tokens, seed=s)) for s in range(concurrency))
            )
            return time.perf_counter() - start

        await seconds(1)
        difference = await seconds(1 + reply_tokens) - await seconds(1)
        engine.close()
        return 1000 * difference / reply_tokens

    return asyncio.run(run())


def measure(
    model: Any, *, concurrency: int, num_tasks: int, prompt_tokens: int, reply_tokens: int, seed: int
) -> Throughput:
    prompts = task_prompts(num_tasks, prompt_tokens, np.random.default_rng(seed))

    async def engine_run() -> tuple[Stopwatch, int, list[np.ndarray]]:
        engine = TransformersEngine(model, max_batch=concurrency)
        await engine.generate(GenerateRequest(prompts[0], 2))
        engine.set_weights_version(1)
        with Stopwatch() as watch:
            num_tokens, second_prompts = await run_engine(engine, prompts, concurrency, reply_tokens)
        engine.close()
        return watch, num_tokens, second_prompts

    engine_watch, engine_tokens, second_prompts = asyncio.run(engine_run())
    with Stopwatch() as generate_watch:
        generate_tokens = run_generate(model, prompts, concurrency, reply_tokens)
        generate_tokens += run_generate(model, second_prompts, concurrency, reply_tokens)
    return Throughput(
        concurrency=concurrency,
        engine_tokens_per_s=round(engine_tokens / engine_watch.clock_s, 1),
        engine_tokens_per_cpu_s=round(engine_tokens / engine_watch.cpu_s, 1),
        generate_tokens_per_s=round(generate_tokens / generate_watch.clock_s, 1),
        generate_tokens_per_cpu_s=round(generate_tokens / generate_watch.cpu_s, 1),
        decode_step_ms=round(decode_step_ms(model, concurrency, prompt_tokens, reply_tokens), 3),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--concurrency", type=int, nargs="+", default=[16, 48, 96])
    parser.add_argument("--tasks", type=int, default=24, help="tasks, of 8 rollouts each")
    parser.add_argument("--prompt-tokens", type=int, default=150)
    parser.add_argument("--reply-tokens", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", help="a model folder or hub id instead of the random tiny shape")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    model = (
        transformers.AutoModelForCausalLM.from_pretrained(arguments.model)
        if arguments.model
        else build_model()
    )
    results = [
        measure(
            model,
            concurrency=concurrency,
            num_tasks=arguments.tasks,
            prompt_tokens=arguments.prompt_tokens,
            reply_tokens=arguments.reply_tokens,
            seed=arguments.seed,
        )
        for concurrency in arguments.concurrency
    ]
    report = {
        "arguments": vars(arguments),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "machine": platform.processor() or platform.machine(),
        "results": [asdict(result) for result in results],
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
