"""The command line: `raybolt demo`, `train`, `eval`, `bench`, `run`, `doctor`, `store`, `tiny make`.

A mistake of the user ends with one line and exit status 2; `--debug` shows where it came from. Heavy
imports stay inside the commands, so that `--help` is quick.
"""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import raybolt
from raybolt import console
from raybolt.store.errors import RayboltError
from raybolt.store_command import store

_INTERRUPTED = 130
"""What shells expect of a command that Ctrl-C ended: 128 and the signal's number."""


class _OneLineErrors(TyperGroup):
    # The context's class is typer's private copy of click's, and changes with typer's version: hence Any.
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except RayboltError as error:
            if ctx.params.get("debug"):
                raise
            # Ray wraps what a remote process raised; its text is a traceback, the cause is the message.
            console.print_error(str(getattr(error, "cause", error)))
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            console.print_error("interrupted")
            raise typer.Exit(_INTERRUPTED) from None


app = typer.Typer(
    cls=_OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train any LLM agent with reinforcement learning, without changing the agent.",
)
tiny = typer.Typer(no_args_is_help=True, help="The tiny model that ships with raybolt.")
app.add_typer(tiny, name="tiny")
app.add_typer(store, name="store")


class AlgorithmName(enum.StrEnum):
    """Algorithms that `train` can run."""

    LIGHTNINGRL = "lightningrl"
    SFT = "sft"


class BenchAlgorithm(enum.StrEnum):
    """What `bench` does to the model before it scores it."""

    NONE = "none"
    SFT = "sft"
    LIGHTNINGRL = "lightningrl"


class Suite(enum.StrEnum):
    """Benchmark suites."""

    SQL = "sql"


WHAT, WHERE, HOW, RUNS = "What to train", "Where", "How to learn", "Running agents"

Agent = Annotated[
    str | None,
    typer.Option(help="The agent, or build(llm) -> agent, as package.module:name.", rich_help_panel=WHAT),
]
Reward = Annotated[
    str | None,
    typer.Option(help="reward(task, result, trajectory), as package.module:name.", rich_help_panel=WHAT),
]
Tasks = Annotated[
    Path | None, typer.Option(help="Training tasks, one JSON object a line.", rich_help_panel=WHAT)
]
Val = Annotated[Path | None, typer.Option(help="Tasks to score on, same format.", rich_help_panel=WHAT)]
Teacher = Annotated[
    str | None,
    typer.Option(
        help="teacher(task, request) -> ChatMessage, as package.module:name, for demonstrations.",
        rich_help_panel=WHAT,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="Hub id, folder, .gguf file, tiny or smollm2-135m. Default: tiny.", rich_help_panel=WHAT
    ),
]
Out = Annotated[Path | None, typer.Option(help="Folder of the run.", rich_help_panel=WHERE)]
Config = Annotated[
    Path | None,
    typer.Option(help="YAML file with any of these options; the command line wins.", rich_help_panel=WHERE),
]
Seed = Annotated[
    int | None, typer.Option(help="Seed of everything random. Default: 0.", rich_help_panel=RUNS)
]
NumRunners = Annotated[
    int | None, typer.Option(help="Processes that run agents. Default: by machine.", rich_help_panel=RUNS)
]
Concurrency = Annotated[
    int | None, typer.Option(help="Agent runs at once per process. Default: 16.", rich_help_panel=RUNS)
]
MaxCalls = Annotated[
    int | None, typer.Option(help="LLM calls one run may make. Default: 16.", rich_help_panel=RUNS)
]
MaxSeconds = Annotated[
    float | None, typer.Option(help="Seconds one run may take. Default: 120.", rich_help_panel=RUNS)
]


def _print_version(wanted: bool) -> None:
    if wanted:
        console.out.print(raybolt.__version__)
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of every command."""


@app.command()
def demo(
    seed: Annotated[int, typer.Option(help="Seed of the generated world and of training.")] = 0,
    report: Annotated[Path | None, typer.Option(help="JSON report; OUT/report.json if not given.")] = None,
    control: Annotated[
        bool, typer.Option("--control", help="Also run LightningRL with learning rate 0.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run. Default: runs/demo-SEED, or the next free.")
    ] = None,
    short: Annotated[
        bool, typer.Option("--short", help="A minute's worth, to see that it runs; proves nothing.")
    ] = False,
) -> None:
    """Train a LangChain agent that answers questions with SQL, on this machine, and see what it learned."""
    from raybolt.benchmarks.demo import run_demo

    folder = out or _free_folder(Path("runs") / f"demo-{seed}")
    with console.ProgressView(console.out).running() as view:
        result = run_demo(
            out=folder, seed=seed, control=control, short=short, on_stage=view.stage, on_progress=view.step
        )
    path = report or folder / "report.json"
    result.write(path)
    console.print_demo(result.report, result.examples)
    console.out.print(f"{'report':<12} {path}")


@app.command()
def train(
    agent: Agent = None,
    reward: Reward = None,
    tasks: Tasks = None,
    val: Val = None,
    teacher: Teacher = None,
    model: Model = None,
    out: Out = None,
    config: Config = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in OUT.", rich_help_panel=WHERE)
    ] = False,
    algorithm: Annotated[
        AlgorithmName | None, typer.Option(help="Default: lightningrl.", rich_help_panel=HOW)
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(help="Default: one pass over the tasks.", rich_help_panel=HOW)
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.", rich_help_panel=HOW)] = None,
    tasks_per_iteration: Annotated[int | None, typer.Option(rich_help_panel=HOW)] = None,
    rollouts_per_task: Annotated[int | None, typer.Option(rich_help_panel=HOW)] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Of sampling in training.", rich_help_panel=HOW)
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Bound on one reply.", rich_help_panel=HOW)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the demonstrations (sft).", rich_help_panel=HOW)
    ] = None,
    seed: Seed = None,
    num_runners: NumRunners = None,
    concurrency: Concurrency = None,
    max_calls: MaxCalls = None,
    max_seconds: MaxSeconds = None,
) -> None:
    """Train an agent's model on tasks.

    Uses the Ray cluster in RAY_ADDRESS, or starts Ray on this machine.
    Every setting of the algorithm can be given under `algorithm:` in a --config file.
    """
    from raybolt.settings import load_settings

    run = {
        "agent": agent, "reward": reward, "tasks": tasks, "val": val, "teacher": teacher, "model": model,
        "out": out, "resume": resume or None, "seed": seed, "num_runners": num_runners,
        "concurrency": concurrency, "max_calls": max_calls, "max_seconds": max_seconds,
    }  # fmt: skip
    recipe = {
        "kind": algorithm and algorithm.value, "iterations": iterations, "lr": lr, "epochs": epochs,
        "tasks_per_iteration": tasks_per_iteration, "rollouts_per_task": rollouts_per_task,
        "temperature": temperature, "max_new_tokens": max_new_tokens,
    }  # fmt: skip
    settings = load_settings(config, run, recipe)

    from raybolt.runs import train_run

    with console.ProgressView(console.out).running() as view:
        result = train_run(settings, on_stage=view.stage, on_progress=view.step)
    console.print_fit(result)
    if result.val is not None:
        console.print_evaluation(result.val, of=f"{result.val.num_tasks} tasks of {settings.val}")


@app.command(name="eval")
def evaluate(
    agent: Agent = None,
    reward: Reward = None,
    tasks: Tasks = None,
    val: Val = None,
    model: Model = None,
    out: Out = None,
    config: Config = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Score the model trained in OUT, not --model.", rich_help_panel=WHERE),
    ] = False,
    report: Annotated[Path | None, typer.Option(help="JSON report.", rich_help_panel=WHERE)] = None,
    temperature: Annotated[
        float, typer.Option(help="0 is greedy: the same answer each time.", rich_help_panel=RUNS)
    ] = 0.0,
    rollouts_per_task: Annotated[
        int, typer.Option(help="Runs whose mean is a task's score.", rich_help_panel=RUNS)
    ] = 1,
    seed: Seed = None,
    num_runners: NumRunners = None,
    concurrency: Concurrency = None,
    max_calls: MaxCalls = None,
    max_seconds: MaxSeconds = None,
) -> None:
    """Score an agent without training it: on --val if given, else on --tasks."""
    from raybolt.settings import load_settings

    run = {
        "agent": agent, "reward": reward, "tasks": tasks or val, "val": val, "model": model, "out": out,
        "resume": resume or None, "seed": seed, "num_runners": num_runners, "concurrency": concurrency,
        "max_calls": max_calls, "max_seconds": max_seconds,
    }  # fmt: skip
    settings = load_settings(config, run, {})

    from raybolt.benchmarks.report import write_json
    from raybolt.runs import evaluate_run

    with console.ProgressView(console.out).running() as view:
        view.stage("Evaluation")
        result = evaluate_run(settings, temperature=temperature, rollouts_per_task=rollouts_per_task)
    console.print_evaluation(result, of=f"{result.num_tasks} tasks of {settings.val or settings.tasks}")
    if report:
        write_json(report, result)


@app.command()
def bench(
    suite: Annotated[Suite, typer.Option(help="What to measure.")] = Suite.SQL,
    data: Annotated[str, typer.Option(help="Spider's folder, or: generated.")] = "generated",
    model: Annotated[str, typer.Option(help="Hub id, folder, .gguf file, tiny or smollm2-135m.")] = "tiny",
    algorithm: Annotated[
        BenchAlgorithm, typer.Option(help="Train first: none, on demonstrations, or by reinforcement.")
    ] = BenchAlgorithm.NONE,
    limit: Annotated[int | None, typer.Option(help="Questions to score on. Default: all.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of data, training and sampling.")] = 0,
    report: Annotated[Path | None, typer.Option(help="JSON report; OUT/report.json if not given.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run. Default: runs/bench-….")] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with the algorithm's settings under 'algorithm:'.")
    ] = None,
) -> None:
    """Run a benchmark suite and report execution accuracy on its held-out databases."""
    from raybolt.benchmarks.report import write_json
    from raybolt.benchmarks.suite import run_suite
    from raybolt.settings import read_recipe

    folder = out or _free_folder(Path("runs") / f"bench-{suite}-{algorithm}-{seed}")
    recipe = None
    if algorithm is not BenchAlgorithm.NONE:
        recipe = read_recipe(config, kind=algorithm.value, model=model)
    with console.ProgressView(console.out).running() as view:
        result = run_suite(
            data=data, model=model, recipe=recipe, limit=limit, seed=seed, out=folder,
            on_stage=view.stage, on_progress=view.step,
        )  # fmt: skip
    console.print_evaluation(result.evaluation, of=f"{result.evaluation.num_tasks} questions of {data}")
    console.out.print(f"execution accuracy, failed rollouts counted: {console.percent(result.accuracy)}")
    write_json(report or folder / "report.json", result)


# What follows the command's name belongs to it, its options too.
@app.command(name="run", context_settings={"allow_interspersed_args": False})
def run_once(
    command: Annotated[list[str], typer.Argument(help="The command and its arguments, after --.")],
    store: Annotated[Path, typer.Option(help="Folder of the store that keeps the run.")] = Path(
        "runs/traces"
    ),
    model: Annotated[
        str | None, typer.Option(help="Answers its LLM calls; without it, its own LLM does.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Input on its standard input: JSON, or a text.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of sampling, with --model.")] = 0,
) -> None:
    """Run a command once and record its LLM calls: raybolt run -- python their_agent.py"""
    from raybolt.run_command import run_command

    result = run_command(command, store=store, model=model, task=task, seed=seed)
    console.print_calls(result, store)
    raise typer.Exit(result.status)


@app.command()
def doctor(
    store: Annotated[Path, typer.Argument(help="Folder of a run or store, or its journal.db.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say why nothing was learned: which link broke, in which runs, and what to do.

    Reads only; the run may still be going on. Exit status 1 if there is nothing to learn from.
    """
    from raybolt.env.diagnosis import diagnose
    from raybolt.store.peek import read_rollouts

    diagnosis = diagnose(read_rollouts(store))
    if as_json:
        console.print_json(diagnosis)
    else:
        console.print_diagnosis(diagnosis, store)
    raise typer.Exit(int(diagnosis.fatal))


@tiny.command(name="make")
def make_tiny(
    out: Annotated[Path | None, typer.Option(help="Folder to write; the shipped one if not given.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of data and weights.")] = 0,
    steps: Annotated[int | None, typer.Option(help="How long to train. Default: as the shipped one.")] = None,
) -> None:
    """Make the tiny model again, from nothing, on generated text."""
    from raybolt.benchmarks.sql.pretrain import NUM_STEPS, make

    folder = make(out=out, seed=seed, num_steps=steps or NUM_STEPS)
    console.out.print(f"The tiny model is in {folder}")


def _free_folder(folder: Path) -> Path:
    """`folder`, or `folder-2`, `folder-3`, … : the first that does not exist."""
    number, candidate = 1, folder
    while candidate.exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


def main() -> None:
    """Entry point of the `raybolt` command."""
    app()


if __name__ == "__main__":
    main()
