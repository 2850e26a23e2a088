"""Run by Python at the start of an agent's process: its LLM calls go to the run's endpoint, wherever aimed.

The environment's OPENAI_BASE_URL already leads there; this is for clients whose code says otherwise. It needs
nothing but the standard library, so that it works in any environment, and changes only httpx's clients, as
they are imported: a request that asks an OpenAI-style server for a chat is turned round, everything else is
left alone. Where raybolt is installed as well, the frameworks it knows tell it whose calls are made and which
tools run (see `inside.py`). A process that works for no run is left alone altogether.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import urllib.parse
from typing import Any

_LIBRARIES = ("httpx", "httpx2")  # openai 3 moved to the latter
_FRAMEWORKS = ("agents", "agentscope", "autogen_agentchat", "crewai", "langchain_core")
_OPERATIONS = ("/chat/completions", "/responses")


def _endpoint() -> str:
    """The URL below which the run's operations lie; "" if this process works for no run."""
    run_url = os.environ.get("RAYBOLT_RUN_URL")
    role = urllib.parse.quote(os.environ.get("RAYBOLT_ROLE") or "agent", safe="")
    return f"{run_url}/agent/{role}/v1" if run_url and os.environ.get("RAYBOLT_RUN_KEY") else ""


def _turn(library: Any, request: Any) -> None:
    """Aims a chat request at the endpoint, and tells it where the request was meant to go."""
    operation = next((each for each in _OPERATIONS if request.url.path.endswith(each)), None)
    if operation is None or request.method != "POST" or not _is_chat(request):
        return
    for name, value in _place().items():
        request.headers.setdefault(name, value)
    aimed_at = str(request.url).partition("?")[0]
    if aimed_at.startswith(os.environ["RAYBOLT_RUN_URL"]):
        return
    request.headers["X-Raybolt-Upstream"] = aimed_at[: -len(operation)]
    request.headers["X-Raybolt-Upstream-Authorization"] = request.headers.get("authorization", "")
    request.headers["Authorization"] = f"Bearer {os.environ['RAYBOLT_RUN_KEY']}"
    request.url = library.URL(_endpoint() + operation)
    request.headers["Host"] = request.url.netloc.decode("ascii")


def _place() -> dict[str, str]:
    """Where in the run the calling code stands, as far as raybolt's emitters know of it."""
    module = sys.modules.get("raybolt.env.context")
    context = module.current_run.get() if module is not None else None
    return {} if context is None else {"X-Raybolt-Role": context.role, "X-Raybolt-Span": context.span_id}


def _is_chat(request: Any) -> bool:
    """Whether the request says what chat requests say; another service may use the same path."""
    try:
        body = json.loads(request.content)
    except Exception:  # no JSON, or a body that is still to be streamed
        return False
    return isinstance(body, dict) and "model" in body and ("messages" in body or "input" in body)


def _patch(library: Any) -> None:
    def guarded(send: Any) -> Any:
        @functools.wraps(send)
        def send_where_the_run_is(self: Any, request: Any, **options: Any) -> Any:
            _turn(library, request)
            return send(self, request, **options)

        return send_where_the_run_is

    # `send` of the async client gives a coroutine, which passes through as it is.
    library.Client.send = guarded(library.Client.send)
    library.AsyncClient.send = guarded(library.AsyncClient.send)


def _listen(framework: Any) -> None:
    """Has the framework report roles and tools, if this environment has raybolt."""
    try:
        from raybolt.adapters.command.inside import listen
    except ImportError:
        return
    try:
        listen(framework.__name__)
    except Exception as error:  # whatever it is, the agent runs without: the run then knows its calls alone
        print(f"raybolt cannot trace {framework.__name__}: {error!r}", file=sys.stderr)


class _Watcher(importlib.abc.MetaPathFinder):
    """Sees to the libraries right after they have been imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        after = _patch if name in _LIBRARIES else _listen if name in _FRAMEWORKS else None
        if after is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            load = loader.exec_module

            def load_and_patch(module: Any) -> None:
                load(module)
                after(module)

            loader.exec_module = load_and_patch
        return spec


def _run_the_next_one() -> None:
    """This file stands before a `sitecustomize` of the user's environment, which must not go missing."""
    here = os.path.dirname(os.path.abspath(__file__))
    others = [folder for folder in sys.path if os.path.abspath(folder or ".") != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


if _endpoint():
    sys.meta_path.insert(0, _Watcher())
_run_the_next_one()
