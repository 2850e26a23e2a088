"""The store behind a server: the whole contract over HTTP."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import IO, Any
from urllib.parse import urlencode

from .blocking import in_own_loop
from .client import StoreClient
from .completion import appearing
from .errors import StoreError
from .http_line import Answer
from .http_link import HttpLink, checked_url
from .paths import path_segment
from .remote_block import RemoteBlock
from .routes import (
    BLOCK_PATH,
    BY_OPERATION,
    CAPABILITIES_PATH,
    EXPORT_PATH,
    JSON_WITH_NAN,
    MAX_TAKEN,
    SEARCH,
    TRACES_PATH,
    Route,
)
from .row_frames import ROWS_TYPE, unpack_rows
from .types import UNSET, Capabilities, GroupHandle
from .wire import decoder, dump, load

TOKEN_VARIABLE = "RAYBOLT_STORE_TOKEN"
"""Environment variable with the token that is used if none is given."""
POLL_SECONDS = 20.0
"""How long one request waits; whoever waits longer asks again, so that no proxy cuts the line."""
RETRY_SECONDS = 60.0
"""How long a request is repeated while the server cannot be reached."""


_leave_out_token = ContextVar("leave_out_token", default=False)


@contextmanager
def without_tokens() -> Iterator[None]:
    """Within it pickled stores lack their tokens, as files should; they then look in ``TOKEN_VARIABLE``."""
    before = _leave_out_token.set(True)
    try:
        yield
    finally:
        _leave_out_token.reset(before)


class HttpStore(StoreClient):
    """A store that a server keeps (``serve``, ``raybolt store serve``). Pickled, it reaches the same server.

    Its methods may be awaited on any number of event loops and threads. Each loop has connections of its own,
    which end with it, or by ``close``. Requests are repeated while the server cannot be reached, which their
    ids make harmless; after ``RETRY_SECONDS`` they raise StoreError, and at once when the store is closed.
    Spans that are added while others are under way share a request. No later call on the same loop overtakes
    them; of another loop's calls only those that begin after ``add_span`` has returned are sure to come
    behind them. A group's handle refers to its address on the server; ``read_group`` fetches it from there.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        ca: str | os.PathLike[str] | None = None,
        compress: bool = False,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """Asks nothing yet. ``ca`` is a PEM file with the authorities to trust, instead of the system's.

        ``compress`` sends and asks for gzip: worth it on a slow line only.
        """
        self.url = checked_url(url)
        self._token = token or os.environ.get(TOKEN_VARIABLE)
        self._ca = os.fspath(ca) if ca is not None else None
        self._compress = compress
        self._retry_seconds = retry_seconds
        self._link = HttpLink(
            self.url, token=self._token, ca=self._ca, compress=compress, retry_seconds=retry_seconds
        )
        self._durable: bool | None = None

    @property
    def capabilities(self) -> Capabilities:
        """What this store can do; the first look asks the server, and blocks until it answers."""
        if self._durable is None:
            answer = in_own_loop(self._ask_for_capabilities())
            self._durable = bool(load(answer.body, "the answer")["durable"])
        return Capabilities(
            thread_safe=True, async_safe=True, zero_copy=False, otlp_traces=True, durable=self._durable
        )

    def otlp_traces_endpoint(self) -> str:
        return f"{self.url}{TRACES_PATH}"

    def export_parquet(
        self, out: str | os.PathLike[str], *, on_bytes: Callable[[int], None] = lambda num_bytes: None
    ) -> dict[str, int]:
        """Writes what the server's folder keeps to Parquet files in a new folder, as ``export_parquet`` does.

        Returns how many rows each has; blocks, and says how many bytes have come. Raises InvalidValue if the
        server's store is in memory only, or ``out`` holds anything; StoreError if it does not come to an end.
        """
        from .parquet import checked_target, unpack_zip

        with appearing(checked_target(out)) as folder:
            archive = folder.with_name(f"{folder.name}.zip")
            with archive.open("wb") as file:
                in_own_loop(self._download(file, on_bytes))
            return unpack_zip(archive, folder)

    async def close(self) -> None:
        """Ends the connections; the server and what it keeps stay as they are."""
        await self._link.close()

    def __reduce__(self) -> tuple[Any, ...]:
        token = None if _leave_out_token.get() else self._token
        return _open, (self.url, token, self._ca, self._compress, self._retry_seconds)

    def __deepcopy__(self, memo: dict[int, Any]) -> "HttpStore":
        """Itself: configurations that hold a store are copied, and a copy's connections nobody would end."""
        return self

    async def _reach(self, operation: str, arguments: dict[str, Any]) -> Any:
        spans = self._link.line().spans
        if operation == "add_rows":
            return await spans.add(arguments["rows"])
        await spans.sent()  # so that an outcome never overtakes the spans that led to it
        route = BY_OPERATION[operation]
        if operation == "dequeue":
            return await self._taken(route, arguments)
        if route.waits:
            return await self._wait(route, arguments)
        if route.page is not None:
            return await self._pages(route, arguments)
        answer = await self._send(route, arguments)
        return None if answer.missing else self._decoded(route, load(answer.body, "the answer"))

    async def _taken(self, route: Route, arguments: dict[str, Any]) -> list[Any]:
        """Takes as many at a time as one request may, until there are no more."""
        taken: list[Any] = []
        while True:
            limit = min(arguments["limit"] - len(taken), MAX_TAKEN)
            claim = f"{arguments['claim']}-{len(taken)}" if taken else arguments["claim"]
            try:
                answer = await self._send(route, {**arguments, "limit": limit, "claim": claim})
            except StoreError:
                if taken:  # what a later request says does not lose what an earlier one took
                    return taken
                raise
            found = self._decoded(route, load(answer.body, "the answer"))
            taken += found
            if len(found) < MAX_TAKEN or len(taken) == arguments["limit"]:
                return taken

    async def _wait(self, route: Route, arguments: dict[str, Any]) -> list[Any]:
        """Asks until all is there that is waited for, or the time is up."""
        if "limit" in arguments:
            arguments = {**arguments, "limit": min(arguments["limit"], MAX_TAKEN)}
        timeout = arguments["timeout"]
        deadline = None if timeout is None else time.monotonic() + timeout
        ids = arguments.get("rollout_ids", arguments.get("group_ids"))

        def now() -> dict[str, Any]:
            left = POLL_SECONDS if deadline is None else max(0.0, deadline - time.monotonic())
            return {**arguments, "timeout": min(left, POLL_SECONDS)}

        while True:
            answer = await self._send(route, now(), later=now)
            found: list[Any] = self._decoded(route, load(answer.body, "the answer"))
            is_there = bool(found) if ids is None else len(found) == len(ids)
            if is_there or (deadline is not None and time.monotonic() >= deadline):
                return found

    async def _pages(self, route: Route, arguments: dict[str, Any]) -> list[Any]:
        """Asks for page after page, until there are as many items as were asked for."""
        found: list[Any] = []
        offset: int | None = arguments["offset"]
        while offset is not None:
            left = arguments["limit"] - len(found) if arguments["limit"] >= 0 else arguments["limit"]
            answer = await self._send(route, {**arguments, "limit": left, "offset": offset})
            items, offset = self._page(route, answer)
            found += items
        return found

    def _page(self, route: Route, answer: Answer) -> tuple[list[Any], int | None]:
        if answer.media_type == ROWS_TYPE:
            return unpack_rows(answer.body, check=False)
        content = load(answer.body, "the answer")
        return self._decoded(route, content["items"]), content["next_offset"]

    async def _send(
        self,
        route: Route,
        arguments: Mapping[str, Any],
        *,
        later: Callable[[], Mapping[str, Any]] | None = None,
    ) -> Answer:
        """Asks; ``later`` gives the arguments of further tries, if they change with time."""
        method, path, body = _request(route, arguments)
        return await self._link.line().send(
            method,
            path,
            body,
            accept=ROWS_TYPE if route.operation == "rows" else JSON_WITH_NAN,
            named=route.method != "GET" and not route.waits,
            anew=None if later is None else lambda: _request(route, later())[1:],
        )

    async def _ask_for_capabilities(self) -> Answer:
        return await self._link.line().send("GET", CAPABILITIES_PATH)

    async def _download(self, file: IO[bytes], on_bytes: Callable[[int], None]) -> None:
        await self._link.line().download(EXPORT_PATH, file, on_bytes)

    def _decoded(self, route: Route, answer: Any) -> Any:
        if route.gives is None:
            return None
        if route.gives is GroupHandle:
            return self._handle(answer)
        if route.gives == list[GroupHandle]:
            return [self._handle(each) for each in answer]
        return decoder(route.gives, strict=False)(answer, f"the answer to {route.operation}")

    def _handle(self, answer: dict[str, Any]) -> GroupHandle:
        handle: GroupHandle = decoder(GroupHandle, strict=False)({**answer, "ref": None}, "the handle")
        path = BLOCK_PATH.format(group_id=path_segment(handle.group_id, "group_id"))
        url = f"{self.url}{path}?{urlencode({'seal': answer['seal']})}"
        block = RemoteBlock(url, self._token, self._ca, self._compress, self._retry_seconds)
        return replace(handle, ref=block)


def _request(route: Route, arguments: Mapping[str, Any]) -> tuple[str, str, bytes | None]:
    """The method, path and body that ask for it."""
    path, others = _with_path(route, arguments)
    if route.method == "GET" and not route.search:
        query = urlencode({name: value for name, value in others.items() if value is not None})
        return "GET", f"{path}?{query}" if query else path, None
    given = dump({name: value for name, value in others.items() if value is not UNSET})
    return ("POST", f"{path}{SEARCH}", given) if route.search else (route.method, path, given)


def _with_path(route: Route, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The path with its ids, and the arguments that are not in it."""
    ids = {name: path_segment(value, name) for name, value in arguments.items() if route.in_path(name)}
    return route.path.format(**ids), {name: each for name, each in arguments.items() if name not in ids}


def _open(url: str, token: str | None, ca: str | None, compress: bool, retry_seconds: float) -> HttpStore:
    return HttpStore(url, token=token, ca=ca, compress=compress, retry_seconds=retry_seconds)
