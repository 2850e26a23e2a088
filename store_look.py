"""`raybolt store ls|show|stats`: looking at a store, in a folder or at work, which changes nothing."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from raybolt import console_store
from raybolt.store.errors import InvalidValue, UnknownRollout
from raybolt.store.types import Attempt, Rollout
from raybolt.store_source import Source, Wanted, opened

Where = Annotated[
    str,
    typer.Argument(
        metavar="STORE",
        help="Folder of a run or store, or its journal.db; http://HOST:PORT of a server; ray://NAME.",
    ),
]
Token = Annotated[
    str | None, typer.Option(help="What the server wants to be sent.", envvar="RAYBOLT_STORE_TOKEN")
]
Ca = Annotated[
    Path | None, typer.Option(help="Authorities (PEM) to trust for https, instead of the system's.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Status = Annotated[
    list[str] | None, typer.Option(help="Only rollouts of this status; may be given several times.")
]
Mode = Annotated[str | None, typer.Option(help="Only rollouts of this mode: train, val, test or demo.")]
Group = Annotated[str | None, typer.Option(help="Only rollouts whose group id holds this.")]
Task = Annotated[str | None, typer.Option(help="Only rollouts of the task with this id.")]


def ls(
    where: Where,
    status: Status = None,
    mode: Mode = None,
    group: Group = None,
    task: Task = None,
    contains: Annotated[str | None, typer.Option(help="Only rollouts whose id holds this.")] = None,
    limit: Annotated[int, typer.Option(help="Show so many, the last ones; 0 shows all.", min=0)] = 50,
    as_json: AsJson = False,
    token: Token = None,
    ca: Ca = None,
) -> None:
    """List rollouts, those enqueued last at the bottom.

    A terminal gets what fits its width, and ids cut to what `show` needs; a pipe gets everything.
    """
    wanted = Wanted(status=status or (), mode=mode, group=group, task=task, contains=contains)
    with opened(where, token=token, ca=ca) as source:
        newest = source.newest(wanted)
        found = list(islice(newest, limit or None))
        has_more = bool(limit) and next(newest, None) is not None
    found.reverse()
    if as_json:
        console_store.print_json([_outline(rollout, attempt) for rollout, attempt in found])
    else:
        console_store.print_rollouts(found, has_more=has_more)


def show(
    where: Where,
    rollout: Annotated[str, typer.Argument(metavar="ROLLOUT", help="The rollout's id, or how it begins.")],
    attempt: Annotated[
        int | None, typer.Option(help="Number of the attempt, from 1. Default: the last.")
    ] = None,
    as_json: AsJson = False,
    token: Token = None,
    ca: Ca = None,
) -> None:
    """Show what happened in a rollout: its spans as a tree, with times, tokens and rewards."""
    with opened(where, token=token, ca=ca) as source:
        found = _one_rollout(source, rollout)
        attempts = source.attempts(found.rollout_id)
    wanted = len(attempts) if attempt is None else attempt
    if attempt is not None and not 1 <= wanted <= len(attempts):
        raise InvalidValue(f"--attempt is {attempt}; rollout {found.rollout_id} has {len(attempts)} attempts")
    tried, spans = attempts[wanted - 1] if attempts else (None, [])
    if as_json:
        console_store.print_json({**_outline(found, tried), "spans": [asdict(span) for span in spans]})
    else:
        console_store.print_rollout(found, tried, spans, num_attempts=len(attempts))


def stats(where: Where, as_json: AsJson = False, token: Token = None, ca: Ca = None) -> None:
    """Count what is in a store: what waits, what is at work, how it ended, how much room it takes.

    A folder is read whole, rewards too; of a store at work this tells what it knows by heart.
    """
    with opened(where, token=token, ca=ca) as source:
        counts = source.counts()
    if as_json:
        console_store.print_json(counts)
    else:
        console_store.print_counts(where, counts)


def _one_rollout(source: Source, given: str) -> Rollout:
    """The rollout of this id, or the only one whose id begins so."""
    found = source.named(given)
    exact = [rollout for rollout in found if rollout.rollout_id == given]
    if len(exact or found) == 1:
        return (exact or found)[0]
    how_many = f"{len(found)} rollouts begin with" if found else "no rollout has the id"
    raise UnknownRollout(f"{how_many} {given!r}; `raybolt store ls` lists them")


def _outline(rollout: Rollout, attempt: Attempt | None) -> dict[str, Any]:
    return {**asdict(rollout), "attempt": attempt and asdict(attempt)}
