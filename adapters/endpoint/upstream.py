"""Another OpenAI-compatible server, for the calls that the policy does not take."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from raybolt.store.errors import InvalidValue

OPENAI = "https://api.openai.com/v1"


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where calls go on to: `Upstream("https://api.openai.com/v1", api_key=…)`.

    Raises:
        InvalidValue: `base_url` is no address of a web server.
    """

    base_url: str = OPENAI
    api_key: str | None = field(default=None, repr=False)
    """By default OPENAI_API_KEY of the process that serves the run."""
    model: str | None = None
    """Asked for instead of what the agent asks for."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InvalidValue(f"base_url is {self.base_url!r}; expected one such as {OPENAI}")

    @classmethod
    def of_user(cls) -> Upstream | None:
        """Where an `openai` client of this process would send its calls; None without a key for it."""
        return cls.of_environment() if os.environ.get("OPENAI_API_KEY") else None

    @classmethod
    def of_environment(cls) -> Upstream:
        """Where an `openai` client of this process would send its calls, key or no key."""
        given = os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_BASE")
        return cls(given or OPENAI, os.environ.get("OPENAI_API_KEY"))

    @property
    def authorization(self) -> str:
        """The value of the header that opens it."""
        return f"Bearer {self.api_key or os.environ.get('OPENAI_API_KEY') or 'none'}"

    def url(self, operation: str) -> str:
        """Of an operation such as "chat/completions"."""
        return f"{self.base_url.rstrip('/')}/{operation}"

    def payload(self, body: Mapping[str, Any]) -> bytes:
        """What is sent: the agent's request, for this server's model."""
        return json.dumps({**body, "model": self.model} if self.model else body).encode()
