"""What the process of an agent finds in its environment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HOOK = Path(__file__).with_name("hook")
"""On a Python process's search path, `sitecustomize` in it turns LLM calls towards the run's endpoint."""

# Frameworks that would report what the agent does to their makers, unless the user has decided on it.
_QUIET = {
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
}


def agent_environment(description: Mapping[str, Any], role: str, own: Mapping[str, str]) -> dict[str, str]:
    """This process's environment, with the run that the endpoint describes, and the user's `own` on top."""
    base_url, key = description["base_url"], description["api_key"]
    run = {
        "OPENAI_BASE_URL": base_url,
        "OPENAI_API_BASE": base_url,
        "OPENAI_API_KEY": key,
        "RAYBOLT_RUN_URL": description["run_url"],
        "RAYBOLT_RUN_KEY": key,
        "RAYBOLT_ROLE": role,
        **({"RAYBOLT_REPLAYED": "1"} if description.get("replayed") else {}),
    }
    # The endpoint is near; a proxy meant for the internet would not find it.
    host = base_url.partition("//")[2].partition(":")[0]
    near = {name: _listed(os.environ.get(name), host, ",") for name in ("NO_PROXY", "no_proxy")}
    path = {"PYTHONPATH": _listed(own.get("PYTHONPATH", os.environ.get("PYTHONPATH")), str(HOOK), os.pathsep)}
    task = {"RAYBOLT_TASK": json.dumps(description["task"])}
    return {**_QUIET, **os.environ, **near, **run, **task, **own, **path}


def own_environment(task: Mapping[str, Any], own: Mapping[str, str]) -> dict[str, str]:
    """This process's environment for an agent that no run is behind."""
    return {**os.environ, "RAYBOLT_TASK": json.dumps(task), **own}


def _listed(present: str | None, first: str, separator: str) -> str:
    """`first`, before what a variable that holds a list has in it."""
    return f"{first}{separator}{present}" if present else first
