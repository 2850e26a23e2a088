"""A served store, and plain requests to it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

from raybolt.store import LocalStore, StoreServer, serve


@dataclass(frozen=True)
class Reply:
    """What a server said."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[str, str]:
        about = self.json["error"]
        return about["type"], about["message"]


def request(
    server: StoreServer,
    method: str,
    path: str,
    body: object = None,
    *,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Sends a request as any HTTP client would; a body that is no bytes goes as JSON."""
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection = HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    try:
        sent = {"Content-Type": content_type} if content is not None else {}
        connection.request(method, path, content, {**sent, **(headers or {})})
        response = connection.getresponse()
        return Reply(response.status, response.read(), dict(response.headers))
    finally:
        connection.close()


@contextmanager
def served(store: LocalStore | None = None, **options: Any) -> Iterator[StoreServer]:
    """Serves a store (a new one in memory unless given) on a free port."""
    with serve(store or LocalStore(), port=0, **options) as server:
        yield server
