"""A group's table on a server: what a handle of an ``HttpStore`` refers to."""

import ssl
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from .errors import InvalidValue, StoreError
from .wire import error_from, load

if TYPE_CHECKING:
    import pyarrow as pa

_TIMEOUT_SECONDS = 90.0
_PAUSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class RemoteBlock:
    """Where a group's Arrow stream is. Travels, token and all, to whoever is to read the group."""

    url: str
    token: str | None = field(repr=False)
    ca: str | None
    retry_seconds: float

    def table(self) -> "pa.Table":
        """Fetches the group as it is now; blocks. Raises what the server names, or StoreError."""
        import pyarrow as pa

        return pa.ipc.open_stream(self._fetch()).read_all()

    def _fetch(self) -> bytes:
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        context = None if self.ca is None else ssl.create_default_context(cafile=self.ca)
        deadline = time.monotonic() + self.retry_seconds
        while True:
            try:
                request = Request(self.url, headers=headers)
                with urlopen(request, timeout=_TIMEOUT_SECONDS, context=context) as response:
                    content: bytes = response.read()
                    return content
            except HTTPError as error:
                with error:
                    raise _named(error.read()) or StoreError(f"{self.url}: {error}") from None
            except OSError as error:
                if time.monotonic() > deadline:
                    raise StoreError(f"{self.url} cannot be reached: {error}") from None
            time.sleep(_PAUSE_SECONDS)


def _named(content: bytes) -> Exception | None:
    try:
        return error_from(load(content, "the answer"))
    except InvalidValue:
        return None
