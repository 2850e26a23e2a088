"""A group's table on a server: what a handle of an ``HttpStore`` refers to."""

import gzip
import ssl
import time
import zlib
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPException
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, Request

from .errors import StoreError
from .refusals import refusal

if TYPE_CHECKING:
    import pyarrow as pa

_SILENCE_SECONDS = 90.0
_PAUSE_SECONDS = 0.5
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""What Arrow ends a stream with. Some proxies close a connection in mid-answer as if that were the end."""


@dataclass(frozen=True, slots=True)
class RemoteBlock:
    """Where a group's Arrow stream is. Travels, token and all, to whoever is to read the group."""

    url: str
    token: str | None = field(repr=False)
    ca: str | None
    compress: bool
    retry_seconds: float

    def table(self) -> "pa.Table":
        """Fetches the group; blocks. Raises what the server names, or StoreError if it cannot be reached."""
        import pyarrow as pa

        return pa.ipc.open_stream(self._fetch()).read_all()

    def _fetch(self) -> bytes:
        opener = _opener(self.ca, tls=self.url.startswith("https:"))
        deadline = time.monotonic() + self.retry_seconds
        while True:
            try:
                return self._fetch_once(opener)
            except (OSError, HTTPException, EOFError, zlib.error) as error:
                if isinstance(error, URLError) and isinstance(error.reason, ssl.SSLCertVerificationError):
                    raise StoreError(f"{self.url} cannot be trusted: {error}; give ca, or mend it") from None
                if time.monotonic() > deadline:
                    raise StoreError(f"{self.url} cannot be reached: {error}") from None
            time.sleep(_PAUSE_SECONDS)

    def _fetch_once(self, opener: OpenerDirector) -> bytes:
        headers = {"Accept-Encoding": "gzip" if self.compress else "identity"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        with opener.open(Request(self.url, headers=headers), timeout=_SILENCE_SECONDS) as response:
            content: bytes = response.read()
            if response.headers.get("Content-Encoding") == "gzip":
                content = gzip.decompress(content)
        if response.status != 200:
            raise refusal(self.url, response.status, content) or OSError(f"status {response.status}")
        if not content.endswith(_END_OF_STREAM):
            raise EOFError("the answer was cut off")
        return content


@cache  # loading the authorities takes longer than a block
def _opener(ca: str | None, *, tls: bool) -> OpenerDirector:
    """Returns what asks as ``HttpStore`` does: by no proxy that the environment names, and at no other place
    that an answer names, for which the token is not meant."""
    opener = OpenerDirector()
    opener.add_handler(HTTPHandler())
    if tls:
        opener.add_handler(HTTPSHandler(context=ssl.create_default_context(cafile=ca)))
    return opener
