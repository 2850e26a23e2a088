"""How long until the first rollout of a training run, and what each process weighs.

Times start at the interpreter; memory is read from /proc when the first iteration is done. USS is what a
process has for itself, RSS counts pages it shares with others as well.

    python -m raybolt.benchmarks.perf.startup [--model tiny] [--runners 2] [--report FILE]
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def process_started() -> float:
    """When this process began, seconds since the epoch."""
    import psutil

    return float(psutil.Process().create_time())


def one_call(text: str) -> str | None:
    """The smallest agent there is."""
    from openai import OpenAI

    client = OpenAI(api_key="none", base_url="http://nobody.invalid/v1")
    messages: Any = [{"role": "user", "content": text}]
    return client.chat.completions.create(model="policy", messages=messages).choices[0].message.content


def evenness(task: Any, result: Any, trajectory: Any) -> float:
    """The share of even token ids: differs from reply to reply, so that there is an update to time."""
    return float((trajectory.calls[0].response_ids % 2 == 0).mean())


def measure(model: str, num_runners: int) -> dict[str, Any]:
    """Seconds from the start of the process to each stage, and MiB of each process."""
    from raybolt.adapters.wrap import wrap
    from raybolt.env.task import Task
    from raybolt.rl.recipes import LightningRL
    from raybolt.rl.trainer import Trainer

    start = process_started()
    seconds = {"imports": time.time() - start}
    tasks = [Task(f"task-{index}", f"Say something about {index}.") for index in range(4)]
    recipe = LightningRL(
        model=model, iterations=1, tasks_per_iteration=4, rollouts_per_task=2, max_new_tokens=8
    )
    memory: dict[str, dict[str, float]] = {}

    def first_iteration(progress: Any) -> None:
        seconds["first iteration done"] = time.time() - start
        seconds["its rollouts"] = progress.seconds["rollouts"]
        seconds["its update"] = progress.seconds["learning"]
        memory.update(memory_of_processes())

    with (
        tempfile.TemporaryDirectory() as folder,
        Trainer(
            wrap(one_call, reward=evenness),
            algorithm=recipe,
            store=Path(folder) / "run",
            num_runners=num_runners,
            on_progress=first_iteration,
        ) as trainer,
    ):
        trainer.evaluate(tasks[:1])
        seconds["first rollout done"] = time.time() - start
        trainer.fit(tasks)
    return {"seconds": {name: round(value, 2) for name, value in seconds.items()}, "memory_mib": memory}


def memory_of_processes() -> dict[str, dict[str, float]]:
    """USS and RSS in MiB of the driver and of every raybolt actor below it."""
    import psutil

    found: dict[str, dict[str, float]] = {}
    driver = psutil.Process()
    for process in [driver, *driver.children(recursive=True)]:
        title = "driver" if process == driver else " ".join(process.cmdline())
        if process != driver and not title.startswith("ray::"):
            continue
        name = title.removeprefix("ray::").split(".")[0].strip()
        if name in ("IDLE", "DashboardAgent", "RuntimeEnvAgent"):
            continue
        usage = process.memory_full_info()
        label = name if name not in found else f"{name} {sum(key.startswith(name) for key in found) + 1}"
        found[label] = {"uss": round(usage.uss / 2**20), "rss": round(usage.rss / 2**20)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--runners", type=int, default=2)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    figures = measure(options.model, options.runners)
    stages = Table("stage", "seconds")
    for name, value in figures["seconds"].items():
        stages.add_row(name, f"{value:.1f}")
    processes = Table("process", "USS MiB", "RSS MiB")
    for name, usage in figures["memory_mib"].items():
        processes.add_row(name, str(usage["uss"]), str(usage["rss"]))
    Console().print(stages, processes)
    if options.report:
        from raybolt.benchmarks.report import versions, write_json

        machine = {"cores": os.cpu_count(), "processor": platform.machine(), "load": os.getloadavg()[0]}
        write_json(
            options.report,
            {**figures, "settings": {"model": options.model}, "machine": machine, "versions": versions()},
        )


if __name__ == "__main__":
    main()
