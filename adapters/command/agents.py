"""What the user says of an agent that is no Python object: `raybolt.command` and `raybolt.external`."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raybolt.store.errors import InvalidValue

ReadResult = Callable[[str], Any]
"""Makes the agent's result of its standard output."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a run is served, and under which name agents reach it."""

    host: str = "127.0.0.1"
    ports: tuple[int, ...] = (0,)
    """The first free one is taken; 0 is any."""
    public_host: str | None = None
    """The name of this machine where the agent runs; by default `host`."""


@dataclass(frozen=True, slots=True)
class Command:
    """An agent that one process runs, once for each task. Made by `command`."""

    arguments: tuple[str, ...]
    result: ReadResult
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict)
    address: Address = field(default_factory=Address)


@dataclass(frozen=True, slots=True)
class ExternalAgent:
    """An agent whose processes the user starts, which ask for tasks. Made by `external`."""

    token: str = field(repr=False)
    address: Address = field(default_factory=Address)


def command(
    arguments: Sequence[str],
    *,
    result: ReadResult | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    host: str = "127.0.0.1",
    public_host: str | None = None,
) -> Command:
    """An agent in any language, for `wrap`: a command that is run for each task.

    It finds its LLM at OPENAI_BASE_URL with OPENAI_API_KEY, the task in RAYBOLT_TASK, and the task's input as
    JSON on its standard input.

    Args:
        arguments: The command, as a list: ["node", "agent.js"].
        result: Makes the result of what the command printed. By default the last line, if that is JSON, else
            the whole text.
        env: Variables set for the command, over those of this process.
        cwd: The folder it runs in; by default the one that this process is in now.
        host: The address of this machine to listen on; "0.0.0.0" for containers.
        public_host: The name of this machine where the agent runs, such as "host.docker.internal"; by default
            `host`.

    Raises:
        InvalidValue: `arguments` is no list of texts, or `result` no function.
    """
    if isinstance(arguments, str) or not arguments or not all(isinstance(part, str) for part in arguments):
        raise InvalidValue(f'command({arguments!r}): expected a list of texts, such as ["node", "agent.js"]')
    if result is not None and not callable(result):
        raise InvalidValue(f"command(result={result!r}): expected a function of the command's output")
    address = Address(_host(host, public_host), public_host=public_host)
    # Absolute, since the runners that start it need not be in this folder.
    folder = Path(cwd or ".").absolute()
    return Command(tuple(arguments), result or read_result, folder, dict(env or {}), address)


def external(
    *,
    token: str | None = None,
    ports: Sequence[int] = (0,),
    host: str = "127.0.0.1",
    public_host: str | None = None,
) -> ExternalAgent:
    """An agent whose processes you start yourself, in a container or on another host, for `wrap`.

    They ask for tasks: `GET http://HOST:PORT/task?wait=30` with the token as bearer key.

    Args:
        token: What they show to be given tasks; by default made up, and readable as `.token`.
        ports: Where to listen. Each runner of a machine takes the first that is free.
        host: The address of this machine to listen on; "0.0.0.0" for other hosts.
        public_host: The name of this machine where the agents run; by default `host`.

    Raises:
        InvalidValue: `ports` is empty, or the token is.
    """
    if not ports or not all(isinstance(port, int) and 0 <= port < 65536 for port in ports):
        raise InvalidValue(f"external(ports={ports!r}): expected port numbers, such as [8123, 8124]")
    if token == "":
        raise InvalidValue("external(token=''): expected a secret that your processes know, too")
    address = Address(_host(host, public_host), tuple(ports), public_host)
    return ExternalAgent(token or secrets.token_urlsafe(24), address)


def read_result(output: str) -> Any:
    """The last line of a command's output as JSON; all of the text, if that line is none."""
    text = output.strip()
    try:
        return json.loads(text.rpartition("\n")[2])
    except ValueError:
        return text


def _host(host: str, public_host: str | None) -> str:
    if host in ("0.0.0.0", "") and public_host is None:
        raise InvalidValue(
            f"host={host!r} listens on all of this machine's addresses; say by which name agents reach it: "
            'public_host="host.docker.internal", or the host\'s own name'
        )
    return host
